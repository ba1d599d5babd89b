//! What the fused operations take, where it is more than two tensors, and what they return.

use burn::tensor::Tensor;

use crate::factors::LoraFactors;
use crate::frozen_weight::FrozenWeight;
use crate::low_rank::LowRankChange;

/// Angles of a rotary position embedding that rotates the first half of each head against the second half.
#[derive(Debug, Clone)]
pub struct RotaryHalves {
    /// `[batch or 1, 1, seq, head_dim / 2]`
    pub cos: Tensor<4>,
    /// `[batch or 1, 1, seq, head_dim / 2]`
    pub sin: Tensor<4>,
}

impl RotaryHalves {
    /// Rotates the first half of each head against the second one.
    ///
    /// # Shapes
    ///
    /// - `x`, output: `[batch, heads, seq, head_dim]`
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let first = x.clone().narrow(3, 0, half);
        let second = x.narrow(3, half, half);
        let rotated_first = first.clone() * self.cos.clone() - second.clone() * self.sin.clone();
        let rotated_second = second * self.cos.clone() + first * self.sin.clone();
        Tensor::cat(vec![rotated_first, rotated_second], 3)
    }
}

/// Attention over whole sequences in which every token sees itself and what precedes it.
#[derive(Debug, Clone)]
pub struct CausalAttention {
    /// `[batch, seq, heads * head_dim]`
    pub query: Tensor<3>,
    /// `[batch, seq, kv_heads * head_dim]`; several query heads may share one.
    pub key: Tensor<3>,
    /// `[batch, seq, kv_heads * head_dim]`
    pub value: Tensor<3>,
    /// Width of a head.
    pub head_dim: usize,
    /// The rotary embedding of queries and keys, if the model has one.
    pub rotary: Option<RotaryHalves>,
}

/// A frozen linear module and its input.
#[derive(Debug, Clone)]
pub struct LinearInput {
    /// `[batch, seq, in]`
    pub x: Tensor<3>,
    /// `[in, out]`
    pub weight: FrozenWeight,
    /// `[out]`
    pub bias: Option<Tensor<1>>,
    /// What is added to the output.
    pub change: Option<LowRankChange>,
}

/// Rows that are changed by the factors of different groups.
#[derive(Debug, Clone)]
pub(crate) struct GroupedRows<'a> {
    /// `[rows, in]`
    pub(crate) x: Tensor<2>,
    /// The factors of the groups; their ranks may differ.
    pub(crate) groups: &'a [LoraFactors],
    /// For each row its group, or `None` if nothing is added to it.
    pub(crate) row_groups: &'a [Option<usize>],
}

/// Cross-entropy of rows of logits with the gradient of its weighted sum.
#[derive(Debug, Clone)]
pub(crate) struct RowCrossEntropy {
    /// `[rows]`, negative log-likelihood of each target in nats.
    pub(crate) losses: Tensor<1>,
    /// `[rows, vocab]`, the gradient of `sum(weights * losses)`.
    pub(crate) gradient: Tensor<2>,
}
