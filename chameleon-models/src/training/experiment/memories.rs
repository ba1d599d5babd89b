//! The memories of the groups and their probabilities for validation and test texts, computed once for all methods and
//! seeds.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use chameleon_core::RunSeed;
use chameleon_hypernet::memory::MemoryGate;
use serde::Serialize;

use crate::adapter::group_memory::{
    GroupMemories, MemoryConfig, MemorySource, Observed, TEMPERATURES, TextsWithStates, fit_gate,
    with_memory,
};
use crate::families::causal_lm::CausalLm;
use crate::training::config::TrainingConfig;
use crate::training::error::TrainingError;
use crate::training::eval::TokenScores;
use crate::training::hidden_cache::HiddenCache;
use crate::training::memory::observe_memories;
use crate::training::method::MemoryControl;
use crate::training::observer::Observer;
use crate::training::prepare::{Split, TrainingData};

/// The memories of an experiment.
#[derive(Debug)]
pub struct ExperimentMemories {
    /// How they are built.
    pub config: MemoryConfig,
    memories: GroupMemories,
    /// Whether the memory of a text includes the other prompts of its batch.
    with_prompts: bool,
    seed: RunSeed,
    train: HiddenCache,
    valid: HiddenCache,
    test: HiddenCache,
    observed: RefCell<BTreeMap<ObservedKey, Rc<ObservedSplits>>>,
}

/// Size and settings of the memories, for a report.
#[derive(Debug, Clone, Serialize)]
pub struct MemoryFacts {
    /// How they are built.
    #[serde(flatten)]
    pub config: MemoryConfig,
    /// Entries of all groups together.
    pub num_entries: usize,
    /// Size of keys and tokens in a file.
    pub bytes: usize,
    /// Whether the memory of a text includes the other prompts of its batch.
    pub with_prompts: bool,
}

/// Which memory a text receives, and the number of test texts in a batch.
type ObservedKey = (MemoryControl, Option<usize>);

#[derive(Debug)]
struct ObservedSplits {
    valid: Vec<Observed>,
    test: Vec<Observed>,
}

/// The texts whose scores a memory changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScoredTexts<'a> {
    pub(super) data: &'a TrainingData,
    pub(super) test: &'a Split,
    /// Texts of the test that share a condition, where that is not the batch size.
    pub(super) group_size: Option<usize>,
}

/// The scores of an adapter without memory.
#[derive(Debug)]
pub(super) struct SplitScores {
    pub(super) valid: Vec<TokenScores>,
    pub(super) test: Vec<TokenScores>,
}

impl ExperimentMemories {
    /// Reads or computes the states of all texts and builds the memories.
    ///
    /// # Errors
    ///
    /// When states cannot be read or written, a group has no text, or the observer interrupts.
    pub(super) fn prepare(
        data: &TrainingData,
        training: &TrainingConfig,
        with_prompts: bool,
        seed: RunSeed,
        observer: &dyn Observer,
    ) -> Result<Self, TrainingError> {
        let config = training.memory.config(data.model().sizes())?;
        let states = |split: &Split| {
            data.entering_states(split, config.layer_idx, &training.cache_dir, observer)
        };
        let (train, valid) = (states(&data.train)?, states(&data.valid)?);
        let test = data.test.as_ref();
        let test = states(test.expect("an experiment has test texts"))?;
        let texts = TextsWithStates {
            data: &data.train.data,
            entering: &train,
        };
        let num_groups = training.num_clusters;
        let memories = GroupMemories::of(&config, num_groups, texts, seed, &data.device())?;
        Ok(Self {
            config,
            memories,
            with_prompts,
            seed,
            train,
            valid,
            test,
            observed: RefCell::default(),
        })
    }

    /// Size and settings of the memories.
    pub fn facts(&self) -> MemoryFacts {
        let num_entries = self.memories.num_entries();
        MemoryFacts {
            config: self.config.clone(),
            num_entries,
            bytes: self.config.num_bytes(num_entries),
            with_prompts: self.with_prompts,
        }
    }

    /// Fits a gate to the validation scores and applies it to the test scores.
    pub(super) fn mix(
        &self,
        control: MemoryControl,
        texts: ScoredTexts<'_>,
        scores: SplitScores,
        observer: &dyn Observer,
    ) -> (MemoryGate, Vec<TokenScores>) {
        let observed = self.observed(control, texts, observer);
        let valid_data = &texts.data.valid.data;
        let num_groups = self.memories.groups.len();
        let gate = fit_gate(&observed.valid, valid_data, &scores.valid, num_groups);
        let mixed = with_memory(&gate, &observed.test, &texts.test.data, scores.test);
        (gate, mixed)
    }

    fn observed(
        &self,
        control: MemoryControl,
        scored: ScoredTexts<'_>,
        observer: &dyn Observer,
    ) -> Rc<ObservedSplits> {
        let key = (control, scored.group_size);
        if let Some(found) = self.observed.borrow().get(&key) {
            return Rc::clone(found);
        }
        let data = scored.data;
        let constant = match control {
            MemoryControl::Constant => {
                let texts = TextsWithStates {
                    data: &data.train.data,
                    entering: &self.train,
                };
                Some(self.memories.constant(texts, self.seed, &data.device()))
            }
            _ => None,
        };
        let source = match (control, &constant) {
            (_, Some(memory)) => MemorySource::Constant(memory),
            (MemoryControl::Redrawn, _) => MemorySource::AnotherGroup(self.seed),
            _ if self.with_prompts => MemorySource::WithArrivedPrompts,
            _ => MemorySource::Group,
        };
        let observe = |split: &Split, states: &HiddenCache| {
            let texts = TextsWithStates {
                data: &split.data,
                entering: states,
            };
            observe_memories(&self.memories, texts, &source, &TEMPERATURES, observer)
        };
        let observed = Rc::new(ObservedSplits {
            valid: observe(&data.valid, &self.valid),
            test: observe(scored.test, &self.test),
        });
        self.observed.borrow_mut().insert(key, Rc::clone(&observed));
        observed
    }
}
