//! The memories of all groups of a frozen model, and their effect on scores.
//!
//! Keys and queries are the input states of one layer of the frozen model. Training does not change them, so a memory
//! is built once for all adapters of the model, and its probabilities for a text ([`GroupMemories::observe`]) are
//! computed once for all of them. The tensor operations are defined by [`chameleon_hypernet::memory`].

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

pub(crate) use self::mixed_scores::{Observed, fit_gate, with_memory};
use crate::families::indices::index_tensor;
use crate::families::sizes::ModelSizes;
use crate::training::grouped_examples::{GroupedExamples, scored_targets};
use crate::training::hidden_cache::HiddenCache;

/// Settings of memories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryConfig {
    /// The layer whose input states are the keys.
    pub layer_idx: usize,
    /// Width of a key.
    pub key_size: usize,
    /// A group with more tokens keeps this many of them, drawn at random.
    pub max_entries: usize,
}

impl MemoryConfig {
    /// Hidden states of the layer at two thirds of the depth, which predict the next token best: `docs/concepts/method.md`.
    pub fn for_model(sizes: &ModelSizes) -> Self {
        Self {
            layer_idx: sizes.num_layers * 2 / 3,
            key_size: sizes.hidden_size.min(64),
            max_entries: 1 << 15,
        }
    }

    /// Bytes of the keys and tokens of `num_entries` entries in a file.
    pub fn num_bytes(&self, num_entries: usize) -> usize {
        num_entries.saturating_mul(self.key_size * size_of::<f16>() + size_of::<u32>())
    }

    /// Rejects a layer that a model does not have.
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

/// An error of building memories.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// A layer that the model does not have.
    #[error("a memory by the states that enter layer {found} of a model with layers 0 to {last}")]
    Layer {
        /// The requested layer.
        found: usize,
        /// The last layer.
        last: usize,
    },
    /// A group without a text.
    #[error("group {group_idx} has no text for its memory")]
    EmptyGroup {
        /// The group.
        group_idx: usize,
    },
    /// No keys can be computed from the states.
    #[error("cannot compute keys from hidden states")]
    Keys(#[from] HypernetError),
    /// The states have no principal directions.
    #[error("cannot find the principal directions of hidden states")]
    Directions(#[from] ClusterError),
}

/// The memories of all groups.
#[derive(Debug, Clone)]
pub struct GroupMemories {
    /// States to keys.
    pub projection: KeyProjection,
    /// One for each group.
    pub groups: Vec<GroupMemory>,
}

/// Number of states that the projection is fitted on: more do not improve it.
const PROJECTION_STATES: usize = 1 << 15;

impl GroupMemories {
    /// Builds the memories from the training texts of every group. Keys are rounded to f16, as in a file, so that a
    /// memory scores the same before it is saved and after it is loaded.
    ///
    /// # Errors
    ///
    /// When no keys can be computed from the states, or a group has no example.
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

    /// A memory of the average group's size, from texts of all groups.
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

    /// Entries of all groups together.
    pub fn num_entries(&self) -> usize {
        self.groups.iter().map(GroupMemory::num_entries).sum()
    }

    /// The memories' probabilities and gate features for the scored tokens of every example, at each temperature.
    ///
    /// `observe` is called with the number of finished examples.
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
        let mut rows: Vec<Option<Vec<RowAttention>>> = vec![None; data.examples.len()];
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
                let attended = temperatures.iter().map(|&temperature| {
                    let attention = similarities.attention(temperature);
                    RowAttention {
                        target_probs: attention.prob_of(targets.clone()),
                        gate_features: attention.gate_features(),
                    }
                });
                rows[row] = Some(attended.collect());
                num_done += 1;
                observe(num_done);
            }
        }
        let rows: Vec<Vec<RowAttention>> = rows
            .into_iter()
            .map(|attended| attended.expect("a plan covers every example"))
            .collect();
        let at = |idx: usize, temperature| Observed {
            temperature,
            target_probs: Tensor::cat(
                rows.iter()
                    .map(|attended| attended[idx].target_probs.clone())
                    .collect(),
                0,
            ),
            gate_features: GateFeatures::cat(
                rows.iter()
                    .map(|attended| attended[idx].gate_features.clone())
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

    /// Every token of the prompts except the last of each.
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

/// Entries from the prompts of a batch.
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

/// Candidate temperatures of a gate; fitting chooses one.
pub(crate) const TEMPERATURES: [f64; 4] = [15.0, 20.0, 25.0, 30.0];

/// Grouped texts and the states of all their tokens that enter the memory's layer.
#[derive(Debug, Clone, Copy)]
pub struct TextsWithStates<'a> {
    /// The texts.
    pub data: &'a GroupedExamples,
    /// Their states.
    pub entering: &'a HiddenCache,
}

/// Which memory a text receives.
#[derive(Debug, Clone)]
pub enum MemorySource<'a> {
    /// That of its group, independent of the other texts of the batch.
    Group,
    /// That of its group and the prompts of its batch, except those of its own document.
    WithArrivedPrompts,
    /// A control: that of another group, drawn for each text.
    AnotherGroup(RunSeed),
    /// A control: the same for every text.
    Constant(&'a GroupMemory),
}

#[derive(Debug, Clone)]
struct RowAttention {
    target_probs: Tensor<1>,
    gate_features: GateFeatures,
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

/// The entries of some examples: every token except the last of each, or a random sample of them.
fn remember(
    mut rows: Vec<usize>,
    max_entries: usize,
    texts: TextsWithStates<'_>,
    projection: &KeyProjection,
    seed: RunSeed,
    device: &Device,
) -> GroupMemory {
    let TextsWithStates { data, entering } = texts;
    // Whole examples in a random order, up to the limit, which keeps the frequencies of a group's phrases.
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
