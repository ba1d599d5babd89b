//! A data set ready for training or scoring: examples, their prompt embeddings and clusters, and
//! the final hidden states of the positions that predict scored tokens.

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use chameleon_cluster::BatchPlan;
use chameleon_core::TokenBatch;
use chameleon_hypernet::LayerFactors;

use crate::adapter::prompts::embed_prompts;
use crate::data::Example;
use crate::families::causal_lm::{CausalLm, PassEnd, PassInput, SequencePass};
use crate::families::indices::index_tensor;
use crate::files::fingerprint::Fingerprint;
use crate::training::hidden_cache::{CacheSpec, HiddenCache, HiddenCacheError, RowType};

/// A grouped data set.
#[derive(Debug, Clone)]
pub struct GroupedExamples {
    /// The examples.
    pub examples: Vec<Example>,
    /// `[examples, hidden]`, of the prompts.
    pub prompt_embeddings: Tensor<2>,
    /// Nearest trained cluster of each example.
    pub assignments: Vec<usize>,
    /// Which examples are processed together.
    pub plan: BatchPlan,
}

/// Embeds the prompts of examples.
///
/// # Shapes
///
/// - output: `[examples, hidden]`
pub fn embed_examples(model: &impl CausalLm, examples: &[Example]) -> Tensor<2> {
    let prompts: Vec<&[u32]> = examples.iter().map(Example::prompt_token_ids).collect();
    embed_prompts(model, &prompts)
}

/// The scored tokens of some examples, one after the other.
///
/// # Shapes
///
/// - output: `[rows]`
pub(crate) fn scored_targets(examples: &[&Example], device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i64> = examples
        .iter()
        .flat_map(|example| example.sequence.scored())
        .map(|&id| i64::from(id))
        .collect();
    let num_rows = ids.len();
    Tensor::from_data(TensorData::new(ids, [num_rows]), device)
}

/// A sequence and the positions whose final hidden states are requested.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct StateRequest<'a> {
    /// The tokens, at least one.
    pub token_ids: &'a [u32],
    /// Positions among them, in the order of the returned states.
    pub positions: Vec<usize>,
}

impl<'a> From<&'a Example> for StateRequest<'a> {
    /// The states that predict the scored tokens.
    fn from(example: &'a Example) -> Self {
        Self {
            token_ids: example.sequence.token_ids(),
            positions: example.sequence.predicting_positions().collect(),
        }
    }
}

/// A forward pass over some sequences.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StatePass<'a> {
    /// The layer at which it ends.
    pub end: PassEnd,
    /// The factors of adapted modules.
    pub factors: &'a LayerFactors,
}

/// Runs the model over some sequences and returns the requested states, one sequence after the other.
///
/// # Shapes
///
/// - output: `[rows, hidden]`
///
/// # Panics
///
/// When there is no sequence, or a position is past the longest one.
pub(crate) fn requested_hidden_states(
    model: &impl CausalLm,
    requests: &[StateRequest<'_>],
    pass: StatePass<'_>,
) -> Tensor<2> {
    let rows: Vec<&[u32]> = requests.iter().map(|request| request.token_ids).collect();
    let device = model.head_weight().device();
    // Attention is causal and padding is on the right, so no real position sees it.
    let batch = TokenBatch::from_rows(&rows, 0, &device);
    let states = model.forward(SequencePass {
        input: PassInput::TokenIds(batch.token_ids),
        end: pass.end,
        factors: pass.factors,
    });
    let positions = requests
        .iter()
        .map(|request| request.positions.iter().copied());
    select_positions(states, positions)
}

/// Some positions of each row, one row after the other.
///
/// # Shapes
///
/// - `states`: `[batch, seq, hidden]`
/// - output: `[rows, hidden]`
pub(crate) fn select_positions<P: IntoIterator<Item = usize>>(
    states: Tensor<3>,
    positions: impl Iterator<Item = P>,
) -> Tensor<2> {
    let [batch_size, seq_len, hidden_size] = states.dims();
    let flat = positions.enumerate().flat_map(|(row, positions)| {
        positions
            .into_iter()
            .map(move |position| row * seq_len + position)
    });
    let indices = index_tensor(flat, &states.device());
    states
        .reshape([batch_size * seq_len, hidden_size])
        .select(0, indices)
}

/// Computes the states of all tokens that enter a layer once, or reads them from `folder`; a step then runs only the
/// layers from there on. Returns `None` as [`cache_hidden_states`] does.
///
/// # Errors
///
/// When the cache cannot be written, or a state is not finite.
pub fn cache_entering_states(
    model: &impl CausalLm,
    model_fingerprint: &str,
    examples: &[Example],
    layer_idx: usize,
    folder: &Path,
    observe: impl FnMut(CacheProgress) -> Proceed,
) -> Result<Option<HiddenCache>, HiddenCacheError> {
    let requests: Vec<StateRequest<'_>> = examples
        .iter()
        .map(|example| StateRequest {
            token_ids: example.sequence.token_ids(),
            positions: (0..example.sequence.len()).collect(),
        })
        .collect();
    let wanted = WantedStates {
        fingerprint: entering_fingerprint(model_fingerprint, examples, layer_idx),
        requests: &requests,
        hidden_size: model.sizes().hidden_size,
        row_type: RowType::F16,
    };
    let end = PassEnd::Entering(layer_idx);
    cache_requested_states(wanted, frozen_states(model, end), folder, observe)
}

/// The fingerprint of states that enter a layer: of the model's weights, the layer and every token.
pub(crate) fn entering_fingerprint(
    model_fingerprint: &str,
    examples: &[Example],
    layer_idx: usize,
) -> Fingerprint {
    Fingerprint::builder()
        .part("model", model_fingerprint.as_bytes())
        .part("entering layer", &(layer_idx as u64).to_le_bytes())
        .whole_sequences(examples.iter().map(|example| &example.sequence))
        .finish()
}

/// Progress of a forward pass over the frozen layers.
#[derive(Debug, Clone, Copy)]
pub struct CacheProgress {
    /// Examples whose states are computed or were cached.
    pub num_done: usize,
    /// All examples.
    pub num_examples: usize,
}

/// Whether to continue after a progress report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proceed {
    /// Continue.
    Continue,
    /// Stop; the chunks that are written are kept.
    Stop,
}

/// Computes the scored hidden states of all examples once, or reads them from `folder`.
///
/// Returns `None` when `observe` returned [`Proceed::Stop`]; written chunks are kept, and the next call continues after
/// them.
///
/// # Errors
///
/// When the cache cannot be written, or a state is not finite.
pub fn cache_hidden_states(
    model: &impl CausalLm,
    model_fingerprint: &str,
    examples: &[Example],
    folder: &Path,
    observe: impl FnMut(CacheProgress) -> Proceed,
) -> Result<Option<HiddenCache>, HiddenCacheError> {
    let requests: Vec<StateRequest<'_>> = examples.iter().map(StateRequest::from).collect();
    let wanted = WantedStates {
        fingerprint: states_fingerprint(model_fingerprint, examples),
        requests: &requests,
        hidden_size: model.sizes().hidden_size,
        row_type: RowType::F16,
    };
    cache_requested_states(wanted, frozen_states(model, PassEnd::Head), folder, observe)
}

/// States of the frozen model.
fn frozen_states(model: &impl CausalLm, end: PassEnd) -> impl Fn(&[StateRequest<'_>]) -> Tensor<2> {
    move |requests| {
        let factors = &LayerFactors::none();
        requested_hidden_states(model, requests, StatePass { end, factors })
    }
}

/// The contents of a cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WantedStates<'a> {
    /// The fingerprint of their inputs.
    pub(crate) fingerprint: Fingerprint,
    /// Sequences and positions.
    pub(crate) requests: &'a [StateRequest<'a>],
    /// Width of a state.
    pub(crate) hidden_size: usize,
    /// The stored type of a value.
    pub(crate) row_type: RowType,
}

/// Like [`cache_hidden_states`], for any positions of any sequences. `states_of` computes the states of some of them,
/// `[rows, hidden]`.
///
/// # Errors
///
/// When the cache cannot be written, or a state is not finite.
pub(crate) fn cache_requested_states(
    wanted: WantedStates<'_>,
    states_of: impl Fn(&[StateRequest<'_>]) -> Tensor<2>,
    folder: &Path,
    mut observe: impl FnMut(CacheProgress) -> Proceed,
) -> Result<Option<HiddenCache>, HiddenCacheError> {
    let requests = wanted.requests;
    let spec = CacheSpec {
        fingerprint: wanted.fingerprint,
        hidden_size: wanted.hidden_size,
        row_type: wanted.row_type,
        rows_per_example: requests
            .iter()
            .map(|request| request.positions.len())
            .collect(),
    };
    HiddenCache::open_or_fill(folder, &spec, |examples, num_done| {
        let progress = CacheProgress {
            num_done,
            num_examples: requests.len(),
        };
        match observe(progress) {
            Proceed::Continue => Some(states_of(&requests[examples])),
            Proceed::Stop => None,
        }
    })
}

/// The fingerprint of cached states: of the model's weights and every token.
pub(crate) fn states_fingerprint(model_fingerprint: &str, examples: &[Example]) -> Fingerprint {
    Fingerprint::builder()
        .part("model", model_fingerprint.as_bytes())
        .sequences(examples.iter().map(|example| &example.sequence))
        .finish()
}
