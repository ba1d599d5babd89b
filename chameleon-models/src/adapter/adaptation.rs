//! The adaptation of a head, and the module of all trainable parameters.
//!
//! The frozen model is not part of it: factors are produced for a batch and passed to the layers. Which modules
//! of the layers are adapted is defined by [`layer_adaptation`](super::layer_adaptation).

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use chameleon_core::{FactorShape, LoraFactors, RunSeed};
use chameleon_hypernet::{
    AdaptedLayers, ConditionNorm, GeneratedFactors, Generator, GroupLayers, GroupedFactors,
    HyperLoraHead, HyperLoraHeadConfig, LayerFactors, LearnedSteps, Lora, LoraConfig, SharedLayers,
};
use serde::{Deserialize, Serialize};

use crate::families::causal_lm::CausalLm;

/// The adaptation of the language-model head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum HeadAdaptation {
    /// One LoRA for every prompt.
    Lora {
        /// The factors.
        config: LoraConfig,
    },
    /// One LoRA for each cluster.
    Experts {
        /// The factors of each.
        config: LoraConfig,
        /// Number of clusters.
        num_clusters: usize,
    },
    /// Factors generated from a condition.
    Hyper {
        /// The hypernetwork and its static part.
        config: HyperLoraHeadConfig,
    },
}

/// The adapted head of a model.
#[derive(Module, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a program holds one or two of these, and boxing would hide the module's fields"
)]
pub enum HeadAdapter {
    /// One LoRA for every prompt.
    Lora(Lora),
    /// One LoRA for each cluster.
    Experts(Vec<Lora>),
    /// Factors generated from a condition.
    Hyper(HyperLoraHead),
}

impl HeadAdaptation {
    /// A head whose weights depend on `seed` and on nothing else.
    ///
    /// # Panics
    ///
    /// When the configuration's own `check` refuses it.
    pub fn init(&self, seed: RunSeed, device: &Device) -> HeadAdapter {
        match self {
            Self::Lora { config } => HeadAdapter::Lora(config.init(seed, device)),
            Self::Experts {
                config,
                num_clusters,
            } => HeadAdapter::Experts(
                // Every expert starts from the same factors: they differ by their training data.
                (0..*num_clusters)
                    .map(|_| config.init(seed, device))
                    .collect(),
            ),
            Self::Hyper { config } => HeadAdapter::Hyper(config.init(seed, device)),
        }
    }

    /// Trainable parameters of the head.
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

    /// Features of the hypernetwork, from which layers may take their cores; `None` without a hypernetwork.
    pub fn num_features(&self) -> Option<usize> {
        match self {
            Self::Lora { .. } | Self::Experts { .. } => None,
            Self::Hyper { config } => Some(config.generator.num_features()),
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
    /// A generated head standardises its conditions by the mean and variance of the training prompts.
    ///
    /// # Shapes
    ///
    /// - `prompts`: `[prompts, hidden]`
    #[must_use]
    pub(crate) fn with_condition_norm_of(self, prompts: &Tensor<2>) -> Self {
        match self {
            Self::Hyper(head) => {
                Self::Hyper(head.with_condition_norm(ConditionNorm::fit(prompts.clone())))
            }
            other => other,
        }
    }

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
    /// When there are no factors, or they are not this head's.
    pub fn join(&self, factors: Vec<LoraFactors>) -> GroupedFactors {
        let shares_b = match self {
            Self::Lora(_) => true,
            Self::Experts(_) => false,
            Self::Hyper(head) => matches!(head.generator, Generator::Core(_)),
        };
        if shares_b {
            GroupedFactors::join_sharing_b(factors)
        } else {
            GroupedFactors::join(factors)
        }
    }
}

/// All trainable parameters: the adapted head, and the adapted modules inside the layers.
#[derive(Module, Debug)]
pub struct AdapterModule {
    /// Standardises prompt embeddings; not trained.
    pub prompt_norm: Option<ConditionNorm>,
    /// The adapted head.
    pub head: HeadAdapter,
    /// The adapted layers, if any are.
    pub layers: Option<AdaptedLayers>,
    /// The steps that adapt the layers to the exemplars of a group, if they are learned.
    pub steps: Option<LearnedSteps>,
}

impl AdapterModule {
    /// A module whose parameters have ids derived from their position instead of random ones, so that a saved optimizer
    /// state applies to them in another process.
    pub fn new(
        head: HeadAdapter,
        layers: Option<AdaptedLayers>,
        steps: Option<LearnedSteps>,
    ) -> Self {
        let module = Self {
            prompt_norm: None,
            head,
            layers,
            steps,
        };
        module.map(&mut StableIds { path: Vec::new() })
    }

    /// The same with the statistics of the training prompts.
    #[must_use]
    pub fn with_prompt_norm(mut self, norm: Option<ConditionNorm>) -> Self {
        self.prompt_norm = norm;
        self
    }

    /// A head-only module.
    pub fn head_only(head: HeadAdapter) -> Self {
        Self::new(head, None, None)
    }

    /// A producer of the factors of groups, from the current parameters.
    pub fn factor_producer(&self) -> FactorProducer {
        FactorProducer {
            head: self.head.clone(),
            layers: self.layers.as_ref().map(AdaptedLayers::shared),
        }
    }

    /// Trainable parameters.
    pub fn num_trainable_params(&self) -> usize {
        let mut counter = TrainableCounter(0);
        self.visit(&mut counter);
        counter.0
    }
}

/// Produces the factors of groups. Keep it as long as the module does not change: its factors share the tensors that are
/// the same for all groups, so that the rows of a batch are computed together.
#[derive(Debug, Clone)]
pub struct FactorProducer {
    head: HeadAdapter,
    layers: Option<SharedLayers>,
}

/// The factors of one group.
#[derive(Debug, Clone)]
pub struct GroupFactors {
    /// At the head.
    pub head: LoraFactors,
    /// Inside the layers, if they are adapted.
    pub layers: Option<GroupLayers>,
}

impl FactorProducer {
    /// The factors for a group: one set, or one for each condition.
    ///
    /// # Shapes
    ///
    /// - `conditions`: `[conditions, hidden]`
    ///
    /// # Panics
    ///
    /// When there is no expert for the cluster.
    pub fn groups(&self, cluster_idx: usize, conditions: Tensor<2>) -> Vec<GroupFactors> {
        let HeadAdapter::Hyper(head) = &self.head else {
            let factors = self.head.factors(cluster_idx, conditions);
            let group = |head| GroupFactors {
                head,
                layers: self.layers.as_ref().map(SharedLayers::for_all_groups),
            };
            return factors.into_iter().map(group).collect();
        };
        let GeneratedFactors { factors, features } = head.generate(conditions);
        match &self.layers {
            None => factors
                .into_iter()
                .map(|head| GroupFactors { head, layers: None })
                .collect(),
            Some(layers) => factors
                .into_iter()
                .zip(layers.groups(features))
                .map(|(head, layers)| GroupFactors {
                    head,
                    layers: Some(layers),
                })
                .collect(),
        }
    }
}

/// The factors of the layers for a batch: those of its only group, or of the group of each row.
///
/// # Panics
///
/// When there is neither one group nor one for each row.
pub(crate) fn layer_factors(groups: &[GroupFactors], num_rows: usize) -> LayerFactors {
    match groups {
        [] => LayerFactors::none(),
        [group] => group
            .layers
            .as_ref()
            .map_or_else(LayerFactors::none, GroupLayers::for_batch),
        groups => {
            assert_eq!(groups.len(), num_rows, "one group, or one for each row");
            let rows: Vec<_> = groups.iter().map(|group| group.layers.as_ref()).collect();
            LayerFactors::for_rows(&rows)
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
        // Frozen weights have no optimizer state, and reading them would initialise weights that loading replaces.
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
