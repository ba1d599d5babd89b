//! The stack of layers that every family has: one loop for all kinds of layers.
//!
//! A family defines how tokens enter, what one layer does and how states leave ([`Decoder`]). Where a pass begins and
//! ends, attention, caches and the factors of adapted modules are handled here.

use std::collections::BTreeMap;

use burn::nn::Linear;
use burn::tensor::{Int, Tensor};
use chameleon_core::fused::{self, LinearInput};
use chameleon_core::{FrozenWeight, LowRankChange, ModuleChange};
use chameleon_hypernet::LayerFactors;

use crate::families::attention::{Attend, Causal};
use crate::families::causal_lm::{CachedStates, PassEnd, PassInput, SequencePass};
use crate::families::kv_cache::{KvCache, Segment};
use crate::families::stored_weights::StoredWeights;

/// The interface of a family.
pub(crate) trait Decoder {
    /// Data of the positions of a pass for the layers; computed once and shared by all of them.
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
        attention: &mut dyn Attend,
    ) -> Tensor<3>;

    /// Its weights that stay as they are stored.
    fn stored(&self) -> &StoredWeights;

    /// The norm before the head.
    fn final_norm(&self, states: Tensor<3>) -> Tensor<3>;
}

/// The inputs of one layer of a pass, except the states and attention.
pub(crate) struct LayerContext<'a, P> {
    pub(crate) layer_idx: usize,
    pub(crate) positions: &'a P,
    pub(crate) factors: &'a LayerFactors,
    /// Weights that stay as they are stored.
    pub(crate) stored: &'a StoredWeights,
}

impl<P> LayerContext<'_, P> {
    /// A linear module of the layer with the change by its factors.
    pub(crate) fn linear(&self, path: &str, linear: &Linear, x: &Tensor<3>) -> Tensor<3> {
        let changes = self.factors.changes(self.layer_idx, path);
        let (first, others) = match changes {
            [ModuleChange::LowRank(first), others @ ..] => {
                (Some(LowRankChange::clone(first)), others)
            }
            others => (None, others),
        };
        let weight = match self.stored.module(self.layer_idx, path) {
            Some(matrix) => FrozenWeight::Stored {
                matrix: matrix.clone(),
                device: x.device(),
            },
            None => linear.weight.val().into(),
        };
        let output = fused::linear(LinearInput {
            x: x.clone(),
            weight,
            bias: linear.bias.as_ref().map(burn::module::Param::val),
            change: first,
        });
        others
            .iter()
            .fold(output, |output, change| change.add_to(output, x.clone()))
    }
}

/// A pass over whole sequences.
pub(crate) fn forward<D: Decoder>(decoder: &D, pass: SequencePass<'_>) -> Tensor<3> {
    forward_with(decoder, pass, &mut Causal)
}

/// A pass over whole sequences with another attention.
pub(crate) fn forward_with<D: Decoder>(
    decoder: &D,
    pass: SequencePass<'_>,
    attention: &mut dyn Attend,
) -> Tensor<3> {
    let [_, seq_len] = match &pass.input {
        PassInput::TokenIds(token_ids) => token_ids.dims(),
        PassInput::Entering { states, .. } => {
            let [batch, seq_len, _] = states.dims();
            [batch, seq_len]
        }
    };
    let rows = [(0..seq_len).collect()];
    let positions = decoder.positions(&rows);
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
            stored: decoder.stored(),
        };
        states = decoder.layer(states, &context, attention);
    }
    match pass.end {
        PassEnd::Head => decoder.final_norm(states),
        PassEnd::Entering(_) => states,
    }
}

/// A pass over tokens that continue rows of a cache; returns the states that enter the tapped layers as well.
///
/// The whole pass runs on a thread of the pool that computes its products. Called from another thread, each of the
/// hundreds of products of a pass would put that thread to sleep and wake it, which takes as long as a small product.
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
            stored: decoder.stored(),
        };
        states = decoder.layer(states, &context, &mut pass.layer(layer_idx));
    }
    CachedStates {
        hidden: pass.asked(decoder.final_norm(states)),
        entering,
    }
}
