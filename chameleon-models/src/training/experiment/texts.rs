//! The texts of a comparison with what all its methods share: hidden states and memories.

use chameleon_core::RunSeed;
use chameleon_hypernet::Condition;

use crate::training::error::TrainingError;
use crate::training::grouped_examples::GroupedExamples;
use crate::training::hidden_cache::HiddenCache;
use crate::training::known_states::KnownStates;
use crate::training::observer::Observer;
use crate::training::prepare::{Split, TrainingData};

use super::config::ComparisonConfig;
use super::memories::ExperimentMemories;

/// Texts with the hidden states that training does not change.
#[derive(Debug)]
pub struct ComparisonTexts {
    /// The model and the texts.
    pub data: TrainingData,
    pub(super) states: States,
    /// The groups' memories, if a method uses them.
    pub memories: Option<ExperimentMemories>,
}

#[derive(Debug)]
pub(super) struct States {
    pub(super) train: KnownStates,
    pub(super) valid: KnownStates,
    pub(super) test: KnownStates,
    /// The final hidden states, from which the frozen model is scored.
    pub(super) frozen_test: HiddenCache,
}

impl ComparisonTexts {
    /// Computes hidden states and memories, or reads them from disk.
    ///
    /// # Errors
    ///
    /// When they cannot be read or written, or the observer interrupts.
    ///
    /// # Panics
    ///
    /// When `data` has no test texts.
    pub fn prepare(
        data: TrainingData,
        config: &ComparisonConfig,
        seed: RunSeed,
        observer: &dyn Observer,
    ) -> Result<Self, TrainingError> {
        let training = &config.training;
        let test = test_of(&data);
        let cache_dir = &training.cache_dir;
        let frozen_test = data.final_states(test, training.span, cache_dir, observer)?;
        let known = |split| data.known_states(split, training, observer);
        let states = States {
            train: known(&data.train)?,
            valid: known(&data.valid)?,
            test: known(test)?,
            frozen_test,
        };
        let has_memory = config.methods.iter().any(|method| method.memory.is_some());
        let memories = if has_memory {
            let with_prompts = training.adapter.condition == Condition::Batch;
            // The clusters are the same for all seeds of a comparison, and so are their memories.
            let seed = seed.derive("memory");
            Some(ExperimentMemories::prepare(
                &data,
                training,
                with_prompts,
                seed,
                observer,
            )?)
        } else {
            None
        };
        Ok(Self {
            data,
            states,
            memories,
        })
    }

    /// The test texts.
    ///
    /// # Panics
    ///
    /// When there are none.
    pub fn test(&self) -> &Split {
        test_of(&self.data)
    }

    /// The test texts in batches of another size.
    ///
    /// # Errors
    ///
    /// When the size is zero.
    pub fn test_in_batches_of(&self, batch_size: usize) -> Result<Split, TrainingError> {
        let test = self.test().clone();
        let GroupedExamples {
            examples,
            prompt_embeddings,
            assignments,
            ..
        } = test.data;
        Ok(Split {
            data: GroupedExamples::plan(examples, prompt_embeddings, assignments, batch_size)?,
            ..test
        })
    }
}

fn test_of(data: &TrainingData) -> &Split {
    let test = data.test.as_ref();
    test.expect("a comparison is prepared with test texts")
}
