//! The settings of a training: adapter, memory, spans, optimizer.

use std::path::PathBuf;

use chameleon_hypernet::Condition;

use crate::adapter::exemplar_use::{AttentionConfig, ExemplarUse, StepsConfig};
use crate::adapter::group_memory::MemoryConfig;
use crate::adapter::layer_adaptation::LayerRange;
use crate::adapter::prompts::PromptEncoding;
use crate::families::sizes::ModelSizes;
use crate::training::error::TrainingError;
use crate::training::method::Head;
use crate::training::texts::SpanConfig;
use crate::training::train::TrainOptions;

/// All settings of an adapter and its training, except the method and the seed.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingConfig {
    /// The shape of the adapter.
    pub adapter: AdapterOptions,
    /// Clusters of the training prompts.
    pub num_clusters: usize,
    /// Settings of the groups' memories.
    pub memory: MemoryOptions,
    /// Exemplars of a group, for the methods that use them, and learned steps, for the one that learns them.
    pub steps: StepsConfig,
    /// How texts are split into prompt and scored tokens.
    pub span: SpanConfig,
    /// Largest number of examples in a batch.
    pub batch_size: usize,
    /// Settings of the optimizer.
    pub optimizer: TrainOptions,
    /// The folder of cached hidden states, which later runs reuse.
    pub cache_dir: PathBuf,
}

/// The shape of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterOptions {
    /// Rank at the head.
    pub rank: usize,
    /// Multiplies the factors; alpha / rank.
    pub scale: f64,
    /// Adapted modules inside the layers; only the head is adapted if empty.
    pub targets: Vec<String>,
    /// The layers they are in.
    pub layers: LayerRange,
    /// Rank of the factors inside the layers.
    pub layer_rank: usize,
    /// How prompts are embedded.
    pub encoding: PromptEncoding,
    /// How the condition of a group is computed.
    pub condition: Condition,
    /// Widths of the hypernetwork's hidden layers.
    pub hidden_sizes: Vec<usize>,
    /// Dropout of the hypernetwork, 0 to 1.
    pub dropout: f64,
}

/// Settings of the groups' memories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryOptions {
    /// The layer whose input states are the keys; at two thirds of the depth if `None`.
    pub layer_idx: Option<usize>,
    /// Largest number of entries of a group.
    pub max_entries: usize,
}

impl TrainingConfig {
    /// The settings of `chameleon train` without flags. `cache_dir` holds hidden states of the frozen model.
    pub fn new(cache_dir: impl Into<PathBuf>) -> Self {
        Self {
            adapter: AdapterOptions::default(),
            num_clusters: 8,
            memory: MemoryOptions {
                layer_idx: None,
                max_entries: 1 << 15,
            },
            steps: StepsConfig::default(),
            span: SpanConfig::new(32, 128),
            batch_size: 16,
            optimizer: TrainOptions {
                num_epochs: 3,
                learning_rate: 5e-4,
                warmup: 0.05,
                weight_decay: 0.01,
                max_grad_norm: 1.0,
            },
            cache_dir: cache_dir.into(),
        }
    }
}

impl TrainingConfig {
    /// What an adapter of this kind does with exemplars.
    pub(crate) fn exemplars(&self, head: Head) -> Option<ExemplarUse> {
        match head {
            Head::Attention => Some(ExemplarUse::Attention(AttentionConfig {
                num_exemplars: self.steps.num_exemplars,
            })),
            Head::Steps => Some(ExemplarUse::Steps(self.steps)),
            _ => None,
        }
    }
}

impl Default for AdapterOptions {
    /// The head alone, with the paper's sizes.
    fn default() -> Self {
        Self {
            rank: 4,
            scale: 1.0,
            targets: Vec::new(),
            layers: LayerRange::All,
            layer_rank: 4,
            encoding: PromptEncoding::default(),
            condition: Condition::Centroid,
            hidden_sizes: vec![64, 32],
            dropout: 0.0,
        }
    }
}

impl MemoryOptions {
    /// The configuration for a model.
    ///
    /// # Errors
    ///
    /// When the model has no such layer.
    pub fn config(self, sizes: &ModelSizes) -> Result<MemoryConfig, TrainingError> {
        let mut config = MemoryConfig::for_model(sizes);
        config.max_entries = self.max_entries;
        if let Some(layer_idx) = self.layer_idx {
            config.layer_idx = layer_idx;
        }
        config.check(sizes.num_layers)?;
        Ok(config)
    }
}
