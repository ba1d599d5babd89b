//! An adapter before its first step: its description and its initial parameters.

use burn::module::Module as _;
use burn::tensor::Device;
use chameleon_core::{FactorShape, RunSeed};
use chameleon_hypernet::{GeneratorConfig, GeneratorKind, HyperLoraHeadConfig, LoraConfig};

use crate::adapter::adaptation::{AdapterModule, HeadAdaptation, head_shape};
use crate::adapter::layer_adaptation::{LayerAdaptation, LayerKind};
use crate::adapter::{self, AdapterConfig, AdapterError, FORMAT_VERSION, Recipe};
use crate::families::causal_lm::CausalLm;
use crate::families::language_model::LanguageModel;
use crate::training::config::{AdapterOptions, TrainingConfig};
use crate::training::error::TrainingError;
use crate::training::method::Head;
use crate::training::prepare::TrainingData;

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
            exemplars: self.exemplars(head),
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
            Head::Frozen | Head::Lora | Head::Attention | Head::Steps => {
                (HeadAdaptation::Lora { config: lora }, LayerKind::Lora)
            }
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
pub(crate) fn untrained(
    config: &AdapterConfig,
    data: &TrainingData,
) -> Result<AdapterModule, TrainingError> {
    let device = autodiff_device(data.model());
    let mut module = adapter::empty_module(config, data.model(), &device)?;
    let prompts = &data.train.data.prompt_embeddings;
    module.head = module.head.with_condition_norm_of(prompts);
    let prompt_norm = data.prompt_norm.clone();
    Ok(module.with_prompt_norm(prompt_norm.map(|norm| norm.to_device(&device))))
}

/// The device on which adapters of a model train.
pub(crate) fn autodiff_device(model: &LanguageModel) -> Device {
    model.head_weight().device().autodiff()
}
