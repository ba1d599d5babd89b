//! The memories of all groups over a frozen model, and what they change about scores.
//!
//! Keys and queries are states of the frozen model as they enter one layer. Nothing that trains changes them, so a
//! memory is made once, serves every adapter of the model, and what it says about a text
//! ([`GroupMemories::observe`]) is found out once for all of them. What the tensors do is
//! defined by [`chameleon_hypernet::memory`].

mod mixed_scores;

use burn::tensor::{Device, Int, Tensor};
use chameleon_cluster::{ClusterError, principal_components};
use chameleon_core::RunSeed;
use chameleon_hypernet::HypernetError;
use chameleon_hypernet::memory::{GateFeatures, GroupMemory, KeyProjection, StateDirections};
use half::f16;
use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use serde::{Deserialize, Serialize};

pub use self::mixed_scores::{Observed, fit_gate, with_memory};
use crate::families::indices::index_tensor;
use crate::families::sizes::ModelSizes;
use crate::training::grouped_examples::{GroupedExamples, scored_targets};
use crate::training::hidden_cache::HiddenCache;

/// What is remembered, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryConfig {
    /// Places are told apart by the states that enter this layer.
    pub layer_idx: usize,
    /// Numbers of a key.
    pub key_size: usize,
    /// A group with more tokens keeps this many of them, drawn at random.
    pub max_entries: usize,
}

impl MemoryConfig {
    /// States two thirds of the way up, where they tell best what comes next: `docs/concepts/method.md`.
    pub fn for_model(sizes: &ModelSizes) -> Self {
        Self {
            layer_idx: sizes.num_layers * 2 / 3,
            key_size: sizes.hidden_size.min(64),
            max_entries: 1 << 15,
        }
    }

    /// Bytes of the keys and tokens of so many entries, in a file.
    pub fn num_bytes(&self, num_entries: usize) -> usize {
        num_entries.saturating_mul(self.key_size * size_of::<f16>() + size_of::<u32>())
    }

    /// Refuses a layer that a model does not have.
    ///
    /// # Errors
    ///
    /// When there is no such layer.
    pub fn check(&self, num_layers: usize) -> Result<(), MemoryError> {
        if self.layer_idx >= num_layers {
            return Err(MemoryError::Layer {
                found: self.layer_idx,
                last: num_layers - 1,
            });
        }
        Ok(())
    }
}

/// Why there can be no memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// A layer that the model does not have.
    #[error("a memory by the states that enter layer {found} of a model with layers 0 to {last}")]
    Layer {
        /// What was asked for.
        found: usize,
        /// The last layer.
        last: usize,
    },
    /// A group without a text.
    #[error("group {group_idx} has no text to remember")]
    EmptyGroup {
        /// The group.
        group_idx: usize,
    },
    /// The states make no keys.
    #[error("cannot make keys of hidden states")]
    Keys(#[from] HypernetError),
    /// The states have no principal directions.
    #[error("cannot find the principal directions of hidden states")]
    Directions(#[from] ClusterError),
}

/// What every group remembers.
#[derive(Debug, Clone)]
pub struct GroupMemories {
    /// States to keys.
    pub projection: KeyProjection,
    /// One for each group.
    pub groups: Vec<GroupMemory>,
}

/// States from which the projection is fitted: more change nothing.
const PROJECTION_STATES: usize = 1 << 15;

impl GroupMemories {
    /// Remembers the training texts of every group. Keys are rounded to f16, as a file keeps them, so that a memory
    /// scores the same before it is saved and after it is loaded.
    ///
    /// # Errors
    ///
    /// When the states make no keys, or a group has no example.
    ///
    /// # Panics
    ///
    /// When the states are of other texts.
    pub fn of(
        config: &MemoryConfig,
        num_groups: usize,
        texts: TextsWithStates<'_>,
        seed: RunSeed,
        device: &Device,
    ) -> Result<Self, MemoryError> {
        let projection = projection(config, texts, seed, device)?;
        let data = texts.data;
        let groups = (0..num_groups)
            .map(|group_idx| {
                let rows: Vec<usize> = (0..data.examples.len())
                    .filter(|&row| data.assignments[row] == group_idx)
                    .collect();
                if rows.is_empty() {
                    return Err(MemoryError::EmptyGroup { group_idx });
                }
                let seed = seed.derive(&format!("group-{group_idx}"));
                let max_entries = config.max_entries;
                Ok(remember(
                    rows,
                    max_entries,
                    texts,
                    &projection,
                    seed,
                    device,
                ))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { projection, groups })
    }

    /// A memory as large as the average group's, of texts of all groups.
    ///
    /// # Panics
    ///
    /// When there is no group.
    pub fn constant(
        &self,
        texts: TextsWithStates<'_>,
        seed: RunSeed,
        device: &Device,
    ) -> GroupMemory {
        let num_entries = self.num_entries() / self.groups.len();
        let rows = (0..texts.data.examples.len()).collect();
        let seed = seed.derive("constant");
        remember(
            rows,
            num_entries.max(1),
            texts,
            &self.projection,
            seed,
            device,
        )
    }

    /// Places remembered by all groups together.
    pub fn num_entries(&self) -> usize {
        self.groups.iter().map(GroupMemory::num_entries).sum()
    }

    /// What the memories say about the scored tokens of every example, at each temperature.
    ///
    /// `observe` is told the number of finished examples.
    ///
    /// # Panics
    ///
    /// When the texts' states are of other texts, or the plan leaves an example out.
    pub fn observe(
        &self,
        texts: TextsWithStates<'_>,
        source: &MemorySource<'_>,
        temperatures: &[f64],
        device: &Device,
        mut observe: impl FnMut(usize),
    ) -> Vec<Observed> {
        let TextsWithStates { data, entering } = texts;
        let mut rows: Vec<Option<Vec<RowVotes>>> = vec![None; data.examples.len()];
        let mut num_done = 0;
        for batch in &data.plan.batches {
            let arrived = match source {
                MemorySource::WithArrivedPrompts => {
                    Some(self.prompts_of(texts, &batch.rows, device))
                }
                _ => None,
            };
            for &row in &batch.rows {
                let own = self.memory_for(source, row, batch.cluster_idx);
                let with_prompts = arrived.as_ref().and_then(|prompts| {
                    let document = data.examples[row].document_idx;
                    prompts.beside(own, |other| {
                        other == row || data.examples[other].document_idx != document
                    })
                });
                let memory = with_prompts.as_ref().unwrap_or(own);
                let example = &data.examples[row];
                let states = entering.gather(&[row], device);
                let positions = index_tensor(example.sequence.predicting_positions(), device);
                let queries = self.projection.keys(states.select(0, positions));
                let similarities = memory.similarities(queries);
                let targets = scored_targets(&[example], device);
                let votes = temperatures.iter().map(|&temperature| {
                    let attention = similarities.attention(temperature);
                    RowVotes {
                        shares: attention.prob_of(targets.clone()),
                        evidence: attention.gate_features(),
                    }
                });
                rows[row] = Some(votes.collect());
                num_done += 1;
                observe(num_done);
            }
        }
        let rows: Vec<Vec<RowVotes>> = rows
            .into_iter()
            .map(|votes| votes.expect("a plan covers every example"))
            .collect();
        let at = |idx: usize, temperature| Observed {
            temperature,
            shares: Tensor::cat(
                rows.iter().map(|votes| votes[idx].shares.clone()).collect(),
                0,
            ),
            evidence: GateFeatures::cat(
                rows.iter()
                    .map(|votes| votes[idx].evidence.clone())
                    .collect(),
            ),
        };
        temperatures
            .iter()
            .enumerate()
            .map(|(idx, &temperature)| at(idx, temperature))
            .collect()
    }

    fn memory_for<'m>(
        &'m self,
        source: &'m MemorySource<'m>,
        row: usize,
        group_idx: usize,
    ) -> &'m GroupMemory {
        match source {
            MemorySource::Group | MemorySource::WithArrivedPrompts => &self.groups[group_idx],
            MemorySource::AnotherGroup(seed) => {
                let num_others = self.groups.len() - 1;
                let mut rng = seed.stream(&format!("another-group-{row}"));
                let step = 1 + rng.random_range(0..num_others.max(1));
                &self.groups[(group_idx + step) % self.groups.len()]
            }
            MemorySource::Constant(memory) => memory,
        }
    }

    /// Every token of the prompts that has a token of its prompt after it.
    fn prompts_of(
        &self,
        texts: TextsWithStates<'_>,
        rows: &[usize],
        device: &Device,
    ) -> ArrivedPrompts {
        let mut prompts = ArrivedPrompts {
            keys: Vec::new(),
            next_tokens: Vec::new(),
            rows: Vec::new(),
        };
        for &row in rows {
            let token_ids = texts.data.examples[row].prompt_token_ids();
            if token_ids.len() < 2 {
                continue;
            }
            let states = texts.entering.gather(&[row], device);
            let keys = self.projection.keys(states.slice([0..token_ids.len() - 1]));
            prompts.keys.push(keys);
            prompts
                .next_tokens
                .push(token_tensor(&token_ids[1..], device));
            prompts.rows.push(row);
        }
        prompts
    }
}

/// What prompts that are answered together have to say.
struct ArrivedPrompts {
    keys: Vec<Tensor<2>>,
    next_tokens: Vec<Tensor<1, Int>>,
    rows: Vec<usize>,
}

impl ArrivedPrompts {
    /// A memory with the prompts of some rows added, if there are any.
    fn beside(
        &self,
        memory: &GroupMemory,
        is_wanted: impl Fn(usize) -> bool,
    ) -> Option<GroupMemory> {
        let wanted: Vec<usize> = (0..self.rows.len())
            .filter(|&idx| is_wanted(self.rows[idx]))
            .collect();
        if wanted.is_empty() {
            return None;
        }
        let keys = wanted.iter().map(|&idx| self.keys[idx].clone());
        let next_tokens = wanted.iter().map(|&idx| self.next_tokens[idx].clone());
        Some(GroupMemory::new(
            Tensor::cat(
                std::iter::once(memory.keys().clone()).chain(keys).collect(),
                0,
            ),
            Tensor::cat(
                std::iter::once(memory.next_tokens().clone())
                    .chain(next_tokens)
                    .collect(),
                0,
            ),
        ))
    }
}

/// Temperatures at which memories are asked when a gate is fitted, which chooses among them.
pub const TEMPERATURES: [f64; 4] = [15.0, 20.0, 25.0, 30.0];

/// Grouped texts and the states of all their tokens as they enter the memory's layer.
#[derive(Debug, Clone, Copy)]
pub struct TextsWithStates<'a> {
    /// The texts.
    pub data: &'a GroupedExamples,
    /// Their states.
    pub entering: &'a HiddenCache,
}

/// Whose memory a text is given.
#[derive(Debug, Clone)]
pub enum MemorySource<'a> {
    /// That of its group: the same answer whatever the neighbours.
    Group,
    /// That of its group, with the prompts that are answered together with it; not those of its own document.
    WithArrivedPrompts,
    /// A control: that of another group, drawn for each text.
    AnotherGroup(RunSeed),
    /// A control: the same for every text.
    Constant(&'a GroupMemory),
}

#[derive(Debug, Clone)]
struct RowVotes {
    shares: Tensor<1>,
    evidence: GateFeatures,
}

fn projection(
    config: &MemoryConfig,
    texts: TextsWithStates<'_>,
    seed: RunSeed,
    device: &Device,
) -> Result<KeyProjection, MemoryError> {
    let TextsWithStates { data, entering } = texts;
    let mut rows: Vec<usize> = (0..data.examples.len()).collect();
    rows.shuffle(&mut seed.stream("projection"));
    let mut num_states = 0;
    let enough = rows.iter().position(|&row| {
        num_states += data.examples[row].sequence.len();
        num_states >= PROJECTION_STATES
    });
    rows.truncate(enough.map_or(rows.len(), |last| last + 1));
    let states = entering.gather(&rows, device);
    let components = principal_components(&states, config.key_size)?;
    Ok(KeyProjection::along(&StateDirections {
        mean: components.mean,
        axes: &components.axes,
        variances: &components.variances,
        total_variance: components.total_variance,
    })?)
}

/// Every token of some examples that has a token after it, or a draw of them.
fn remember(
    mut rows: Vec<usize>,
    max_entries: usize,
    texts: TextsWithStates<'_>,
    projection: &KeyProjection,
    seed: RunSeed,
    device: &Device,
) -> GroupMemory {
    let TextsWithStates { data, entering } = texts;
    // Whole examples in a random order, as many as it takes: what a group says often stays often.
    rows.shuffle(&mut seed.stream("memory"));
    let (mut keys, mut next_tokens) = (Vec::new(), Vec::<u32>::new());
    for row in rows {
        let room = max_entries - next_tokens.len();
        let token_ids = data.examples[row].sequence.token_ids();
        let num_entries = room.min(token_ids.len() - 1);
        if num_entries == 0 {
            break;
        }
        let states = entering.gather(&[row], device);
        keys.push(projection.keys(states.slice([0..num_entries])));
        next_tokens.extend_from_slice(&token_ids[1..=num_entries]);
    }
    let memory = GroupMemory::new(Tensor::cat(keys, 0), token_tensor(&next_tokens, device));
    memory.rounded()
}

fn token_tensor(token_ids: &[u32], device: &Device) -> Tensor<1, Int> {
    index_tensor(token_ids.iter().map(|&token| token as usize), device)
}
