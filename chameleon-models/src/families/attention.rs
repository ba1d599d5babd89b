//! Attention: several query heads may share one key-value head.
//!
//! A layer projects its states and passes them to an [`Attend`], which differs between kinds of passes.

use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Int, Tensor, assert_shape};
use chameleon_core::fused::{self, CausalAttention, RotaryHalves, ScoreRule};
use chameleon_core::{AttentionContext, ContextAttention, ContextKeys};

use crate::families::indices::index_tensor;
use crate::families::masks::{AttentionMask, Masks};

/// Attention of one kind of pass.
pub(crate) trait Attend {
    /// Names the layer whose attention comes next.
    fn begin_layer(&mut self, _layer_idx: usize) {}

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
        let (key, value) = self.key_value_heads();
        Heads {
            query: self.rotated(self.query.clone()),
            key,
            value,
        }
    }

    /// Keys with their positions, and values, `[batch, kv_heads, seq, head_dim]` each.
    fn key_value_heads(&self) -> (Tensor<4>, Tensor<4>) {
        let value = heads(self.value.clone(), self.head_dim);
        (self.rotated(self.key.clone()), value)
    }

    fn rotated(&self, x: Tensor<3>) -> Tensor<4> {
        let x = heads(x, self.head_dim);
        match self.rotary {
            Some(rotary) => rotary.apply(x),
            None => x,
        }
    }

    fn attend_causally(self) -> Tensor<3> {
        fused::causal_attention(CausalAttention {
            query: self.query,
            key: self.key,
            value: self.value,
            head_dim: self.head_dim,
            rotary: self.rotary.cloned(),
            rule: self.scores,
        })
    }
}

/// `[batch, seq, heads * head_dim]` -> `[batch, heads, seq, head_dim]`
fn heads(projected: Tensor<3>, head_dim: usize) -> Tensor<4> {
    let [batch, seq_len, width] = projected.dims();
    projected
        .reshape([batch, seq_len, width / head_dim, head_dim])
        .swap_dims(1, 2)
}

/// Attention of a pass over whole sequences: each token to itself, to those before it, and to a context.
pub(crate) struct Causal<'a> {
    context: Option<&'a AttentionContext>,
    /// Built when the first layer with a context asks.
    masks: Option<Masks>,
    layer_idx: usize,
}

impl<'a> Causal<'a> {
    /// Attention to the context as well, in the layers that it has.
    pub(crate) fn with_context(context: Option<&'a AttentionContext>) -> Self {
        Self {
            context,
            masks: None,
            layer_idx: 0,
        }
    }
}

impl Attend for Causal<'_> {
    fn begin_layer(&mut self, layer_idx: usize) {
        self.layer_idx = layer_idx;
    }

    fn attend(&mut self, projected: Projected<'_>) -> Tensor<3> {
        let context = self
            .context
            .and_then(|context| context.layer(self.layer_idx));
        let Some(context) = context else {
            return projected.attend_causally();
        };
        let rule = projected.scores;
        let Heads { query, key, value } = projected.into_heads();
        let [_, _, seq_len, _] = query.dims();
        let masks = self
            .masks
            .get_or_insert_with(|| Masks::new(vec![(0..seq_len).collect()], None, &query.device()));
        attend_to_context(ContextAttention {
            hidden: masks.hidden(&rule),
            query,
            key,
            value,
            rule,
            context,
        })
    }
}

/// Causal attention that keeps the keys and values of each layer, as a context for sequences that follow.
pub(crate) struct Recording {
    /// The last position of each sequence, `[batch]`.
    last: Tensor<1, Int>,
    /// The tokens of all sequences without their padding, in the flattened `batch * seq`.
    tokens: Tensor<1, Int>,
    layer_idx: usize,
    layers: Vec<(usize, ContextKeys)>,
}

impl Recording {
    /// Keeps sequences of these lengths, padded on the right to `seq_len`. Keys are moved as if the last token of every
    /// sequence stood where the sequences that follow begin.
    pub(crate) fn of(lens: &[usize], seq_len: usize, device: &Device) -> Self {
        let tokens = lens.iter().enumerate().flat_map(|(row, &len)| {
            let first = row * seq_len;
            first..first + len
        });
        Self {
            last: index_tensor(lens.iter().map(|&len| len - 1), device),
            tokens: index_tensor(tokens, device),
            layer_idx: 0,
            layers: Vec::new(),
        }
    }

    /// The context of the layers that were run.
    pub(crate) fn into_context(self) -> AttentionContext {
        AttentionContext::new(self.layers)
    }

    /// Rotates the keys of each sequence back by its last position.
    fn moved(&self, key: Tensor<4>, rotary: Option<&RotaryHalves>) -> Tensor<4> {
        let Some(rotary) = rotary else { return key };
        let at_last = |angles: &Tensor<4>| {
            let indices = on_device_of(&self.last, angles);
            angles.clone().select(2, indices).swap_dims(0, 2) // [batch, 1, 1, head_dim / 2]
        };
        let back = RotaryHalves {
            cos: at_last(&rotary.cos),
            sin: -at_last(&rotary.sin),
        };
        back.apply(key)
    }

    /// `[batch, kv_heads, seq, head_dim]` -> `[kv_heads, tokens, head_dim]`
    fn kept(&self, x: Tensor<4>) -> Tensor<3> {
        let [batch, num_kv_heads, seq_len, head_dim] = x.dims();
        let tokens = on_device_of(&self.tokens, &x);
        x.swap_dims(0, 1)
            .reshape([num_kv_heads, batch * seq_len, head_dim])
            .select(1, tokens)
    }
}

/// Indices on the autodiff device, if `x` is there.
fn on_device_of(indices: &Tensor<1, Int>, x: &Tensor<4>) -> Tensor<1, Int> {
    if x.device().is_autodiff() {
        indices.clone().autodiff()
    } else {
        indices.clone()
    }
}

impl Attend for Recording {
    fn begin_layer(&mut self, layer_idx: usize) {
        self.layer_idx = layer_idx;
    }

    fn attend(&mut self, projected: Projected<'_>) -> Tensor<3> {
        let (key, value) = projected.key_value_heads();
        let key = self.moved(key, projected.rotary);
        let keys = ContextKeys {
            key_columns: self.kept(key).transpose(),
            value: self.kept(value),
        };
        self.layers.push((self.layer_idx, keys));
        projected.attend_causally()
    }
}

/// Attention to a context and to the own sequence.
///
/// # Shapes
///
/// - output: `[batch, seq, heads * head_dim]`
pub(crate) fn attend_to_context(input: ContextAttention<'_>) -> Tensor<3> {
    let [batch, num_heads, seq_len, head_dim] = input.query.dims();
    input
        .attend()
        .swap_dims(1, 2) // [batch, seq, heads, head_dim]
        .reshape([batch, seq_len, num_heads * head_dim])
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
