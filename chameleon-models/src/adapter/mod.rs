//! The adapter folder, which training writes and inference reads.
//!
//! ```text
//! adapter_config.json    format version, base model, recipe, sizes, condition
//! adapter.safetensors    `head.*`, `layers.*`, `centroids`
//! memory.safetensors     the groups' memories, if there are any
//! groups/                exemplars of groups by key, if there are any
//! training_state/step-N  state.json, optimizer.burnpack, trainee.safetensors: for --resume
//! ```
//!
//! The format is described in `docs/reference/adapter-format.md`. The contents of a folder are validated: every tensor must
//! exist, have the shape given by the configuration, and hold finite values.

pub(crate) mod adaptation;
pub(crate) mod exemplar_states;
pub(crate) mod exemplar_store;
pub(crate) mod exemplar_use;
pub(crate) mod group_memory;
pub(crate) mod identity;
pub(crate) mod layer_adaptation;
pub(crate) mod learned_steps;
pub(crate) mod prompts;

mod config;
mod error;
mod memory;
mod tensors;

use std::path::Path;

use burn::tensor::{Device, Tensor};
use chameleon_hypernet::{ConditionNorm, ConditionScaling, LearnedSteps};

pub use self::adaptation::{
    AdapterModule, FactorProducer, GroupFactors, HeadAdaptation, HeadAdapter, head_shape,
};
pub(crate) use self::config::read_config_for;
pub use self::config::{AdapterConfig, MemoryDescription, Recipe, check_memory, read_config};
pub use self::error::{AdapterError, ImpossibleAdapter};
pub use self::exemplar_states::ExemplarStates;
pub use self::exemplar_store::{
    Added, Exemplar, ExemplarStore, ExemplarStoreError, GroupExemplars, ImpossibleExemplars,
    InvalidKey, MAX_KEY_BYTES, NewExemplar, StoreLimits,
};
pub use self::exemplar_use::{AttentionConfig, ExemplarUse, StepsConfig};
pub use self::group_memory::{
    GroupMemories, MemoryConfig, MemoryError, MemorySource, TextsWithStates,
};
pub use self::identity::ModelIdentity;
pub use self::layer_adaptation::{
    LayerAdaptation, LayerKind, LayerRange, NotALayerRange, UnknownTarget,
};
pub use self::memory::{AdapterMemory, MemoryMatch};
pub use self::prompts::{PromptEncoding, Representation, UnknownRepresentation, embed_prompts};
pub(crate) use self::tensors::{load_tensors, tensor_bytes};
use crate::adapter::prompts::represent_prompts;
use crate::families::causal_lm::CausalLm;
use crate::families::language_model::LanguageModel;
use crate::files::atomic_file;
use crate::files::fingerprint::Fingerprint;

/// The version of the folder's format that this crate writes.
pub const FORMAT_VERSION: u32 = 5;

/// The oldest version that this crate reads.
pub const OLDEST_VERSION: u32 = 1;

pub(crate) const CONFIG_FILE: &str = "adapter_config.json";
const TENSOR_FILE: &str = "adapter.safetensors";
const MEMORY_FILE: &str = "memory.safetensors";

/// A trained adapter.
#[derive(Debug)]
pub struct Adapter {
    /// Its description.
    pub config: AdapterConfig,
    /// The trained tensors.
    pub module: AdapterModule,
    /// `[clusters, hidden]`
    pub centroids: Tensor<2>,
    /// The groups' memories; their description is in the configuration too.
    pub memory: Option<AdapterMemory>,
}

impl Adapter {
    /// The same with this memory, which replaces any other.
    #[must_use]
    pub fn with_memory(mut self, memory: AdapterMemory) -> Self {
        self.config.memory = Some(memory.description.clone());
        self.memory = Some(memory);
        self
    }

    /// The same without memory.
    #[must_use]
    pub fn without_memory(mut self) -> Self {
        self.config.memory = None;
        self.memory = None;
        self
    }

    /// Writes the folder's configuration and tensors, each replaced atomically.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), AdapterError> {
        if let Some(memory) = &self.memory {
            // Written before the configuration that refers to it.
            create_folder(folder)?;
            atomic_file::write(&folder.join(MEMORY_FILE), &memory::memory_bytes(memory))?;
        }
        save(folder, &self.config, &self.module, &self.centroids)
    }

    /// Reads a folder for `model`.
    ///
    /// # Errors
    ///
    /// When the folder is unreadable, damaged, of another version or for another base model.
    pub fn load(
        folder: &Path,
        model: &LanguageModel,
        identity: &ModelIdentity,
        device: &Device,
    ) -> Result<Self, AdapterError> {
        let config = read_config_for(folder, identity)?;
        config
            .check_positions(model)
            .map_err(|source| AdapterError::Impossible {
                path: folder.join(CONFIG_FILE),
                source,
            })?;
        let mut adapter = load_tensors(&folder.join(TENSOR_FILE), config, model, device)?;
        if let Some(description) = adapter.config.memory.clone() {
            let path = folder.join(MEMORY_FILE);
            let memory = memory::load_memory(&path, description, &adapter.config, device)?;
            adapter.memory = Some(memory);
        }
        Ok(adapter)
    }

    /// SHA-256 of the configuration, of every trained parameter and of the memory.
    ///
    /// # Panics
    ///
    /// When a trained tensor cannot be read back from its device.
    pub fn fingerprint(&self) -> Fingerprint {
        let config = serde_json::to_vec(&self.config).expect("a configuration is plain data");
        let builder = Fingerprint::builder()
            .part("config", &config)
            .part("tensors", &tensor_bytes(&self.module, &self.centroids));
        match &self.memory {
            Some(memory) => builder.part("memory", &memory::memory_bytes(memory)),
            None => builder,
        }
        .finish()
    }
}

impl Adapter {
    /// Embeds prompts as this adapter does, for grouping and conditions. Pass conditioning spans only.
    ///
    /// # Shapes
    ///
    /// - output: `[prompts, hidden]`
    ///
    /// # Panics
    ///
    /// When there is no prompt, or one is empty.
    pub fn embed_prompts(&self, model: &impl CausalLm, prompts: &[&[u32]]) -> Tensor<2> {
        let representation = self.config.prompts.representation;
        let prompts = represent_prompts(model, representation, prompts);
        match &self.module.prompt_norm {
            Some(norm) => norm.forward(prompts),
            None => prompts,
        }
    }
}

/// Writes an adapter folder from its parts.
///
/// # Errors
///
/// When a file cannot be written.
///
/// # Panics
///
/// When a trained tensor cannot be read back from its device.
pub fn save(
    folder: &Path,
    config: &AdapterConfig,
    module: &AdapterModule,
    centroids: &Tensor<2>,
) -> Result<(), AdapterError> {
    create_folder(folder)?;
    // The configuration comes last: a new folder that has one is complete. Within one run it never changes.
    let tensors = tensor_bytes(module, centroids);
    atomic_file::write(&folder.join(TENSOR_FILE), &tensors)?;
    let json = serde_json::to_vec_pretty(config).expect("a configuration is plain data");
    atomic_file::write(&folder.join(CONFIG_FILE), &json)?;
    Ok(())
}

/// A module before its first training step, or before its parameters are loaded.
///
/// # Errors
///
/// When the model has no module named by a target of the layers, or there are no learned steps.
pub fn empty_module(
    config: &AdapterConfig,
    model: &LanguageModel,
    device: &Device,
) -> Result<AdapterModule, AdapterError> {
    let head = config.head.init(config.seed.derive("head"), device);
    let layers = match &config.layers {
        None => None,
        Some(layers) => {
            let layers = layers.config(model, config.head.num_features())?;
            Some(layers.init(config.seed.derive("layers"), device))
        }
    };
    let learned = config.exemplars.and_then(ExemplarUse::steps);
    let steps = match (learned, &layers) {
        (Some(steps), Some(layers)) => {
            let num_tensors = 2 * layers.modules().len();
            let steps = LearnedSteps::new(steps.num_steps, num_tensors, device);
            Some(steps.map_err(|source| AdapterError::Impossible {
                path: CONFIG_FILE.into(),
                source: source.into(),
            })?)
        }
        _ => None,
    };
    let prompt_norm = match config.prompts.scaling {
        ConditionScaling::Standardised => {
            let hidden_size = config.base.sizes.hidden_size;
            Some(ConditionNorm::identity(hidden_size, device))
        }
        _ => None,
    };
    Ok(AdapterModule::new(head, layers, steps).with_prompt_norm(prompt_norm))
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, AdapterError> {
    std::fs::read(path).map_err(|source| AdapterError::Read {
        path: path.to_owned(),
        source,
    })
}

pub(crate) fn create_folder(folder: &Path) -> Result<(), AdapterError> {
    std::fs::create_dir_all(folder).map_err(|source| AdapterError::CreateFolder {
        path: folder.to_owned(),
        source,
    })
}
