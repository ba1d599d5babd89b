//! The source of the hidden states before the head: a cache, or the layers with their adaptation.

use burn::tensor::{Device, Tensor};
use chameleon_core::TokenBatch;
use chameleon_hypernet::LayerFactors;

use crate::data::Example;
use crate::families::causal_lm::{CausalLm, PassEnd, PassInput, SequencePass};
use crate::families::indices::index_tensor;
use crate::families::language_model::LanguageModel;
use crate::training::grouped_examples::select_positions;
use crate::training::hidden_cache::HiddenCache;

/// The source of the hidden states of a batch.
#[derive(Debug, Clone, Copy)]
pub enum HiddenStates<'a> {
    /// From the cache: only the head is adapted.
    Cached(&'a HiddenCache),
    /// All layers are run. The model is frozen and off the autodiff device.
    Layers(&'a LanguageModel),
    /// The layers are run from the lowest adapted one on.
    UpperLayers {
        /// The model, frozen and off the autodiff device.
        model: &'a LanguageModel,
        /// The states of all tokens that enter the layer.
        entering: &'a HiddenCache,
        /// The lowest layer that is run.
        first_layer: usize,
    },
}

impl HiddenStates<'_> {
    /// The states that predict a scored token, one example after the other.
    ///
    /// # Shapes
    ///
    /// - output: `[rows, hidden]`
    ///
    /// # Panics
    ///
    /// When `factors` change a layer that is not run.
    pub(crate) fn of_batch(
        &self,
        rows: &[usize],
        examples: &[&Example],
        factors: &LayerFactors,
        device: &Device,
    ) -> Tensor<2> {
        let input = match *self {
            HiddenStates::Cached(cache) => {
                assert!(
                    factors.first_layer().is_none(),
                    "cached states are of layers without adaptation"
                );
                return cache.gather(rows, device);
            }
            HiddenStates::Layers(_) => {
                let rows: Vec<&[u32]> = examples
                    .iter()
                    .map(|example| example.sequence.token_ids())
                    .collect();
                // Attention is causal and padding is on the right, so no real position sees it.
                PassInput::TokenIds(TokenBatch::from_rows(&rows, 0, device).token_ids)
            }
            HiddenStates::UpperLayers {
                entering,
                first_layer,
                ..
            } => {
                assert!(
                    factors
                        .first_layer()
                        .is_none_or(|layer_idx| layer_idx >= first_layer),
                    "a layer below {first_layer} is adapted, and not run"
                );
                PassInput::Entering {
                    layer_idx: first_layer,
                    states: padded(entering.gather(rows, device), examples),
                }
            }
        };
        let (HiddenStates::Layers(model) | HiddenStates::UpperLayers { model, .. }) = *self else {
            unreachable!("cached states were answered above");
        };
        let states = model.forward(SequencePass {
            input,
            end: PassEnd::Head,
            factors,
        });
        let positions = examples
            .iter()
            .map(|example| example.sequence.predicting_positions());
        select_positions(states, positions)
    }
}

/// States of all tokens of some examples, padded on the right with arbitrary values.
///
/// # Shapes
///
/// - `states`: `[tokens, hidden]`, one example after the other
/// - output: `[batch, seq, hidden]`
pub(super) fn padded(states: Tensor<2>, examples: &[&Example]) -> Tensor<3> {
    let [num_tokens, hidden_size] = states.dims();
    let lens: Vec<usize> = examples
        .iter()
        .map(|example| example.sequence.len())
        .collect();
    let seq_len = lens.iter().max().copied().unwrap_or(0);
    let shape = [lens.len(), seq_len, hidden_size];
    if num_tokens == lens.len() * seq_len {
        return states.reshape(shape);
    }
    let mut start = 0;
    let mut indices = Vec::with_capacity(lens.len() * seq_len);
    for len in lens {
        indices.extend((0..seq_len).map(|position| start + position.min(len - 1)));
        start += len;
    }
    let indices = index_tensor(indices, &states.device());
    states.select(0, indices).reshape(shape)
}
