//! The same operations made of Burn's own, for every backend, and to compare the kernels with.

use burn::tensor::activation::{sigmoid, softmax};
use burn::tensor::{Bool, IndexingUpdateOp, Int, Tensor};

use super::inputs::{CausalAttention, GroupedRows, RowCrossEntropy};
use crate::low_rank::LowRankChange;

/// `x * sigmoid(x)`.
pub(super) fn silu(x: Tensor<3>) -> Tensor<3> {
    x.clone() * sigmoid(x)
}

/// GELU by its tanh approximation, written with a sigmoid: `tanh(u) = 2 sigmoid(2u) - 1`.
///
/// The same function, to rounding; Burn's own version raises to a power and takes a hyperbolic tangent.
pub(super) fn gelu_tanh(x: Tensor<3>) -> Tensor<3> {
    /// `2 * sqrt(2 / pi)`
    const SLOPE: f64 = 1.595_769_121_605_731;
    let steepness = (x.clone() * x.clone()) * (SLOPE * 0.044_715) + SLOPE;
    x.clone() * sigmoid(steepness * x)
}

pub(super) fn rms_norm(x: Tensor<3>, scale: Tensor<1>, epsilon: f64) -> Tensor<3> {
    let root = (x.clone().square().mean_dim(2) + epsilon).sqrt();
    (x / root) * scale.unsqueeze()
}

pub(super) fn linear(x: Tensor<3>, weight: Tensor<2>, change: Option<LowRankChange>) -> Tensor<3> {
    let [batch, seq_len, in_size] = x.dims();
    let [_, out_size] = weight.dims();
    let rows = x.clone().reshape([batch * seq_len, in_size]);
    let output = rows.matmul(weight).reshape([batch, seq_len, out_size]);
    match change {
        Some(change) => output + change.apply(x),
        None => output,
    }
}

/// By runs of rows of one group.
pub(super) fn add_grouped(sum: Tensor<2>, rows: &GroupedRows<'_>) -> Tensor<2> {
    if rows.row_groups.is_empty() {
        return sum;
    }
    let mut first = 0;
    let runs = rows
        .row_groups
        .chunk_by(|left, right| left == right)
        .map(|run| {
            let part = |x: &Tensor<2>| x.clone().narrow(0, first, run.len());
            let sum = part(&sum);
            let changed = match run[0] {
                None => sum,
                Some(group_idx) => sum + rows.groups[group_idx].apply(part(&rows.x)),
            };
            first += run.len();
            changed
        })
        .collect();
    Tensor::cat(runs, 0)
}

pub(super) fn causal_attention(input: &CausalAttention) -> Tensor<3> {
    let [batch, seq_len, width] = input.query.dims();
    let head_dim = input.head_dim;
    let heads = |x: Tensor<3>| {
        let [_, _, width] = x.dims();
        x.reshape([batch, seq_len, width / head_dim, head_dim])
            .swap_dims(1, 2) // [batch, heads, seq, head_dim]
    };
    let rotated = |x: Tensor<3>| match &input.rotary {
        Some(rotary) => rotary.apply(heads(x)),
        None => heads(x),
    };
    let query = rotated(input.query.clone()) * input.rule.scale;
    let (key, value) = (rotated(input.key.clone()), heads(input.value.clone()));

    // The queries that share a key-value head stand below one another, so no key or value is copied.
    let [_, num_heads, _, _] = query.dims();
    let [_, num_kv_heads, _, _] = key.dims();
    let rows = num_heads / num_kv_heads * seq_len;
    let mut hidden = Tensor::<2, Bool>::tril_mask([seq_len, seq_len], 0, &query.device());
    if let Some(window) = input.rule.window.filter(|&window| window < seq_len) {
        let first = 1 - i64::try_from(window).expect("a window is shorter than the sequence");
        let before = Tensor::<2, Bool>::triu_mask([seq_len, seq_len], first, &query.device());
        hidden = hidden.bool_or(before);
    }
    let scores = query
        .reshape([batch, num_kv_heads, rows, head_dim])
        .matmul(key.transpose()) // [batch, kv_heads, group * seq, seq]
        .reshape([batch, num_heads, seq_len, seq_len]);
    let scores = input.rule.cap(scores).mask_fill(
        hidden
            .unsqueeze::<4>()
            .expand([batch, num_heads, seq_len, seq_len]),
        f32::NEG_INFINITY,
    );
    softmax(scores, 3)
        .reshape([batch, num_kv_heads, rows, seq_len])
        .matmul(value) // [batch, kv_heads, group * seq, head_dim]
        .reshape([batch, num_heads, seq_len, head_dim])
        .swap_dims(1, 2)
        .reshape([batch, seq_len, width])
}

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
