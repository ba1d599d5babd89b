//! Positions in host memory as indices of tensors.

use burn::tensor::{Device, Int, Tensor};

/// A tensor of indices, `[indices]`.
///
/// # Panics
///
/// Panics if an index needs more than 63 bits.
pub(crate) fn index_tensor(
    indices: impl IntoIterator<Item = usize>,
    device: &Device,
) -> Tensor<1, Int> {
    let indices: Vec<i64> = indices
        .into_iter()
        .map(|idx| i64::try_from(idx).expect("an index has at most 63 bits"))
        .collect();
    Tensor::from_data(indices.as_slice(), device)
}
