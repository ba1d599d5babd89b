//! `adapter_config.json`: the description of the tensors, and its validation.

use std::path::Path;

use chameleon_core::RunSeed;
use chameleon_hypernet::memory::MemoryGate;
use chameleon_hypernet::{Condition, GeneratorConfig, HyperLoraHeadConfig};
use serde::{Deserialize, Serialize};

use super::error::{AdapterError, ImpossibleAdapter};
use super::group_memory::MemoryConfig;
use super::{CONFIG_FILE, FORMAT_VERSION, OLDEST_VERSION, read};
use crate::adapter::adaptation::HeadAdaptation;
use crate::adapter::exemplar_use::{ExemplarSections, ExemplarUse};
use crate::adapter::identity::ModelIdentity;
use crate::adapter::layer_adaptation::{LayerAdaptation, LayerKind, LayerRange};
use crate::adapter::prompts::{PromptEncoding, Representation};
use crate::families::causal_lm::CausalLm as _;
use crate::families::language_model::LanguageModel;
use crate::training::train::TrainOptions;

/// How examples were split, which inference must repeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Recipe {
    /// Conditioned on the first tokens of a text, scored on the rest.
    Causal {
        /// Tokens of the conditioning span.
        prefix: usize,
        /// Tokens of a whole example.
        seq_len: usize,
    },
}

impl Recipe {
    /// Tokens of a whole example.
    pub fn seq_len(&self) -> usize {
        let Self::Causal { seq_len, .. } = *self;
        seq_len
    }
}

/// `adapter_config.json`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterConfig {
    /// [`FORMAT_VERSION`] of the program that wrote it.
    pub format_version: u32,
    /// The model it was trained on; any other model is rejected.
    pub base: ModelIdentity,
    /// How examples were split.
    pub recipe: Recipe,
    /// The head.
    pub head: HeadAdaptation,
    /// The layers, if they are adapted.
    pub layers: Option<LayerAdaptation>,
    /// How prompts are embedded.
    #[serde(default)]
    pub prompts: PromptEncoding,
    /// How the condition of a group is computed.
    pub condition: Condition,
    /// Number of clusters.
    pub num_clusters: usize,
    /// How it was trained.
    pub training: TrainOptions,
    /// The seed of the run.
    pub seed: RunSeed,
    /// The groups' memories, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryDescription>,
    /// What it does with the exemplars of a group, if anything.
    #[serde(flatten, with = "ExemplarSections")]
    pub exemplars: Option<ExemplarUse>,
}

/// The section `memory` of `adapter_config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemoryDescription {
    /// Settings of the memories.
    #[serde(flatten)]
    pub config: MemoryConfig,
    /// Entries of all groups together.
    pub num_entries: usize,
    /// Computes the weight of the memory in a prediction.
    pub gate: MemoryGate,
}

impl MemoryDescription {
    /// Bytes of keys and tokens in a file.
    pub fn num_bytes(&self) -> usize {
        self.config.num_bytes(self.num_entries)
    }

    pub(super) fn check(&self, adapter: &AdapterConfig) -> Result<(), ImpossibleAdapter> {
        check_memory(&self.config, adapter)?;
        if !self.gate.is_sound(adapter.num_clusters) {
            return Err(ImpossibleAdapter::MemoryGate {
                num_clusters: adapter.num_clusters,
            });
        }
        Ok(())
    }
}

/// Rejects settings of a memory that are invalid for an adapter.
///
/// # Errors
///
/// Names the first invalid setting.
pub fn check_memory(
    memory: &MemoryConfig,
    adapter: &AdapterConfig,
) -> Result<(), ImpossibleAdapter> {
    let sizes = &adapter.base.sizes;
    if memory.layer_idx >= sizes.num_layers {
        return Err(ImpossibleAdapter::MemoryLayer {
            found: memory.layer_idx,
            num_layers: sizes.num_layers,
        });
    }
    // Keys are states of the frozen model, but decoding has only the states of the adapted model.
    if let Some(layers) = &adapter.layers {
        let first_adapted = match layers.layers {
            LayerRange::All => 0,
            LayerRange::Between { first, .. } => first,
        };
        if first_adapted < memory.layer_idx {
            return Err(ImpossibleAdapter::MemoryAboveAdapted {
                layer_idx: memory.layer_idx,
                first_adapted,
            });
        }
    }
    if !(1..=sizes.hidden_size).contains(&memory.key_size) {
        return Err(ImpossibleAdapter::MemoryKeys {
            found: memory.key_size,
            hidden_size: sizes.hidden_size,
        });
    }
    if memory.max_entries == 0 {
        return Err(ImpossibleAdapter::MemoryOfNothing);
    }
    Ok(())
}

/// Reads `adapter_config.json` alone.
///
/// # Errors
///
/// When it is unreadable, damaged, of another version or has invalid sizes.
pub fn read_config(folder: &Path) -> Result<AdapterConfig, AdapterError> {
    let path = folder.join(CONFIG_FILE);
    let text = read(&path)?;
    let broken = |source| AdapterError::Config {
        path: path.clone(),
        source,
    };
    // The version is checked first: another version may have another layout.
    let version: VersionOnly = serde_json::from_slice(&text).map_err(broken)?;
    if !(OLDEST_VERSION..=FORMAT_VERSION).contains(&version.format_version) {
        return Err(AdapterError::Version {
            path,
            found: version.format_version,
        });
    }
    let config: AdapterConfig = serde_json::from_slice(&text).map_err(broken)?;
    match config.check() {
        Err(source) => Err(AdapterError::Impossible { path, source }),
        Ok(()) => Ok(config),
    }
}

/// Reads `adapter_config.json` and rejects one for another base model.
pub(crate) fn read_config_for(
    folder: &Path,
    identity: &ModelIdentity,
) -> Result<AdapterConfig, AdapterError> {
    let config = read_config(folder)?;
    if config.base == *identity {
        return Ok(config);
    }
    Err(AdapterError::OtherBase {
        expected: config.base.to_string(),
        found: identity.to_string(),
    })
}

impl AdapterConfig {
    /// Rejects examples with more positions than `model` has learned.
    pub(crate) fn check_positions(&self, model: &LanguageModel) -> Result<(), ImpossibleAdapter> {
        let seq_len = self.recipe.seq_len();
        model
            .check_positions(seq_len)
            .map_err(|_| ImpossibleAdapter::Positions {
                seq_len,
                max_seq_len: model.sizes().max_seq_len,
            })
    }

    /// Rejects sizes that would later panic or exhaust memory.
    ///
    /// # Errors
    ///
    /// Names the first invalid setting.
    pub fn check(&self) -> Result<(), ImpossibleAdapter> {
        let sizes = &self.base.sizes;
        let hidden_size = sizes.hidden_size;
        let check_rank = |rank| {
            if (1..=hidden_size).contains(&rank) {
                Ok(())
            } else {
                Err(ImpossibleAdapter::Rank { rank, hidden_size })
            }
        };
        let shape = self.head.shape();
        check_rank(shape.rank)?;
        if [shape.in_size, shape.out_size] != [hidden_size, sizes.vocab_size] {
            return Err(ImpossibleAdapter::HeadSizes {
                in_size: shape.in_size,
                out_size: shape.out_size,
                hidden_size,
                vocab_size: sizes.vocab_size,
            });
        }
        if let Some(layers) = &self.layers {
            check_rank(layers.rank)?;
            self.check_layers(layers)?;
        }
        if self.num_clusters == 0 || self.num_clusters > MAX_CLUSTERS {
            return Err(ImpossibleAdapter::Clusters {
                found: self.num_clusters,
            });
        }
        if let Representation::Hidden { num_layers: found } = self.prompts.representation
            && !(1..=sizes.num_layers).contains(&found)
        {
            return Err(ImpossibleAdapter::Representation {
                found,
                num_layers: sizes.num_layers,
            });
        }
        let Recipe::Causal { prefix, seq_len } = self.recipe;
        if prefix == 0 || prefix >= seq_len {
            return Err(ImpossibleAdapter::Spans { prefix, seq_len });
        }
        if let Some(memory) = &self.memory {
            memory.check(self)?;
        }
        if let Some(how) = self.exemplars {
            check_exemplars(how, &self.head, self.layers.as_ref())?;
        }
        match &self.head {
            HeadAdaptation::Lora { config } => config.check()?,
            HeadAdaptation::Experts {
                config,
                num_clusters,
            } => {
                config.check()?;
                if *num_clusters != self.num_clusters {
                    return Err(ImpossibleAdapter::Experts {
                        num_experts: *num_clusters,
                        num_clusters: self.num_clusters,
                    });
                }
            }
            HeadAdaptation::Hyper { config } => {
                if let Some(static_factors) = &config.static_factors {
                    check_rank(static_factors.shape.rank)?;
                }
                check_network(config, hidden_size)?;
                config.check()?;
            }
        }
        Ok(())
    }

    fn check_layers(&self, layers: &LayerAdaptation) -> Result<(), ImpossibleAdapter> {
        let num_layers = self.base.sizes.num_layers;
        let end = match layers.layers {
            LayerRange::All => num_layers,
            LayerRange::Between { end, .. } => end,
        };
        if end > num_layers {
            return Err(ImpossibleAdapter::Layers {
                range: layers.layers,
                num_layers,
            });
        }
        let targets = &layers.targets;
        let is_twice = |(idx, target)| targets[..idx].contains(target);
        if targets.is_empty()
            || targets.len() > MAX_TARGETS
            || targets.iter().enumerate().any(is_twice)
        {
            return Err(ImpossibleAdapter::Targets {
                found: targets.clone(),
            });
        }
        match (layers.kind, &self.head) {
            (LayerKind::Core, HeadAdaptation::Lora { .. } | HeadAdaptation::Experts { .. }) => {
                Err(ImpossibleAdapter::CoresWithoutNetwork)
            }
            _ => Ok(()),
        }
    }
}

fn check_exemplars(
    how: ExemplarUse,
    head: &HeadAdaptation,
    layers: Option<&LayerAdaptation>,
) -> Result<(), ImpossibleAdapter> {
    let num_exemplars = how.num_exemplars();
    let num_steps = how.steps().map_or(1, |steps| steps.num_steps);
    if !(1..=MAX_STEPS).contains(&num_steps) || !(1..=MAX_EXEMPLARS).contains(&num_exemplars) {
        return Err(ImpossibleAdapter::Exemplars {
            num_steps,
            num_exemplars,
        });
    }
    match (head, layers) {
        (HeadAdaptation::Lora { .. }, Some(layers)) if layers.kind == LayerKind::Lora => Ok(()),
        _ => Err(ImpossibleAdapter::ExemplarsWithoutLora),
    }
}

fn check_network(
    config: &HyperLoraHeadConfig,
    hidden_size: usize,
) -> Result<(), ImpossibleAdapter> {
    let found = config.generator.condition_size();
    if found != hidden_size {
        return Err(ImpossibleAdapter::ConditionSize { found, hidden_size });
    }
    let hidden_sizes = match &config.generator {
        GeneratorConfig::Dense(config) => &config.hidden_sizes,
        GeneratorConfig::Core(config) => &config.hidden_sizes,
    };
    if hidden_sizes.len() > MAX_HIDDEN_LAYERS
        || hidden_sizes.iter().any(|&size| size > MAX_HIDDEN_SIZE)
    {
        return Err(ImpossibleAdapter::HiddenSizes {
            found: hidden_sizes.clone(),
        });
    }
    Ok(())
}

// Upper bounds above any real run; they limit the allocations for a damaged file.
const MAX_CLUSTERS: usize = 1 << 16;
const MAX_TARGETS: usize = 64;
const MAX_STEPS: usize = 256;
const MAX_EXEMPLARS: usize = 1 << 16;
const MAX_HIDDEN_LAYERS: usize = 8;
const MAX_HIDDEN_SIZE: usize = 1 << 13;

#[derive(Deserialize)]
struct VersionOnly {
    format_version: u32,
}
