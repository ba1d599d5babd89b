//! What is trained on top of a frozen model, and the module that holds it.
//!
//! The frozen model itself is only part of the trained module when layers inside it carry LoRA; a
//! head-only adaptation works on hidden states and never touches the trunk.

use burn::module::{Lora, Module, ModuleMapper, ModuleVisitor, Param, ParamGroup};
use burn::tensor::{Device, Tensor};
use chameleon_core::{FactorShape, LoraFactors, RunSeed};
use chameleon_hypernet::{
    FactorGenerator, GroupedFactors, HyperLoraHead, HyperLoraHeadConfig, LoraHeadConfig, StaticHead,
};
use serde::{Deserialize, Serialize};

use crate::causal_lm::CausalLm;
use crate::language_model::LanguageModel;

/// How the language-model head is adapted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Adaptation {
    /// One LoRA for every prompt.
    Lora {
        /// The factors.
        config: LoraHeadConfig,
    },
    /// One LoRA for each cluster: what a store of experts would hold.
    Experts {
        /// The factors of each.
        config: LoraHeadConfig,
        /// How many there are.
        num_clusters: usize,
    },
    /// Factors generated from a condition.
    Hyper {
        /// The hypernetwork and its static part.
        config: HyperLoraHeadConfig,
    },
}

/// Plain LoRA on named modules of the frozen transformer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerLora {
    /// Names of linear modules in every layer, such as `q_proj`.
    pub targets: Vec<String>,
    /// LoRA rank.
    pub rank: usize,
    /// The multiplier of the factors.
    pub scale: f64,
}

/// The adapted head of a model.
#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a program holds one or two of these, and boxing would hide the module's fields"
)]
pub enum HeadAdapter {
    /// One LoRA for every prompt.
    Lora(StaticHead),
    /// One LoRA for each cluster.
    Experts(Vec<StaticHead>),
    /// Factors generated from a condition.
    Hyper(HyperLoraHead),
}

impl Adaptation {
    /// A head whose weights depend on `seed` and on nothing else.
    ///
    /// # Panics
    ///
    /// When the configuration's own `check` would refuse it.
    pub fn init(&self, seed: RunSeed, device: &Device) -> HeadAdapter {
        match self {
            Self::Lora { config } => HeadAdapter::Lora(config.init(seed, device)),
            Self::Experts {
                config,
                num_clusters,
            } => HeadAdapter::Experts(
                // Every expert starts from the same factors: they differ by what they see.
                (0..*num_clusters)
                    .map(|_| config.init(seed, device))
                    .collect(),
            ),
            Self::Hyper { config } => HeadAdapter::Hyper(config.init(seed, device)),
        }
    }

    /// Numbers that training moves in the head.
    pub fn num_trainable_params(&self) -> usize {
        match self {
            Self::Lora { config } => config.num_trainable_params(),
            Self::Experts {
                config,
                num_clusters,
            } => num_clusters * config.num_trainable_params(),
            Self::Hyper { config } => config.num_trainable_params(),
        }
    }

    /// Sizes of the head this adaptation is for.
    pub fn shape(&self) -> FactorShape {
        match self {
            Self::Lora { config } | Self::Experts { config, .. } => config.shape,
            Self::Hyper { config } => config.generator.shape(),
        }
    }
}

impl HeadAdapter {
    /// The factors for a group: one pair, or one for each condition.
    ///
    /// # Shapes
    ///
    /// - `conditions`: `[conditions, hidden]`
    /// - output: `a` `[hidden, rank]` and `b` `[rank, vocab]` each
    ///
    /// # Panics
    ///
    /// When there is no expert for the cluster.
    pub fn factors(&self, cluster_idx: usize, conditions: Tensor<2>) -> Vec<LoraFactors> {
        match self {
            Self::Lora(head) => vec![head.factors()],
            Self::Experts(heads) => vec![heads[cluster_idx].factors()],
            Self::Hyper(head) => head.factors(conditions),
        }
    }

    /// Factors of several groups of this head side by side.
    ///
    /// # Panics
    ///
    /// When there is none, or they are not this head's.
    pub fn join(&self, factors: Vec<LoraFactors>) -> GroupedFactors {
        let shares_b = match self {
            Self::Lora(_) => true,
            Self::Experts(_) => false,
            Self::Hyper(head) => matches!(head.generator, FactorGenerator::Core(_)),
        };
        if shares_b {
            GroupedFactors::join_sharing_b(factors)
        } else {
            GroupedFactors::join(factors)
        }
    }
}

/// Everything an optimizer moves: the adapted head, and the trunk if its layers carry LoRA.
#[derive(Module, Debug)]
pub struct Trainee {
    /// The adapted head.
    pub head: HeadAdapter,
    /// The frozen transformer with LoRA inside.
    pub trunk: Option<LanguageModel>,
}

impl Trainee {
    /// A head-only trainee.
    pub fn head_only(head: HeadAdapter) -> Self {
        Self { head, trunk: None }.with_stable_ids()
    }

    /// A trainee whose trunk carries plain LoRA through Burn's [`Lora`].
    ///
    /// # Errors
    ///
    /// [`UnknownTarget`] names the first target that is no linear module of the model.
    pub fn with_layers(
        head: HeadAdapter,
        trunk: LanguageModel,
        layers: &LayerLora,
        seed: RunSeed,
        device: &Device,
    ) -> Result<Self, UnknownTarget> {
        check_targets(&trunk, &layers.targets)?;
        // Burn draws the factors from the device's generator.
        device.seed(seed.derive("layer-lora").0);
        let paths: Vec<_> = layers
            .targets
            .iter()
            .map(|target| format!(".{target}.weight"))
            .collect();
        let lora = Lora::new(layers.rank, layers.scale * layers.rank as f64)
            .set_param_group(ParamGroup::from_any_predicates(paths));
        let trunk = trunk.to_device(device).apply_lora(lora);
        Ok(Self {
            head,
            trunk: Some(trunk),
        }
        .with_stable_ids())
    }

    /// Numbers that training moves.
    pub fn num_trainable_params(&self) -> usize {
        let mut counter = TrainableCounter(0);
        self.visit(&mut counter);
        counter.0
    }

    /// Names parameters by their place instead of by chance, so that an optimizer's state finds them
    /// again in another process.
    fn with_stable_ids(self) -> Self {
        self.map(&mut StableIds { path: Vec::new() })
    }
}

/// A target that names no linear module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the model has no module `{name}`; its linear modules are: {known}")]
pub struct UnknownTarget {
    /// What was asked for.
    pub name: String,
    /// The names that exist, comma-separated.
    pub known: String,
}

/// Refuses targets that are no linear modules of the transformer layers.
///
/// # Errors
///
/// Names the first one.
pub fn check_targets(model: &LanguageModel, targets: &[String]) -> Result<(), UnknownTarget> {
    let known = linear_modules(model);
    match targets.iter().find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(target) => Err(UnknownTarget {
            name: target.clone(),
            known: known.join(", "),
        }),
    }
}

/// The names of the linear modules of the transformer layers, each once.
pub fn linear_modules(model: &LanguageModel) -> Vec<String> {
    let mut names = LinearNames {
        path: Vec::new(),
        found: Vec::new(),
    };
    model.visit(&mut names);
    names.found
}

struct LinearNames {
    path: Vec<String>,
    found: Vec<String>,
}

impl ModuleVisitor for LinearNames {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
        // A layer's linear module is `layers.N.block.module.weight`; embeddings and heads lie higher up.
        let [.., module, tensor] = self.path.as_slice() else {
            return;
        };
        let in_layer = self.path.iter().any(|part| part.parse::<usize>().is_ok());
        if D == 2 && in_layer && tensor == "weight" && !self.found.contains(module) {
            self.found.push(module.clone());
        }
    }
}

struct TrainableCounter(usize);

impl ModuleVisitor for TrainableCounter {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if param.is_require_grad() {
            self.0 += param.lazy_shape().num_elements();
        }
    }
}

struct StableIds {
    path: Vec<String>,
}

impl ModuleMapper for StableIds {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        // Frozen weights have no state, and touching them would draw weights that loading replaces.
        if !param.is_require_grad() {
            return param;
        }
        let id = RunSeed(0).derive(&self.path.join(".")).0;
        let (_, tensor, mapper) = param.consume();
        Param::from_mapped_value(id.into(), tensor, mapper)
    }
}

/// The sizes of factors for the head of `model`.
pub fn head_shape(model: &impl CausalLm, rank: usize) -> FactorShape {
    let sizes = model.sizes();
    FactorShape {
        in_size: sizes.hidden_size,
        out_size: sizes.vocab_size,
        rank,
    }
}
