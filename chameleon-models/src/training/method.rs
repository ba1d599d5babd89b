//! Methods: the trained head, its conditions and its memory; and the configuration of the resulting adapter.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use burn::module::Module as _;
use burn::tensor::Device;
use chameleon_core::{FactorShape, RunSeed};
use chameleon_hypernet::{
    Condition, ConditionControl, ConditionNorm, GeneratorConfig, GeneratorKind,
    HyperLoraHeadConfig, LoraConfig,
};
use serde::{Deserialize, Serialize};

use crate::adapter::adaptation::{AdapterModule, HeadAdaptation, HeadAdapter, head_shape};
use crate::adapter::group_memory::MemoryConfig;
use crate::adapter::layer_adaptation::{LayerAdaptation, LayerKind, LayerRange};
use crate::adapter::prompts::PromptEncoding;
use crate::adapter::{self, AdapterConfig, AdapterError, FORMAT_VERSION, Recipe};
use crate::families::causal_lm::CausalLm;
use crate::families::language_model::LanguageModel;
use crate::families::sizes::ModelSizes;
use crate::training::error::TrainingError;
use crate::training::prepare::TrainingData;
use crate::training::texts::SpanConfig;
use crate::training::train::TrainOptions;

/// One way to adapt a model: three independent choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Method {
    /// What is trained.
    pub head: Head,
    /// Which conditions a generated head receives.
    pub control: ConditionControl,
    /// Which memory a text receives, if any.
    pub memory: Option<MemoryControl>,
}

/// The trained adaptation of the head, without its sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// Nothing.
    Frozen,
    /// LoRA.
    Lora,
    /// LoRA with as many trainable parameters as a generated head.
    ParameterMatchedLora(GeneratorKind),
    /// One LoRA for each cluster.
    Experts,
    /// Factors generated from the condition of a group.
    Generated(GeneratorKind),
}

/// Which memory a text receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryControl {
    /// That of its group.
    None,
    /// That of another group, drawn for each text.
    Redrawn,
    /// One for all texts, drawn from all groups.
    Constant,
}

impl Method {
    /// Every method, in the order of tables.
    pub const ALL: &'static [Self] = &[
        Self::FROZEN,
        Self::LORA,
        Self::LORA.with_memory(MemoryControl::None),
        Self::LORA.with_memory(MemoryControl::Redrawn),
        Self::LORA.with_memory(MemoryControl::Constant),
        Self::MATCHED_LORA,
        Self::MATCHED_LORA_DENSE,
        Self::of(Head::Experts),
        Self::DENSE,
        Self::DENSE.with_control(ConditionControl::Redrawn),
        Self::DENSE.with_control(ConditionControl::Constant),
        Self::CORE,
        Self::CORE.with_control(ConditionControl::Redrawn),
        Self::CORE.with_control(ConditionControl::Constant),
        Self::CORE.with_memory(MemoryControl::None),
        Self::CORE.with_memory(MemoryControl::Redrawn),
        Self::CORE.with_memory(MemoryControl::Constant),
    ];

    /// The model as it is.
    pub const FROZEN: Self = Self::of(Head::Frozen);
    /// LoRA for all groups.
    pub const LORA: Self = Self::of(Head::Lora);
    /// LoRA with as many trainable parameters as [`CORE`](Self::CORE).
    pub const MATCHED_LORA: Self = Self::of(Head::ParameterMatchedLora(GeneratorKind::Core));
    /// LoRA with as many trainable parameters as [`DENSE`](Self::DENSE).
    pub const MATCHED_LORA_DENSE: Self = Self::of(Head::ParameterMatchedLora(GeneratorKind::Dense));
    /// The paper's hypernetwork.
    pub const DENSE: Self = Self::of(Head::Generated(GeneratorKind::Dense));
    /// Our hypernetwork.
    pub const CORE: Self = Self::of(Head::Generated(GeneratorKind::Core));

    const fn of(head: Head) -> Self {
        Self {
            head,
            control: ConditionControl::None,
            memory: None,
        }
    }

    /// The same head with other conditions.
    #[must_use]
    pub const fn with_control(self, control: ConditionControl) -> Self {
        Self { control, ..self }
    }

    /// The same adapter with a memory.
    #[must_use]
    pub const fn with_memory(self, memory: MemoryControl) -> Self {
        Self {
            memory: Some(memory),
            ..self
        }
    }

    /// The method whose training this one uses: itself, or the same adapter without its memory.
    #[must_use]
    pub fn adapter(self) -> Self {
        Self {
            memory: None,
            ..self
        }
    }

    /// Whether it is a control: it receives wrong conditions or memories.
    pub fn is_control(self) -> bool {
        self.control != ConditionControl::None
            || self
                .memory
                .is_some_and(|memory| memory != MemoryControl::None)
    }

    /// Whether it needs a second group to take a condition or memory from.
    pub fn draws_another_group(self) -> bool {
        self.control == ConditionControl::Redrawn || self.memory == Some(MemoryControl::Redrawn)
    }

    /// A short description.
    pub fn summary(self) -> &'static str {
        match (self.head, self.control, self.memory) {
            (Head::Generated(GeneratorKind::Core), _, Some(memory)) => match memory {
                MemoryControl::None => "`core` with a memory of each group's training texts",
                MemoryControl::Redrawn => "`core` with the memories of other groups",
                MemoryControl::Constant => "`core` with one memory of all groups",
            },
            (_, _, Some(memory)) => match memory {
                MemoryControl::None => "`lora` with a memory of each group's training texts",
                MemoryControl::Redrawn => "`lora` with the memories of other groups",
                MemoryControl::Constant => "`lora` with one memory of all groups",
            },
            (Head::Frozen, ..) => "The base model",
            (Head::Lora, ..) => "LoRA of the same rank",
            (Head::ParameterMatchedLora(GeneratorKind::Core), ..) => {
                "LoRA with as many trainable parameters as `core`"
            }
            (Head::ParameterMatchedLora(_), ..) => {
                "LoRA with as many trainable parameters as `dense`"
            }
            (Head::Experts, ..) => "One LoRA for each group",
            (Head::Generated(GeneratorKind::Core), control, None) => match control {
                ConditionControl::Redrawn => "`core` with the conditions of other groups",
                ConditionControl::Constant => "`core` with one condition for all groups",
                _ => "The core hypernetwork",
            },
            (Head::Generated(_), control, None) => match control {
                ConditionControl::Redrawn => "`dense` with the conditions of other groups",
                ConditionControl::Constant => "`dense` with one condition for all groups",
                _ => "The dense hypernetwork",
            },
        }
    }

    /// The position in tables.
    pub fn position(self) -> usize {
        Self::ALL
            .iter()
            .position(|&method| method == self)
            .unwrap_or(Self::ALL.len())
    }
}

impl fmt::Display for Method {
    /// `core`, `core-redrawn`, `core-memory-constant`, ...
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = |redrawn: bool| if redrawn { "-redrawn" } else { "-constant" };
        f.write_str(match self.head {
            Head::Frozen => "frozen",
            Head::Lora => "lora",
            Head::ParameterMatchedLora(GeneratorKind::Core) => "lora-equal",
            Head::ParameterMatchedLora(_) => "lora-equal-dense",
            Head::Experts => "experts",
            Head::Generated(GeneratorKind::Core) => "core",
            Head::Generated(_) => "dense",
        })?;
        if self.control != ConditionControl::None {
            f.write_str(suffix(self.control == ConditionControl::Redrawn))?;
        }
        match self.memory {
            None => Ok(()),
            Some(MemoryControl::None) => f.write_str("-memory"),
            Some(memory) => {
                f.write_str("-memory")?;
                f.write_str(suffix(memory == MemoryControl::Redrawn))
            }
        }
    }
}

/// A string that is not the name of a method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a method")]
pub struct UnknownMethod {
    /// The name.
    pub name: String,
}

impl FromStr for Method {
    type Err = UnknownMethod;

    /// Reads what [`Display`](fmt::Display) writes; `-shuffled` is an older spelling of `-redrawn`.
    fn from_str(name: &str) -> Result<Self, UnknownMethod> {
        let spelled = name
            .strip_suffix("-shuffled")
            .map(|stem| format!("{stem}-redrawn"));
        let wanted = spelled.as_deref().unwrap_or(name);
        Self::ALL
            .iter()
            .copied()
            .find(|method| method.to_string() == wanted)
            .ok_or_else(|| UnknownMethod {
                name: name.to_owned(),
            })
    }
}

impl From<Method> for String {
    fn from(method: Method) -> Self {
        method.to_string()
    }
}

impl TryFrom<String> for Method {
    type Error = UnknownMethod;

    fn try_from(name: String) -> Result<Self, UnknownMethod> {
        name.parse()
    }
}

/// All settings of an adapter and its training, except the method and the seed.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingConfig {
    /// The shape of the adapter.
    pub adapter: AdapterOptions,
    /// Clusters of the training prompts.
    pub num_clusters: usize,
    /// Settings of the groups' memories.
    pub memory: MemoryOptions,
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

impl TrainingConfig {
    /// The configuration of an adapter before its training. A frozen head is described as LoRA; only its sizes and
    /// clusters are used.
    ///
    /// # Errors
    ///
    /// When the sizes do not fit the model.
    pub fn adapter_config(
        &self,
        head: Head,
        data: &TrainingData,
        seed: RunSeed,
    ) -> Result<AdapterConfig, TrainingError> {
        let parts = self.adapter.parts(head, data.model(), self.num_clusters)?;
        let config = AdapterConfig {
            format_version: FORMAT_VERSION,
            base: data.loaded.identity.clone(),
            recipe: Recipe::Causal {
                prefix: self.span.prefix,
                seq_len: self.span.seq_len,
            },
            head: parts.head,
            layers: parts.layers,
            prompts: self.adapter.encoding,
            condition: self.adapter.condition,
            num_clusters: self.num_clusters,
            training: self.optimizer.clone(),
            seed,
            memory: None,
        };
        // A configuration that the reader would reject is not trained.
        config.check()?;
        Ok(config)
    }
}

/// The adapted head, and the adapted layers if there are any.
struct Parts {
    head: HeadAdaptation,
    layers: Option<LayerAdaptation>,
}

impl Parts {
    fn num_trainable_params(&self, model: &LanguageModel) -> Result<usize, TrainingError> {
        let layers = match &self.layers {
            None => 0,
            Some(layers) => layers
                .config(model, self.head.num_features())
                .map_err(AdapterError::Target)?
                .num_trainable_params(),
        };
        Ok(self.head.num_trainable_params() + layers)
    }
}

impl AdapterOptions {
    fn parts(
        &self,
        head: Head,
        model: &LanguageModel,
        num_clusters: usize,
    ) -> Result<Parts, TrainingError> {
        let shape = head_shape(model, self.rank);
        let lora = LoraConfig::new(shape).with_scale(self.scale);
        let (head, layers) = match head {
            Head::ParameterMatchedLora(kind) => {
                let generated = self.parts(Head::Generated(kind), model, num_clusters)?;
                return self.matched_lora(generated.num_trainable_params(model)?, model);
            }
            Head::Frozen | Head::Lora => (HeadAdaptation::Lora { config: lora }, LayerKind::Lora),
            Head::Experts => {
                let experts = HeadAdaptation::Experts {
                    config: lora,
                    num_clusters,
                };
                (experts, LayerKind::Lora)
            }
            Head::Generated(kind) => {
                let config = self.hypernetwork(kind, shape);
                let layers = match kind {
                    GeneratorKind::Core => LayerKind::Core,
                    _ => LayerKind::Lora,
                };
                (HeadAdaptation::Hyper { config }, layers)
            }
        };
        Ok(Parts {
            head,
            layers: (!self.targets.is_empty()).then(|| LayerAdaptation {
                targets: self.targets.clone(),
                layers: self.layers,
                kind: layers,
                rank: self.layer_rank,
                scale: self.scale,
            }),
        })
    }

    /// Plain LoRA at the same places with about as many trainable parameters. If layers are adapted, their rank is
    /// raised first; the rank of the head makes up the remaining difference.
    fn matched_lora(
        &self,
        num_params: usize,
        model: &LanguageModel,
    ) -> Result<Parts, TrainingError> {
        let mut lora = self.parts(Head::Lora, model, 1)?;
        let shape = head_shape(model, self.rank);
        // A rank above the width adds parameters but no expressiveness.
        let widest = shape.in_size;
        let mut rest = num_params;
        if let Some(layers) = &mut lora.layers {
            layers.rank = 1;
            let per_rank = layers
                .config(model, None)
                .map_err(AdapterError::Target)?
                .num_trainable_params()
                .max(1);
            let room = num_params.saturating_sub(shape.num_params());
            layers.rank = ((room + per_rank / 2) / per_rank).clamp(1, widest);
            rest = num_params.saturating_sub(layers.rank * per_rank);
        }
        let mut config = LoraConfig::new(shape).with_scale(self.scale).sized_to(rest);
        config.shape.rank = config.shape.rank.min(widest);
        lora.head = HeadAdaptation::Lora { config };
        Ok(lora)
    }

    fn hypernetwork(&self, kind: GeneratorKind, shape: FactorShape) -> HyperLoraHeadConfig {
        let mut config = HyperLoraHeadConfig::preset(kind, shape.in_size, shape);
        match &mut config.generator {
            GeneratorConfig::Core(core) => {
                core.scale = self.scale;
                core.hidden_sizes.clone_from(&self.hidden_sizes);
                core.dropout = self.dropout;
            }
            GeneratorConfig::Dense(dense) => {
                dense.scale = self.scale;
                dense.hidden_sizes.clone_from(&self.hidden_sizes);
                dense.dropout = self.dropout;
            }
        }
        config
    }
}

/// An untrained adapter, on the autodiff device of the model.
///
/// # Errors
///
/// When the configuration names modules that the model does not have.
pub fn untrained(
    config: &AdapterConfig,
    data: &TrainingData,
) -> Result<AdapterModule, TrainingError> {
    let device = autodiff_device(data.model());
    let mut module = adapter::empty_module(config, data.model(), &device)?;
    if let HeadAdapter::Hyper(head) = module.head {
        let norm = ConditionNorm::fit(data.train.data.prompt_embeddings.clone());
        module.head = HeadAdapter::Hyper(head.with_condition_norm(norm));
    }
    let prompt_norm = data.prompt_norm.clone();
    Ok(module.with_prompt_norm(prompt_norm.map(|norm| norm.to_device(&device))))
}

/// The device on which adapters of a model train.
pub(crate) fn autodiff_device(model: &LanguageModel) -> Device {
    model.head_weight().device().autodiff()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_as_the_method_that_has_it() {
        for &method in Method::ALL {
            assert_eq!(method.to_string().parse(), Ok(method));
        }
        assert_eq!(Method::ALL[16].to_string(), "core-memory-constant");
        assert!("core-nothing".parse::<Method>().is_err());
    }

    #[test]
    fn the_older_spelling_of_redrawn_controls_is_read() {
        assert_eq!("core-shuffled".parse::<Method>(), "core-redrawn".parse());
        assert_eq!(
            "lora-memory-shuffled".parse::<Method>(),
            "lora-memory-redrawn".parse()
        );
    }
}
