//! What the fused operations take, where it is more than two tensors, and what they return.

use burn::tensor::Tensor;

use crate::factors::LoraFactors;
use crate::frozen_weight::FrozenWeight;
use crate::low_rank::LowRankChange;

/// Angles of a rotary position embedding that rotates the first half of each head against the second half. Angles for
/// less than half of a head leave the rest of the head as it is.
#[derive(Debug, Clone)]
pub struct RotaryHalves {
    /// `[batch or 1, 1, seq, rotary_dim / 2]`
    pub cos: Tensor<4>,
    /// `[batch or 1, 1, seq, rotary_dim / 2]`
    pub sin: Tensor<4>,
}

impl RotaryHalves {
    /// Rotates the first half of what rotates of each head against the second one.
    ///
    /// # Shapes
    ///
    /// - `x`, output: `[batch, heads, seq, head_dim]`
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, _, _, head_dim] = x.dims();
        let [_, _, _, half] = self.cos.dims();
        let first = x.clone().narrow(3, 0, half);
        let second = x.clone().narrow(3, half, half);
        let rotated_first = first.clone() * self.cos.clone() - second.clone() * self.sin.clone();
        let rotated_second = second * self.cos.clone() + first * self.sin.clone();
        let mut parts = vec![rotated_first, rotated_second];
        if 2 * half < head_dim {
            parts.push(x.narrow(3, 2 * half, head_dim - 2 * half));
        }
        Tensor::cat(parts, 3)
    }
}

/// How scores follow from queries and keys, and how far back a query attends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreRule {
    /// The factor of the products.
    pub scale: f64,
    /// Scores are held between plus and minus this cap by `cap * tanh(score / cap)`.
    pub soft_cap: Option<f64>,
    /// The tokens that a query attends to, itself and those just before it; all of them if `None`.
    pub window: Option<usize>,
}

impl ScoreRule {
    /// Products divided by the square root of the head's width, and nothing else.
    pub fn of_head(head_dim: usize) -> Self {
        Self {
            scale: (head_dim as f64).sqrt().recip(),
            soft_cap: None,
            window: None,
        }
    }

    /// The first key that a query attends to.
    pub fn first_key(&self, query: usize) -> usize {
        self.window
            .map_or(0, |window| (query + 1).saturating_sub(window))
    }

    /// Scores under the soft cap.
    pub fn cap<const D: usize>(&self, scores: Tensor<D>) -> Tensor<D> {
        match self.soft_cap {
            Some(cap) => (scores / cap).tanh() * cap,
            None => scores,
        }
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
    /// The rotary embedding of queries and keys, if the layer has one.
    pub rotary: Option<RotaryHalves>,
    /// Scores and how far back they reach.
    pub rule: ScoreRule,
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
