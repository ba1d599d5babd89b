//! The memory of an adapter: built from the training texts, with a gate fitted to the validation texts.

use std::path::Path;

use chameleon_core::RunSeed;

use crate::adapter::AdapterMemory;
use crate::adapter::group_memory::{
    GroupMemories, MemoryConfig, MemorySource, Observed, TEMPERATURES, TextsWithStates, fit_gate,
    with_memory,
};
use crate::training::error::TrainingError;
use crate::training::eval::{ScoreSummary, TokenScores};
use crate::training::observer::{Observer, Work};
use crate::training::prepare::TrainingData;

/// A memory and its scores on the validation texts.
#[derive(Debug)]
pub struct FittedMemory {
    /// The memory with its gate.
    pub memory: AdapterMemory,
    /// Scores with it.
    pub valid: ScoreSummary,
}

impl TrainingData {
    /// Builds the memory of an adapter whose scores on the validation texts are known.
    ///
    /// # Errors
    ///
    /// When hidden states cannot be read or written, a group has no text, or the observer interrupts.
    pub fn fit_memory(
        &self,
        config: MemoryConfig,
        scores: Vec<TokenScores>,
        cache_dir: &Path,
        seed: RunSeed,
        observer: &dyn Observer,
    ) -> Result<FittedMemory, TrainingError> {
        let states = |split| self.entering_states(split, config.layer_idx, cache_dir, observer);
        let (train, valid) = (states(&self.train)?, states(&self.valid)?);
        let texts = TextsWithStates {
            data: &self.train.data,
            entering: &train,
        };
        let [num_groups, _] = self.centroids.dims();
        let memories = GroupMemories::of(&config, num_groups, texts, seed, &self.device())?;
        let data = &self.valid.data;
        let texts = TextsWithStates {
            data,
            entering: &valid,
        };
        let source = MemorySource::Group;
        let observed = observe_memories(&memories, texts, &source, &TEMPERATURES, observer);
        let gate = fit_gate(&observed, data, &scores, num_groups);
        let valid = ScoreSummary::of_tokens(&with_memory(&gate, &observed, data, scores));
        Ok(FittedMemory {
            memory: AdapterMemory::new(config, gate, memories),
            valid,
        })
    }
}

/// The probabilities that memories give for some texts.
pub(crate) fn observe_memories(
    memories: &GroupMemories,
    texts: TextsWithStates<'_>,
    source: &MemorySource<'_>,
    temperatures: &[f64],
    observer: &dyn Observer,
) -> Vec<Observed> {
    let mut progress = observer.begin(Work::items("memories", texts.data.examples.len()));
    let device = memories.projection.map.val().device();
    memories.observe(texts, source, temperatures, &device, |num_done| {
        progress.set_position(num_done as u64);
    })
}
