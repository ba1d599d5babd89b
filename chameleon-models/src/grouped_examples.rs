//! A data set ready for training or scoring: examples, their prompt embeddings and clusters, and
//! the final hidden states of the positions that predict scored tokens.

use burn::tensor::{Device, Int, Tensor, TensorData};
use chameleon_core::{BatchPlan, TokenBatch};

use crate::causal_lm::CausalLm;
use crate::data::Example;
use crate::hidden_cache::{
    CacheSpec, Fingerprint, HiddenCache, HiddenCacheError, OpenedCache, RowType,
};
use crate::prompts::embed_prompts;

/// A grouped data set.
#[derive(Debug, Clone)]
pub struct GroupedExamples {
    /// The examples.
    pub examples: Vec<Example>,
    /// `[examples, hidden]`, of the conditioning spans.
    pub prompt_embeddings: Tensor<2>,
    /// Nearest trained cluster of each example.
    pub assignments: Vec<usize>,
    /// Which examples are processed together.
    pub plan: BatchPlan,
}

/// Embeds the conditioning spans of examples.
///
/// # Shapes
///
/// - output: `[examples, hidden]`
pub fn embed_examples(model: &impl CausalLm, examples: &[Example]) -> Tensor<2> {
    let prompts: Vec<&[u32]> = examples
        .iter()
        .map(|example| example.sequence.conditioning())
        .collect();
    embed_prompts(model, &prompts)
}

/// The scored tokens of some examples, one after the other.
///
/// # Shapes
///
/// - output: `[rows]`
pub fn scored_targets(examples: &[&Example], device: &Device) -> Tensor<1, Int> {
    let ids: Vec<i64> = examples
        .iter()
        .flat_map(|example| example.sequence.scored())
        .map(|&id| i64::from(id))
        .collect();
    let num_rows = ids.len();
    Tensor::from_data(TensorData::new(ids, [num_rows]), device)
}

/// Runs the trunk over some examples and keeps the states that predict a scored token, in the order
/// of [`scored_targets`].
///
/// # Shapes
///
/// - output: `[rows, hidden]`
pub fn scored_hidden_states(model: &impl CausalLm, examples: &[&Example]) -> Tensor<2> {
    let rows: Vec<&[u32]> = examples
        .iter()
        .map(|example| example.sequence.token_ids())
        .collect();
    let device = model.head_weight().device();
    // Attention is causal and padding is on the right, so no real position sees it.
    let batch = TokenBatch::from_rows(&rows, 0, &device);
    let hidden = model.hidden_states(batch.token_ids); // [batch, seq, hidden]
    let [batch_size, seq_len, hidden_size] = hidden.dims();
    let positions: Vec<i64> = examples
        .iter()
        .enumerate()
        .flat_map(|(row, example)| {
            let start = row * seq_len;
            example
                .sequence
                .predicting_positions()
                .map(move |position| (start + position) as i64)
        })
        .collect();
    let num_rows = positions.len();
    let positions = Tensor::from_data(TensorData::new(positions, [num_rows]), &device);
    hidden
        .reshape([batch_size * seq_len, hidden_size])
        .select(0, positions)
}

/// How far a pass over the trunk has come.
#[derive(Debug, Clone, Copy)]
pub struct CacheProgress {
    /// Examples whose states are kept.
    pub num_done: usize,
    /// All examples.
    pub num_examples: usize,
}

/// Whether to go on after a report of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proceed {
    /// Go on.
    Continue,
    /// Stop; what is done is kept.
    Stop,
}

/// Computes the scored hidden states of all examples once, or finds them on disk.
///
/// Returns `None` when `observe` asked to stop; the part that is done is kept and continued by the
/// next call.
///
/// # Errors
///
/// When the cache cannot be read or written.
pub fn cache_hidden_states(
    model: &impl CausalLm,
    model_fingerprint: &str,
    examples: &[Example],
    path: &std::path::Path,
    mut observe: impl FnMut(CacheProgress) -> Proceed,
) -> Result<Option<HiddenCache>, HiddenCacheError> {
    let spec = CacheSpec {
        fingerprint: states_fingerprint(model_fingerprint, examples),
        hidden_size: model.sizes().hidden_size,
        dtype: RowType::F16,
        rows_per_example: examples
            .iter()
            .map(|example| example.sequence.scored().len())
            .collect(),
    };
    let mut writer = match HiddenCache::open_or_create(path, &spec)? {
        OpenedCache::Ready(cache) => return Ok(Some(cache)),
        OpenedCache::Fill(writer) => writer,
    };
    while writer.num_written() < examples.len() {
        let progress = CacheProgress {
            num_done: writer.num_written(),
            num_examples: examples.len(),
        };
        if observe(progress) == Proceed::Stop {
            writer.flush()?;
            return Ok(None);
        }
        let end = (writer.num_written() + CHUNK_EXAMPLES).min(examples.len());
        let chunk: Vec<&Example> = examples[writer.num_written()..end].iter().collect();
        let mut states = scored_hidden_states(model, &chunk);
        for example in chunk {
            let num_rows = example.sequence.scored().len();
            let rest = states.dims()[0];
            writer.append(states.clone().slice([0..num_rows]))?;
            if num_rows < rest {
                states = states.slice([num_rows..rest]);
            }
        }
    }
    writer.finish().map(Some)
}

/// Examples that go through the trunk together: the fastest of 4, 8 and 16 on two cores.
const CHUNK_EXAMPLES: usize = 8;

/// What the cached states depend on: the model's weights and every token.
pub fn states_fingerprint(model_fingerprint: &str, examples: &[Example]) -> Fingerprint {
    Fingerprint::builder()
        .part("model", model_fingerprint.as_bytes())
        .sequences(examples.iter().map(|example| &example.sequence))
        .finish()
}
