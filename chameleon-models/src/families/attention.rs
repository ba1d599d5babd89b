//! Attention: several query heads may share one key-value head.
//!
//! A layer projects its states and passes them to an [`Attend`], which differs between kinds of passes.

use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Tensor, assert_shape};
use chameleon_core::fused::{self, CausalAttention, RotaryHalves, ScoreRule};

/// Attention of one kind of pass.
pub(crate) trait Attend {
    /// The values each query attends to, heads side by side.
    ///
    /// # Shapes
    ///
    /// - output: `[batch, seq, heads * head_dim]`
    fn attend(&mut self, projected: Projected<'_>) -> Tensor<3>;
}

/// Query, key and value of a layer, as projected.
pub(crate) struct Projected<'a> {
    /// `[batch, seq, heads * head_dim]`
    pub(crate) query: Tensor<3>,
    /// `[batch, seq, kv_heads * head_dim]`
    pub(crate) key: Tensor<3>,
    /// `[batch, seq, kv_heads * head_dim]`
    pub(crate) value: Tensor<3>,
    pub(crate) head_dim: usize,
    /// The rotary embedding of queries and keys, if the layer has one.
    pub(crate) rotary: Option<&'a RotaryHalves>,
    /// Scores, and how far back they reach.
    pub(crate) scores: ScoreRule,
}

/// Query, key and value with their positions, split into heads.
pub(crate) struct Heads {
    /// `[batch, heads, seq, head_dim]`
    pub(crate) query: Tensor<4>,
    /// `[batch, kv_heads, seq, head_dim]`
    pub(crate) key: Tensor<4>,
    /// `[batch, kv_heads, seq, head_dim]`
    pub(crate) value: Tensor<4>,
}

impl Projected<'_> {
    /// Splits into heads and applies the rotary embedding.
    pub(crate) fn into_heads(self) -> Heads {
        let Self {
            query,
            key,
            value,
            head_dim,
            rotary,
            ..
        } = self;
        let rotated = |x| match rotary {
            Some(rotary) => rotary.apply(heads(x, head_dim)),
            None => heads(x, head_dim),
        };
        Heads {
            query: rotated(query),
            key: rotated(key),
            value: heads(value, head_dim),
        }
    }
}

/// `[batch, seq, heads * head_dim]` -> `[batch, heads, seq, head_dim]`
fn heads(projected: Tensor<3>, head_dim: usize) -> Tensor<4> {
    let [batch, seq_len, width] = projected.dims();
    projected
        .reshape([batch, seq_len, width / head_dim, head_dim])
        .swap_dims(1, 2)
}

/// Attention of a pass over whole sequences: each token to itself and to those before it.
pub(crate) struct Causal;

impl Attend for Causal {
    fn attend(&mut self, projected: Projected<'_>) -> Tensor<3> {
        fused::causal_attention(CausalAttention {
            query: projected.query,
            key: projected.key,
            value: projected.value,
            head_dim: projected.head_dim,
            rotary: projected.rotary.cloned(),
            rule: projected.scores,
        })
    }
}

/// Query, key and value of one layer, split into heads.
#[derive(Debug)]
pub(crate) struct AttentionInput<'a> {
    /// `[batch, heads, seq, head_dim]`
    pub(crate) query: Tensor<4>,
    /// `[batch, kv_heads, slots, head_dim]`
    pub(crate) key: Tensor<4>,
    /// `[batch, kv_heads, slots, head_dim]`
    pub(crate) value: Tensor<4>,
    /// What each query may not look at, the window of `scores` included.
    pub(crate) mask: &'a AttentionMask,
    /// The factor and the cap of scores.
    pub(crate) scores: ScoreRule,
}

/// The mask of each query; built once for a forward pass and shared by its layers.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one or a few exist in a pass")]
pub(crate) enum AttentionMask {
    /// Later tokens, in a pass over whole sequences.
    Causal,
    /// Given slots: `true` is masked; `[batch, 1, seq, slots]`.
    Hidden(Tensor<4, Bool>),
}

/// Softmax of the scaled, masked scores times the values, heads side by side.
///
/// # Shapes
///
/// - output: `[batch, seq, heads * head_dim]`
pub(crate) fn attend(input: AttentionInput<'_>) -> Tensor<3> {
    let [batch, num_heads, seq_len, head_dim] = input.query.dims();
    let [_, num_kv_heads, num_slots, _] = input.key.dims();
    assert_shape!(input.key, [batch, num_kv_heads, num_slots, head_dim]);
    assert_shape!(input.value, [batch, num_kv_heads, num_slots, head_dim]);

    attend_fused(input)
        .swap_dims(1, 2) // [batch, seq, heads, head_dim]
        .reshape([batch, seq_len, num_heads * head_dim])
}

/// One fused operation of the backend, given the equal head counts and the full masks that all of them take.
fn attend_fused(input: AttentionInput<'_>) -> Tensor<4> {
    let [batch, num_heads, seq_len, head_dim] = input.query.dims();
    let [_, num_kv_heads, num_slots, _] = input.key.dims();
    let group_size = num_heads / num_kv_heads;
    let options = AttentionModuleOptions {
        scale: Some(input.scores.scale),
        softcap: input.scores.soft_cap,
        is_causal: matches!(input.mask, AttentionMask::Causal),
    };
    match input.mask {
        AttentionMask::Causal => {
            let key = for_each_query_head(input.key, group_size);
            let value = for_each_query_head(input.value, group_size);
            attention(input.query, key, value, None, None, options)
        }
        AttentionMask::Hidden(hidden) => {
            // Queries that share a key-value head are stacked, so that the cache is never copied.
            let rows = group_size * seq_len;
            let hidden = hidden
                .clone()
                .repeat_dim(2, group_size) // [batch, 1, group * seq, slots]
                .expand([batch, num_kv_heads, rows, num_slots]);
            let query = input.query.reshape([batch, num_kv_heads, rows, head_dim]);
            attention(query, input.key, input.value, Some(hidden), None, options)
                .reshape([batch, num_heads, seq_len, head_dim])
        }
    }
}

/// `[batch, kv_heads, slots, head_dim]` -> `[batch, heads, slots, head_dim]`
fn for_each_query_head(x: Tensor<4>, group_size: usize) -> Tensor<4> {
    if group_size == 1 {
        return x;
    }
    let [batch, num_kv_heads, num_slots, head_dim] = x.dims();
    x.unsqueeze_dim::<5>(2)
        .repeat_dim(2, group_size) // [batch, kv_heads, group, slots, head_dim]
        .reshape([batch, num_kv_heads * group_size, num_slots, head_dim])
}
