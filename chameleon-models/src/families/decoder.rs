//! The stack of layers that every family has: one loop, whatever a layer is made of.
//!
//! A family says how tokens enter, what one layer does and how states leave ([`Decoder`]); where a pass begins and
//! ends, masks, caches and the factors of adapted modules are handled here.

use std::collections::BTreeMap;

use burn::nn::Linear;
use burn::tensor::{Int, Tensor};
use chameleon_core::fused::{self, CausalAttention, LinearInput, RotaryHalves};
use chameleon_hypernet::LayerFactors;

use crate::families::attention::{AttentionInput, AttentionMask, attend};
use crate::families::causal_lm::{CachedStates, PassEnd, PassInput, SequencePass};
use crate::families::kv_cache::{KvCache, LayerPass, Segment};
use crate::families::packed::{PackedMatrix, PackedWeights};

/// What a family implements.
pub(crate) trait Decoder {
    /// What its layers need to know about the positions of a pass; made once and shared by all of them.
    type Positions;

    fn num_layers(&self) -> usize;

    /// `positions` are `[batch or 1, seq]`, row by row.
    fn positions(&self, positions: &[Vec<usize>]) -> Self::Positions;

    /// The states that enter the first layer: `[batch, seq]` -> `[batch, seq, hidden]`.
    fn enter(&self, token_ids: Tensor<2, Int>, positions: &[Vec<usize>]) -> Tensor<3>;

    /// One layer: `[batch, seq, hidden]` -> `[batch, seq, hidden]`.
    fn layer(
        &self,
        states: Tensor<3>,
        context: &LayerContext<'_, Self::Positions>,
        attention: Attention<'_, '_>,
    ) -> Tensor<3>;

    /// Its packed weights, for families that know any.
    fn packed(&self) -> Option<&PackedWeights> {
        None
    }

    /// The norm before the head.
    fn final_norm(&self, states: Tensor<3>) -> Tensor<3>;
}

/// What one layer of a pass is given besides the states and what it looks at.
pub(crate) struct LayerContext<'a, P> {
    pub(crate) layer_idx: usize,
    pub(crate) positions: &'a P,
    pub(crate) factors: &'a LayerFactors,
    /// Modules that are multiplied as they are packed.
    pub(crate) packed: Option<&'a PackedWeights>,
}

/// What the queries of a layer look at.
pub(crate) enum Attention<'p, 'a> {
    /// The tokens of this pass.
    Pass(&'p AttentionMask),
    /// Those and the ones before, which are in a cache.
    Cached(LayerPass<'p, 'a>),
}

impl<P> LayerContext<'_, P> {
    /// A linear module of the layer with what its factors add.
    pub(crate) fn linear(&self, path: &str, linear: &Linear, x: &Tensor<3>) -> Tensor<3> {
        let changes = self.factors.changes(self.layer_idx, path);
        let packed = self
            .packed
            .and_then(|packed| packed.module(self.layer_idx, path));
        if let Some(packed) = packed {
            let frozen = forward_packed(packed, linear, x);
            return changes
                .iter()
                .fold(frozen, |output, change| output + change.apply(x.clone()));
        }
        let others = changes.get(1..).unwrap_or_default();
        let output = fused::linear(LinearInput {
            x: x.clone(),
            weight: linear.weight.val(),
            bias: linear.bias.as_ref().map(burn::module::Param::val),
            change: changes.first().cloned(),
        });
        others
            .iter()
            .fold(output, |output, change| output + change.apply(x.clone()))
    }
}

/// `[batch, seq, in]` -> `[batch, seq, out]`
fn forward_packed(packed: &PackedMatrix, linear: &Linear, x: &Tensor<3>) -> Tensor<3> {
    let [batch, seq_len, in_size] = x.dims();
    let output = packed.forward(x.clone().reshape([batch * seq_len, in_size])); // [batch * seq, out]
    let [_, out_size] = output.dims();
    let output = output.reshape([batch, seq_len, out_size]);
    match &linear.bias {
        Some(bias) => output + bias.val().unsqueeze(),
        None => output,
    }
}

/// Query, key and value of a layer as its projections leave them.
pub(crate) struct Projected<'a> {
    /// `[batch, seq, heads * head_dim]`
    pub(crate) query: Tensor<3>,
    /// `[batch, seq, kv_heads * head_dim]`
    pub(crate) key: Tensor<3>,
    /// `[batch, seq, kv_heads * head_dim]`
    pub(crate) value: Tensor<3>,
    pub(crate) head_dim: usize,
    /// The rotary embedding of queries and keys, if the model has one.
    pub(crate) rotary: Option<&'a RotaryHalves>,
}

impl Attention<'_, '_> {
    /// # Shapes
    ///
    /// - output: `[batch, seq, heads * head_dim]`
    pub(crate) fn attend(self, projected: Projected<'_>) -> Tensor<3> {
        let Projected {
            query,
            key,
            value,
            head_dim,
            rotary,
        } = projected;
        if let Self::Pass(AttentionMask::Causal) = self {
            return fused::causal_attention(CausalAttention {
                query,
                key,
                value,
                head_dim,
                rotary: rotary.cloned(),
            });
        }
        let rotated = |x| match rotary {
            Some(rotary) => rotary.apply(heads(x, head_dim)),
            None => heads(x, head_dim),
        };
        let (query, key, value) = (rotated(query), rotated(key), heads(value, head_dim));
        match self {
            Self::Pass(mask) => attend(AttentionInput {
                query,
                key,
                value,
                mask,
            }),
            Self::Cached(pass) => pass.attend(&query, &key, &value),
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

/// A pass over whole sequences.
pub(crate) fn forward<D: Decoder>(decoder: &D, pass: SequencePass<'_>) -> Tensor<3> {
    let [_, seq_len] = match &pass.input {
        PassInput::TokenIds(token_ids) => token_ids.dims(),
        PassInput::Entering { states, .. } => {
            let [batch, seq_len, _] = states.dims();
            [batch, seq_len]
        }
    };
    let rows = [(0..seq_len).collect()];
    let positions = decoder.positions(&rows);
    let mask = match pass.unseen {
        Some(unseen) => AttentionMask::causal_without(unseen),
        None => AttentionMask::Causal,
    };
    let (mut states, first_layer) = match pass.input {
        PassInput::TokenIds(token_ids) => (decoder.enter(token_ids, &rows), 0),
        PassInput::Entering { layer_idx, states } => (states, layer_idx),
    };
    let end = match pass.end {
        PassEnd::Head => decoder.num_layers(),
        PassEnd::Entering(layer_idx) => layer_idx,
    };
    for layer_idx in first_layer..end {
        let context = LayerContext {
            layer_idx,
            positions: &positions,
            factors: pass.factors,
            packed: decoder.packed(),
        };
        states = decoder.layer(states, &context, Attention::Pass(&mask));
    }
    match pass.end {
        PassEnd::Head => decoder.final_norm(states),
        PassEnd::Entering(_) => states,
    }
}

/// A pass over tokens that continue rows of a cache; hands out the states that enter the tapped layers as well.
///
/// The whole pass runs on one of the threads that share its products. Asked from outside, each of the hundreds of
/// products of a pass would put the asking thread to sleep and wake it again, which takes as long as a small product.
pub(crate) fn forward_with_cache<D: Decoder + Sync>(
    decoder: &D,
    segments: &[Segment<'_>],
    cache: &mut KvCache,
    tapped_layers: &[usize],
) -> CachedStates {
    rayon::scope(|_| pass_with_cache(decoder, segments, cache, tapped_layers))
}

fn pass_with_cache<D: Decoder>(
    decoder: &D,
    segments: &[Segment<'_>],
    cache: &mut KvCache,
    tapped_layers: &[usize],
) -> CachedStates {
    let mut pass = cache.begin(segments);
    let factors = pass.factors();
    let positions = decoder.positions(pass.positions());
    let mut states = decoder.enter(pass.token_ids(), pass.positions());
    let mut entering = BTreeMap::new();
    for layer_idx in 0..decoder.num_layers() {
        if tapped_layers.contains(&layer_idx) {
            entering.insert(layer_idx, pass.asked(states.clone()));
        }
        let context = LayerContext {
            layer_idx,
            positions: &positions,
            factors: &factors,
            packed: decoder.packed(),
        };
        let attention = Attention::Cached(pass.layer(layer_idx));
        states = decoder.layer(states, &context, attention);
    }
    CachedStates {
        hidden: pass.asked(decoder.final_norm(states)),
        entering,
    }
}
