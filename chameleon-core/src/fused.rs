//! Operations that are one pass over memory instead of many: fast on the CPU, the same everywhere.
//!
//! Each has a plain twin made of Burn's own operations, which any backend runs. On flex, kernels of ours take its
//! place where tensors are f32: loops that the compiler turns into vector instructions of the processor at hand, on
//! all threads, with backward passes of their own. Both agree, values and gradients, to rounding.
//!
//! A row's result never depends, not even in its last bit, on how many other rows there are. Nothing here knows a
//! model.

#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "flex")]
mod kernels;
mod plain;

use burn::tensor::{Int, Tensor, assert_shape};

/// Cross-entropy of rows of logits with the gradient of its weighted sum.
#[derive(Debug, Clone)]
pub(crate) struct RowCrossEntropy {
    /// `[rows]`, negative log-likelihood of each target in nats.
    pub(crate) losses: Tensor<1>,
    /// `[rows, vocab]`, the gradient of `sum(weights * losses)`.
    pub(crate) gradient: Tensor<2>,
}

/// `lhs · rhs` of plain tensors, written once.
///
/// # Shapes
///
/// - `lhs`: `[rows, inner]`, `rhs`: `[inner, columns]`
/// - output: `[rows, columns]`
pub(crate) fn product(lhs: Tensor<2>, rhs: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if flex::runs(&lhs) && flex::runs(&rhs) {
        return flex::product(lhs, rhs);
    }
    lhs.matmul(rhs)
}

/// `sum + lhs · rhs` of plain tensors, in the memory of `sum` if nobody else holds it.
///
/// # Shapes
///
/// - `lhs`: `[rows, inner]`, `rhs`: `[inner, columns]`
/// - `sum`, output: `[rows, columns]`
pub(crate) fn add_product(sum: Tensor<2>, lhs: Tensor<2>, rhs: Tensor<2>) -> Tensor<2> {
    #[cfg(feature = "flex")]
    if flex::runs(&sum) && flex::runs(&lhs) && flex::runs(&rhs) {
        return flex::add_product(sum, lhs, rhs);
    }
    sum + lhs.matmul(rhs)
}

/// Cross-entropy of plain logits and its gradient, in the memory of `logits` if nobody else holds it.
///
/// # Shapes
///
/// - `logits`: `[rows, vocab]`, `targets`, `weights`: `[rows]`
pub(crate) fn cross_entropy(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
) -> RowCrossEntropy {
    let [num_rows, _] = logits.dims();
    assert_shape!(targets, [num_rows]);
    assert_shape!(weights, [num_rows]);
    #[cfg(feature = "flex")]
    if flex::runs(&logits) && flex::runs(&weights) {
        return flex::cross_entropy(logits, targets, weights);
    }
    plain::cross_entropy(logits, targets, weights)
}

/// Cross-entropy of plain logits.
///
/// # Shapes
///
/// - `logits`: `[rows, vocab]`, `targets`: `[rows]`
/// - output: `[rows]`
pub(crate) fn cross_entropy_losses(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let [num_rows, _] = logits.dims();
    assert_shape!(targets, [num_rows]);
    #[cfg(feature = "flex")]
    if flex::runs(&logits) {
        return flex::cross_entropy_losses(logits, targets);
    }
    plain::cross_entropy_losses(logits, targets)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, TensorData, Tolerance};

    use super::*;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 2.0), &Device::flex())
    }

    fn targets(num_rows: usize, vocab: usize) -> Tensor<1, Int> {
        let ids: Vec<i64> = (0..num_rows).map(|row| (row * 7 % vocab) as i64).collect();
        Tensor::from_data(TensorData::new(ids, [num_rows]), &Device::flex())
    }

    fn assert_close<const D: usize>(found: Tensor<D>, expected: Tensor<D>) {
        found
            .into_data()
            .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::rel_abs(1e-5, 1e-6));
    }

    #[test]
    fn cross_entropy_is_its_plain_twin() {
        for (num_rows, vocab) in [(1, 1), (3, 31), (5, 32), (4, 1000)] {
            let (logits, weights) = (random([num_rows, vocab]) * 20.0, random([num_rows]));
            let targets = targets(num_rows, vocab);
            let found = cross_entropy(logits.clone(), targets.clone(), weights.clone());
            let expected = plain::cross_entropy(logits.clone(), targets.clone(), weights);
            assert_close(found.losses.clone(), expected.losses);
            assert_close(found.gradient, expected.gradient);
            assert_close(cross_entropy_losses(logits, targets), found.losses);
        }
    }

    #[test]
    fn products_are_those_of_burn_whatever_the_layout() {
        let (lhs, rhs) = (random([70, 40]), random([40, 90]));
        let expected = lhs.clone().matmul(rhs.clone());
        let transposed = |x: &Tensor<2>| (x.clone().transpose() * 1.0).transpose();
        for lhs in [lhs.clone(), transposed(&lhs)] {
            for rhs in [rhs.clone(), transposed(&rhs)] {
                let found = product(lhs.clone(), rhs.clone());
                assert_close(found.clone(), expected.clone());
                let twice = add_product(found, lhs.clone(), rhs);
                assert_close(twice, expected.clone() * 2.0);
            }
        }
    }

    #[test]
    fn a_shared_sum_is_left_alone() {
        let (sum, lhs, rhs) = (random([2, 3]), random([2, 4]), random([4, 3]));
        let before = sum.to_data();
        let _ = add_product(sum.clone(), lhs, rhs);
        sum.into_data().assert_eq(&before, true);
    }
}
