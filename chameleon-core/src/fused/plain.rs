//! The same operations made of Burn's own, for every backend, and to compare the kernels with.

use burn::tensor::{IndexingUpdateOp, Int, Tensor};

use super::RowCrossEntropy;

pub(super) fn cross_entropy(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
) -> RowCrossEntropy {
    let targets = targets.unsqueeze_dim::<2>(1); // [rows, 1]
    let weights = weights.unsqueeze_dim::<2>(1); // [rows, 1]
    let softmax = SoftmaxRows::of(logits);
    let losses = softmax.losses(targets.clone());
    let probs = softmax.exponentials * (softmax.sums.recip() * weights.clone());
    RowCrossEntropy {
        losses,
        gradient: probs.scatter(1, targets, -weights, IndexingUpdateOp::Add),
    }
}

pub(super) fn cross_entropy_losses(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    SoftmaxRows::of(logits).losses(targets.unsqueeze_dim(1))
}

/// Softmax of rows of logits, kept as its parts so that loss and gradient share the exponentials.
struct SoftmaxRows {
    /// `[rows, vocab]`, logits less their row maximum
    shifted: Tensor<2>,
    /// `[rows, vocab]`
    exponentials: Tensor<2>,
    /// `[rows, 1]`
    sums: Tensor<2>,
}

impl SoftmaxRows {
    fn of(logits: Tensor<2>) -> Self {
        let shifted = logits.clone() - logits.max_dim(1);
        let exponentials = shifted.clone().exp();
        let sums = exponentials.clone().sum_dim(1);
        Self {
            shifted,
            exponentials,
            sums,
        }
    }

    /// `targets` `[rows, 1]` -> `[rows]`
    fn losses(&self, targets: Tensor<2, Int>) -> Tensor<1> {
        (self.sums.clone().log() - self.shifted.clone().gather(1, targets)).squeeze_dim(1)
    }
}
