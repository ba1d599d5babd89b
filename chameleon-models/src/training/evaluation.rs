//! Scores of a text, with and without an adapter.

use std::path::Path;

use burn::module::Module as _;
use chameleon_cluster::assign;
use chameleon_hypernet::ConditionControl;

use crate::adapter::Adapter;
use crate::adapter::adaptation::AdapterModule;
use crate::adapter::group_memory::{MemorySource, TextsWithStates, with_memory};
use crate::data::{EvalWindow, Example};
use crate::families::causal_lm::CausalLm;
use crate::families::load::LoadedModel;
use crate::training::error::TrainingError;
use crate::training::eval::{ScoreSummary, Scorer, TokenScores, window_nll};
use crate::training::grouped_examples::GroupedExamples;
use crate::training::known_states::{entering_states, final_states};
use crate::training::memory::observe_memories;
use crate::training::observer::{Observer, Work};
use crate::training::states::HiddenStates;

/// Scores windows of one text with the frozen model.
///
/// # Errors
///
/// When the observer interrupts.
///
/// # Panics
///
/// When a window scores its first token, which has no context.
pub fn score_windows(
    model: &impl CausalLm,
    windows: &[EvalWindow<'_>],
    observer: &dyn Observer,
) -> Result<ScoreSummary, TrainingError> {
    let mut progress = observer.begin(Work::items("windows", windows.len()));
    let mut summary = ScoreSummary::default();
    for window in windows {
        if observer.is_interrupted() {
            return Err(TrainingError::Interrupted);
        }
        summary.nll += window_nll(model, window);
        summary.num_tokens += window.num_scored;
        summary.num_examples += 1;
        progress.set_position(summary.num_examples as u64);
        progress.scored(summary.mean_nll());
    }
    Ok(summary)
}

/// Scores of the same examples without and with an adapter.
#[derive(Debug, Clone, Copy)]
pub struct AdapterScores {
    /// Of the frozen model.
    pub base: ScoreSummary,
    /// With the adapter, and its memory if it has one.
    pub adapted: ScoreSummary,
    /// With an adapter that has a memory, but without the memory.
    pub without_memory: Option<ScoreSummary>,
}

/// Scores examples with the frozen model and with an adapter; each is assigned to the nearest trained centroid.
/// `states_folder` holds the hidden states while it runs.
///
/// # Errors
///
/// When hidden states cannot be read or written, or the observer interrupts.
pub fn score_adapter(
    loaded: &LoadedModel,
    adapter: &Adapter,
    examples: Vec<Example>,
    states_folder: &Path,
    observer: &dyn Observer,
) -> Result<AdapterScores, TrainingError> {
    let model = &loaded.model;
    let prompts: Vec<&[u32]> = examples.iter().map(Example::prompt_token_ids).collect();
    let prompt_embeddings = adapter.embed_prompts(model, &prompts);
    let assignments = assign(&prompt_embeddings, &adapter.centroids)?.assignments;
    let data = GroupedExamples::plan(examples, prompt_embeddings, assignments, BATCH_SIZE)?;
    let fingerprint = loaded.states_fingerprint();
    let cache = final_states(model, &fingerprint, &data.examples, states_folder, observer)?;
    let config = &adapter.config;
    let score =
        |module: Option<&AdapterModule>, states| -> Result<Vec<TokenScores>, TrainingError> {
            let scorer = Scorer {
                module,
                hidden_states: states,
                head: model.head(),
                centroids: adapter.centroids.clone(),
                condition: config.condition,
                control: ConditionControl::None.plan(config.num_clusters, config.seed)?,
            };
            Ok(scorer.score_tokens(&data, |_| {}))
        };
    let cached = HiddenStates::Cached(&cache);
    let module = adapter.module.valid();
    let states = match module.layers {
        Some(_) => HiddenStates::Layers(model),
        None => cached,
    };
    let base = ScoreSummary::of_tokens(&score(None, cached)?);
    let scores = score(Some(&module), states)?;
    let adapted = ScoreSummary::of_tokens(&scores);
    let Some(memory) = &adapter.memory else {
        return Ok(AdapterScores {
            base,
            adapted,
            without_memory: None,
        });
    };
    let layer_idx = memory.description.config.layer_idx;
    let examples = &data.examples;
    let entering = entering_states(
        model,
        &fingerprint,
        examples,
        layer_idx,
        states_folder,
        observer,
    )?;
    let gate = &memory.description.gate;
    let observed = observe_memories(
        &memory.memories,
        TextsWithStates {
            data: &data,
            entering: &entering,
        },
        &MemorySource::Group,
        &[gate.temperature],
        observer,
    );
    Ok(AdapterScores {
        base,
        adapted: ScoreSummary::of_tokens(&with_memory(gate, &observed, &data, scores)),
        without_memory: Some(adapted),
    })
}

/// Examples scored together.
const BATCH_SIZE: usize = 16;
