//! What the memories of the groups say about validation and test texts: found out once, for all methods and seeds.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use burn::tensor::Device;
use chameleon_core::RunSeed;
use chameleon_hypernet::MemoryGate;
use chameleon_models::{
    CausalLm as _, GroupMemories, HiddenCache, MemoryConfig, MemorySource, TokenScores,
    adapter::group_memory::{Observed, TEMPERATURES, TextsWithStates, fit_gate, with_memory},
};
use serde::Serialize;

use crate::{
    commands::{
        Context, memory,
        prepare::{Part, Prepared},
        states::entering,
    },
    errors::CliError,
    resolve::TrainingConfig,
};

use super::protocol::MemoryControl;
use super::runs::Comparison;

/// The memories of a comparison.
pub(super) struct Recall {
    pub(super) config: MemoryConfig,
    memories: GroupMemories,
    /// Whether prompts that are answered together are remembered for one another.
    with_prompts: bool,
    seed: RunSeed,
    train: HiddenCache,
    valid: HiddenCache,
    test: HiddenCache,
    observed: RefCell<BTreeMap<ObservedKey, Rc<BothParts>>>,
}

/// What groups remember, for the report.
#[derive(Debug, Clone, Serialize)]
pub(super) struct MemoryFacts {
    #[serde(flatten)]
    config: MemoryConfig,
    /// Tokens remembered by all groups together.
    num_entries: usize,
    /// Keys and tokens, uncompressed.
    bytes: usize,
    /// Whether prompts that are answered together are remembered for one another.
    with_prompts: bool,
}

impl MemoryFacts {
    /// For a person to read.
    pub(super) fn words(&self) -> String {
        let Self {
            config,
            num_entries,
            bytes,
            with_prompts,
        } = self;
        let prompts = if *with_prompts {
            ", and the prompts that are answered together"
        } else {
            ""
        };
        format!(
            "{num_entries} tokens by {} numbers of the states that enter layer {}, {:.0} MiB{prompts}",
            config.key_size,
            config.layer_idx,
            *bytes as f64 / f64::from(1 << 20),
        )
    }
}

/// Whose memory it is, and how many test texts are answered together.
type ObservedKey = (MemoryControl, Option<usize>);

struct BothParts {
    valid: Vec<Observed>,
    test: Vec<Observed>,
}

impl Recall {
    /// Reads or computes the states of all texts and makes the memories, or answers `None` if the user asked to stop.
    pub(super) fn of(
        prepared: &Prepared,
        test: &Part,
        training: &TrainingConfig,
        with_prompts: bool,
        context: &Context,
    ) -> Result<Option<Self>, CliError> {
        let config = memory::config(training, prepared.model().sizes())?;
        let states = |part: &Part| {
            let examples = &part.data.examples;
            let cache_dir = training.cache_dir.as_ref();
            entering(prepared, examples, config.layer_idx, cache_dir, context)
        };
        let (Some(train), Some(valid), Some(test)) = (
            states(&prepared.train)?,
            states(&prepared.held_out)?,
            states(test)?,
        ) else {
            return Ok(None);
        };
        let texts = TextsWithStates {
            data: &prepared.train.data,
            entering: &train,
        };
        // The clusters are the same for all seeds of a comparison, and so is what they remember.
        let seed = context.settings.seed.derive("memory");
        let memories = GroupMemories::of(
            &config,
            training.num_clusters,
            texts,
            seed,
            &device(prepared),
        )?;
        Ok(Some(Self {
            config,
            memories,
            with_prompts,
            seed,
            train,
            valid,
            test,
            observed: RefCell::default(),
        }))
    }

    /// What is remembered, and what it takes.
    pub(super) fn facts(&self) -> MemoryFacts {
        let num_entries = self.memories.num_entries();
        let entry_bytes = self.config.key_size * size_of::<f32>() + size_of::<u32>();
        MemoryFacts {
            config: self.config.clone(),
            num_entries,
            bytes: num_entries * entry_bytes,
            with_prompts: self.with_prompts,
        }
    }

    /// Fits a gate to validation scores, and changes test scores by it.
    pub(super) fn mix(
        &self,
        control: MemoryControl,
        comparison: &Comparison<'_>,
        scores: Scores,
    ) -> (MemoryGate, Vec<TokenScores>) {
        let observed = self.observed(control, comparison);
        let valid_data = &comparison.prepared.held_out.data;
        let num_groups = self.memories.groups.len();
        let gate = fit_gate(&observed.valid, valid_data, &scores.valid, num_groups);
        let mixed = with_memory(&gate, &observed.test, &comparison.test.data, scores.test);
        (gate, mixed)
    }

    fn observed(&self, control: MemoryControl, comparison: &Comparison<'_>) -> Rc<BothParts> {
        let key = (control, comparison.group_size);
        if let Some(parts) = self.observed.borrow().get(&key) {
            return Rc::clone(parts);
        }
        let Comparison {
            prepared, context, ..
        } = *comparison;
        let device = device(prepared);
        let constant = match control {
            MemoryControl::Constant => {
                let texts = TextsWithStates {
                    data: &prepared.train.data,
                    entering: &self.train,
                };
                Some(self.memories.constant(texts, self.seed, &device))
            }
            _ => None,
        };
        let source = match (control, &constant) {
            (_, Some(memory)) => MemorySource::Constant(memory),
            (MemoryControl::Shuffled, _) => MemorySource::AnotherGroup(self.seed),
            _ if self.with_prompts => MemorySource::WithArrivedPrompts,
            _ => MemorySource::Group,
        };
        let observe = |part: &Part, states: &HiddenCache| {
            let texts = TextsWithStates {
                data: &part.data,
                entering: states,
            };
            memory::observe(&self.memories, texts, &source, &TEMPERATURES, context)
        };
        let parts = BothParts {
            valid: observe(&prepared.held_out, &self.valid),
            test: observe(comparison.test, &self.test),
        };
        let parts = Rc::new(parts);
        self.observed.borrow_mut().insert(key, Rc::clone(&parts));
        parts
    }
}

/// What an adapter alone scored.
pub(super) struct Scores {
    pub(super) valid: Vec<TokenScores>,
    pub(super) test: Vec<TokenScores>,
}

fn device(prepared: &Prepared) -> Device {
    prepared.model().head_weight().device()
}
