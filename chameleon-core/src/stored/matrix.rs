//! A weight that stays as a file stores it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use super::dtype::TensorDtype;

/// Bytes that belong to somebody else, such as a mapped file. Clones share them.
#[derive(Clone)]
pub struct StoredBytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl StoredBytes {
    /// A range of the bytes of `owner`; `None` if it does not have them.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, range: Range<usize>) -> Option<Self> {
        owner.as_ref().as_ref().get(range.clone())?;
        Some(Self { owner, range })
    }
}

impl std::ops::Deref for StoredBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.owner.as_ref().as_ref()[self.range.clone()]
    }
}

impl fmt::Debug for StoredBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredBytes({:?})", self.range)
    }
}

/// The weight of a linear module or an embedding, output by output in blocks along its input. Clones share it.
#[derive(Debug, Clone)]
pub struct StoredMatrix(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dtype: TensorDtype,
    bytes: StoredBytes,
    out_size: usize,
    in_size: usize,
    /// The stored row of each output, if they are in another order.
    stored_rows: Option<Box<[u32]>>,
}

/// The reason why bytes are not a weight.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StoredMatrixError {
    /// A row is not a whole number of blocks.
    #[error("rows have {in_size} values, {dtype} comes in blocks of {}", dtype.block_len())]
    PartOfBlock {
        /// The length of a row.
        in_size: usize,
        /// The format.
        dtype: TensorDtype,
    },
    /// There are too few or too many bytes.
    #[error(
        "found {found} bytes of {dtype}, expected those of {out_size} rows of {in_size} values"
    )]
    WrongSize {
        /// Their number.
        found: usize,
        /// The format.
        dtype: TensorDtype,
        /// The number of rows.
        out_size: usize,
        /// The length of a row.
        in_size: usize,
    },
    /// The order of rows is not one.
    #[error("the order of {out_size} rows names row {row}, or not as many rows")]
    WrongOrder {
        /// The number of rows.
        out_size: usize,
        /// The largest row that is named.
        row: u32,
    },
    /// A value is NaN or infinite.
    #[error("value {position} is {value}")]
    NonFinite {
        /// Its place in the file's order.
        position: usize,
        /// The value.
        value: f32,
    },
}

impl StoredMatrix {
    /// A weight of `[out, in]` stored values. All of them are decoded once, to see that they are finite.
    ///
    /// # Errors
    ///
    /// When the bytes are not of this shape, or a value is not finite.
    pub fn new(
        dtype: TensorDtype,
        bytes: StoredBytes,
        [out_size, in_size]: [usize; 2],
    ) -> Result<Self, StoredMatrixError> {
        if !in_size.is_multiple_of(dtype.block_len()) {
            return Err(StoredMatrixError::PartOfBlock { in_size, dtype });
        }
        let expected = out_size.checked_mul(in_size);
        if expected.and_then(|num_values| dtype.num_bytes(num_values)) != Some(bytes.len()) {
            return Err(StoredMatrixError::WrongSize {
                found: bytes.len(),
                dtype,
                out_size,
                in_size,
            });
        }
        let matrix = Self(Arc::new(Inner {
            dtype,
            bytes,
            out_size,
            in_size,
            stored_rows: None,
        }));
        match matrix.first_not_finite() {
            Some((position, value)) => Err(StoredMatrixError::NonFinite { position, value }),
            None => Ok(matrix),
        }
    }

    /// The same weight with its outputs in another order: output `idx` is the stored row `stored_rows[idx]`.
    ///
    /// # Errors
    ///
    /// When there is not one valid row for each output.
    pub fn with_order(self, stored_rows: Vec<u32>) -> Result<Self, StoredMatrixError> {
        let Inner {
            dtype,
            ref bytes,
            out_size,
            in_size,
            ..
        } = *self.0;
        let row = stored_rows.iter().copied().max().unwrap_or(0);
        if stored_rows.len() != out_size || usize::try_from(row).is_ok_and(|row| row >= out_size) {
            return Err(StoredMatrixError::WrongOrder { out_size, row });
        }
        Ok(Self(Arc::new(Inner {
            dtype,
            bytes: bytes.clone(),
            out_size,
            in_size,
            stored_rows: Some(stored_rows.into()),
        })))
    }

    /// How its values are stored.
    pub fn dtype(&self) -> TensorDtype {
        self.0.dtype
    }

    /// The width of its input.
    pub fn in_size(&self) -> usize {
        self.0.in_size
    }

    /// The width of its output.
    pub fn out_size(&self) -> usize {
        self.0.out_size
    }

    /// The stored bytes, in the file's order.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// The bytes of one output.
    ///
    /// # Panics
    ///
    /// When there is no such output.
    #[inline]
    pub(crate) fn row(&self, out_idx: usize) -> &[u8] {
        let inner = &*self.0;
        let stored_idx = match &inner.stored_rows {
            Some(rows) => rows[out_idx] as usize,
            None => out_idx,
        };
        let row_bytes = inner.bytes.len() / inner.out_size;
        &inner.bytes[stored_idx * row_bytes..][..row_bytes]
    }

    /// Decodes some outputs into rows of `width` values; what is behind the inputs of a row is left alone.
    ///
    /// # Panics
    ///
    /// When there is no such output, or they do not fit.
    pub fn decode_rows(&self, outputs: Range<usize>, width: usize, values: &mut [f32]) {
        let inner = &*self.0;
        if width == inner.in_size && inner.stored_rows.is_none() {
            let row_bytes = inner.bytes.len() / inner.out_size;
            let bytes = &inner.bytes[outputs.start * row_bytes..outputs.end * row_bytes];
            let values = &mut values[..outputs.len() * width];
            return inner.dtype.decode(bytes, values);
        }
        for (out_idx, values) in outputs.zip(values.chunks_exact_mut(width)) {
            let values = &mut values[..inner.in_size];
            inner.dtype.decode(self.row(out_idx), values);
        }
    }

    /// The values of some outputs, one after the other.
    ///
    /// # Panics
    ///
    /// When there is no such output.
    pub fn rows(&self, outputs: impl IntoIterator<Item = usize>) -> Vec<f32> {
        let mut values = Vec::new();
        for out_idx in outputs {
            let start = values.len();
            values.resize(start + self.in_size(), 0.0);
            self.dtype().decode(self.row(out_idx), &mut values[start..]);
        }
        values
    }

    /// All values as the weight of a linear module, `[in, out]`, which is a transposed view.
    pub fn to_dense(&self, device: &Device) -> Tensor<2> {
        let values = self.rows(0..self.out_size());
        let data = TensorData::new(values, [self.out_size(), self.in_size()]);
        Tensor::<2>::from_data(data, device).transpose()
    }

    fn first_not_finite(&self) -> Option<(usize, f32)> {
        let find = |out_idx: usize| {
            let values = self.rows([out_idx]);
            let found = values.iter().position(|value| !value.is_finite())?;
            Some((out_idx * self.in_size() + found, values[found]))
        };
        (0..self.out_size()).into_par_iter().find_map_first(find)
    }
}

#[cfg(test)]
impl StoredMatrix {
    /// A weight whose bytes repeat; no byte and no pair of bytes is a large number in any format.
    pub(crate) fn of_pattern(dtype: TensorDtype, shape: [usize; 2]) -> Self {
        let num_bytes = dtype
            .num_bytes(shape[0] * shape[1])
            .expect("rows of whole blocks");
        let bytes: Vec<u8> = (0..num_bytes)
            .map(|idx| u8::try_from((idx * 37 + idx / 11) % 53).expect("a small number"))
            .collect();
        let bytes = StoredBytes::new(Arc::new(bytes), 0..num_bytes).expect("all bytes");
        Self::new(dtype, bytes, shape).expect("a weight")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn q4_0(num_blocks: usize) -> StoredBytes {
        let block = [0, 0x3c].into_iter().chain(0x20..0x30);
        let bytes: Vec<u8> = (0..num_blocks).flat_map(|_| block.clone()).collect();
        let len = bytes.len();
        StoredBytes::new(Arc::new(bytes), 0..len).unwrap()
    }

    #[test]
    fn rows_are_decoded_in_the_order_of_the_outputs() {
        let bytes: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0]
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let stored = StoredBytes::new(Arc::new(bytes), 0..16).unwrap();
        let matrix = StoredMatrix::new(TensorDtype::F32, stored, [2, 2]).unwrap();
        assert_eq!(matrix.rows([1, 0]), [3.0, 4.0, 1.0, 2.0]);
        let turned = matrix.with_order(vec![1, 0]).unwrap();
        assert_eq!(turned.rows([1, 0]), [1.0, 2.0, 3.0, 4.0]);
        let dense = turned.to_dense(&Device::default()).into_data();
        assert_eq!(
            dense.iter::<f32>().collect::<Vec<_>>(),
            [3.0, 1.0, 4.0, 2.0]
        );
    }

    #[test]
    fn what_is_not_a_weight_is_an_error() {
        let new = |bytes, shape| StoredMatrix::new(TensorDtype::Q4_0, bytes, shape);
        assert!(new(q4_0(4), [2, 64]).is_ok());
        assert!(matches!(
            new(q4_0(4), [3, 64]),
            Err(StoredMatrixError::WrongSize { found: 72, .. })
        ));
        assert!(matches!(
            new(q4_0(4), [2, 63]),
            Err(StoredMatrixError::PartOfBlock { in_size: 63, .. })
        ));
        assert!(matches!(
            new(q4_0(4), [usize::MAX, 64]),
            Err(StoredMatrixError::WrongSize { .. })
        ));
        let order = |rows| new(q4_0(4), [2, 64]).unwrap().with_order(rows);
        assert!(order(vec![1, 0]).is_ok());
        assert!(order(vec![2, 0]).is_err());
        assert!(order(vec![0]).is_err());
        let mut infinite = q4_0(4).to_vec();
        infinite[37] = 0x7c;
        let len = infinite.len();
        let infinite = StoredBytes::new(Arc::new(infinite), 0..len).unwrap();
        let found = new(infinite, [2, 64]).unwrap_err();
        assert!(
            matches!(found, StoredMatrixError::NonFinite { position: 64, .. }),
            "{found}"
        );
        assert!(StoredBytes::new(Arc::new(vec![0_u8; 3]), 1..4).is_none());
    }
}
