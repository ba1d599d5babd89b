//! The adapter folder: what training leaves behind and inference needs.
//!
//! ```text
//! adapter_config.json    format version, base model, recipe, sizes, condition
//! adapter.safetensors    `head.*`, `trunk.*.lora.*`, `centroids`
//! training_state/step-N  state.json, optimizer.burnpack, trainee.safetensors: for --resume
//! ```
//!
//! The format is described in `docs/adapter-format.md`. Nothing in a folder is believed: every tensor
//! must be there with the shape the configuration asks for, and hold finite numbers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::store::ModuleSnapshot;
use burn::tensor::{Bytes, DType, Device, Tensor, TensorData};
use burn_pack::Tensor as StoredTensor;
use chameleon_core::RunSeed;
use chameleon_hypernet::{Condition, FactorGeneratorConfig, HyperLoraHeadConfig, HypernetError};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::adaptation::{Adaptation, LayerLora, Trainee, UnknownTarget};
use crate::atomic_file;
use crate::error::ModelError;
use crate::identity::ModelIdentity;
use crate::language_model::LanguageModel;
use crate::train::TrainOptions;

/// The version of the folder's format that this crate writes and reads.
pub const FORMAT_VERSION: u32 = 1;

pub(crate) const CONFIG_FILE: &str = "adapter_config.json";
const TENSOR_FILE: &str = "adapter.safetensors";
const CENTROIDS: &str = "centroids";
const CONDITION_STD: &str = "head.condition_norm.std";

/// How examples were made, which inference must repeat.
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

/// `adapter_config.json`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterConfig {
    /// [`FORMAT_VERSION`] of the writer.
    pub format_version: u32,
    /// The model it was trained on; another one is refused.
    pub base: ModelIdentity,
    /// How examples were made.
    pub recipe: Recipe,
    /// The head.
    pub head: Adaptation,
    /// The layers, if they are adapted.
    pub layers: Option<LayerLora>,
    /// How a group becomes a condition.
    pub condition: Condition,
    /// Number of clusters.
    pub num_clusters: usize,
    /// How it was trained.
    pub training: TrainOptions,
    /// The seed of the run.
    pub seed: RunSeed,
}

/// A trained adapter.
#[derive(Debug)]
pub struct Adapter {
    /// Its description.
    pub config: AdapterConfig,
    /// The trained tensors.
    pub trainee: Trainee,
    /// `[clusters, hidden]`
    pub centroids: Tensor<2>,
}

/// Why an adapter folder cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// A file of the folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the folder cannot be written.
    #[error(transparent)]
    Write(#[from] ModelError),
    /// The configuration is not the JSON we write.
    #[error("{} is not an adapter configuration", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The folder was written by another version.
    #[error("{} has format version {found}, this build reads {FORMAT_VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The sizes in the configuration cannot work.
    #[error("{} describes an impossible adapter", path.display())]
    Impossible {
        /// The file.
        path: PathBuf,
        /// What cannot work.
        source: ImpossibleAdapter,
    },
    /// The adapter was trained on another model.
    #[error("the adapter was trained on {expected}, this model is {found}")]
    OtherBase {
        /// The model it was trained on.
        expected: String,
        /// The model it was to be put on.
        found: String,
    },
    /// The tensor file is damaged.
    #[error("{} is not a safetensors file", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: safetensors::SafeTensorError,
    },
    /// Tensors are missing, left over or of another shape.
    #[error("{} does not fit its configuration: {reason}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Which tensors, and how.
        reason: String,
    },
    /// A tensor holds NaN or infinity.
    #[error("tensor `{name}` in {} holds a value that is not finite", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A target of the layers is no module of the model.
    #[error(transparent)]
    Target(#[from] UnknownTarget),
    /// A folder cannot be made.
    #[error("cannot make the folder {}", path.display())]
    CreateFolder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder that is no longer needed cannot be removed.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Sizes that cannot make an adapter.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ImpossibleAdapter {
    /// A setting of the head is refused by the hypernetwork's own checks.
    #[error(transparent)]
    Head(#[from] HypernetError),
    /// The head's factors are for a head of other sizes.
    #[error("factors for {in_size} x {out_size} on a head of {hidden_size} x {vocab_size}")]
    HeadSizes {
        /// Input width of the factors.
        in_size: usize,
        /// Output width of the factors.
        out_size: usize,
        /// Input width of the head.
        hidden_size: usize,
        /// Output width of the head.
        vocab_size: usize,
    },
    /// A rank is zero, or above the width it is to be lower than.
    #[error("rank {rank} is not between 1 and the hidden size {hidden_size}")]
    Rank {
        /// The rank.
        rank: usize,
        /// The hidden size of the model.
        hidden_size: usize,
    },
    /// The hypernetwork's input is not as wide as a prompt embedding.
    #[error("a condition of {found} numbers, prompt embeddings have {hidden_size}")]
    ConditionSize {
        /// Width of the condition.
        found: usize,
        /// The hidden size of the model.
        hidden_size: usize,
    },
    /// A layer of the hypernetwork is absurdly wide, or there are too many.
    #[error("hidden layers {found:?} of a hypernetwork")]
    HiddenSizes {
        /// The widths.
        found: Vec<usize>,
    },
    /// No cluster, or absurdly many.
    #[error("{found} clusters")]
    Clusters {
        /// How many.
        found: usize,
    },
    /// The number of experts is not that of the clusters.
    #[error("{num_experts} experts for {num_clusters} clusters")]
    Experts {
        /// Experts of the head.
        num_experts: usize,
        /// Clusters of the adapter.
        num_clusters: usize,
    },
    /// The spans of the recipe leave nothing to look at or nothing to score.
    #[error("a prefix of {prefix} in sequences of {seq_len} tokens")]
    Spans {
        /// Tokens of the conditioning span.
        prefix: usize,
        /// Tokens of a whole example.
        seq_len: usize,
    },
}

impl Adapter {
    /// Writes the folder's configuration and tensors, each replaced in one step.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), AdapterError> {
        save(folder, &self.config, &self.trainee, &self.centroids)
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
        load_tensors(&folder.join(TENSOR_FILE), config, model, device)
    }
}

/// Reads `adapter_config.json` alone.
///
/// # Errors
///
/// When it is unreadable, damaged, of another version or describes sizes that cannot work.
pub fn read_config(folder: &Path) -> Result<AdapterConfig, AdapterError> {
    let path = folder.join(CONFIG_FILE);
    let text = read(&path)?;
    let broken = |source| AdapterError::Config {
        path: path.clone(),
        source,
    };
    // The version is looked at first: another version may mean another layout.
    let version: VersionOnly = serde_json::from_slice(&text).map_err(broken)?;
    if version.format_version != FORMAT_VERSION {
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

/// Reads `adapter_config.json` and refuses one for another base model.
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
    trainee: &Trainee,
    centroids: &Tensor<2>,
) -> Result<(), AdapterError> {
    create_folder(folder)?;
    // The configuration comes last: a new folder that has one is complete. Within one run it never changes.
    let tensors = tensor_bytes(trainee, centroids);
    atomic_file::write(&folder.join(TENSOR_FILE), &tensors)?;
    let json = serde_json::to_vec_pretty(config).expect("a configuration is plain data");
    atomic_file::write(&folder.join(CONFIG_FILE), &json)?;
    Ok(())
}

#[derive(Deserialize)]
struct VersionOnly {
    format_version: u32,
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

impl AdapterConfig {
    /// Refuses sizes that would panic or exhaust memory further on.
    ///
    /// # Errors
    ///
    /// Names the first setting that cannot work.
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
        }
        if self.num_clusters == 0 || self.num_clusters > MAX_CLUSTERS {
            return Err(ImpossibleAdapter::Clusters {
                found: self.num_clusters,
            });
        }
        let Recipe::Causal { prefix, seq_len } = self.recipe;
        if prefix == 0 || prefix >= seq_len {
            return Err(ImpossibleAdapter::Spans { prefix, seq_len });
        }
        match &self.head {
            Adaptation::Lora { config } => config.check()?,
            Adaptation::Experts {
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
            Adaptation::Hyper { config } => {
                if let Some(static_factors) = &config.static_factors {
                    check_rank(static_factors.shape.rank)?;
                }
                check_network(config, hidden_size)?;
                config.check()?;
            }
        }
        Ok(())
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
        FactorGeneratorConfig::Dense(config) => &config.hidden_sizes,
        FactorGeneratorConfig::Core(config) => &config.hidden_sizes,
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

// More than any run has; they bound what a damaged file can ask for.
const MAX_CLUSTERS: usize = 1 << 16;
const MAX_HIDDEN_LAYERS: usize = 8;
const MAX_HIDDEN_SIZE: usize = 1 << 13;

/// Which tensors of a trainee belong to the adapter: all of the head, and the LoRA factors of the trunk.
fn is_adapter_tensor(name: &str) -> bool {
    name.starts_with("head.") || name.contains(".lora.")
}

pub(crate) fn tensor_bytes(trainee: &Trainee, centroids: &Tensor<2>) -> Vec<u8> {
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = trainee
        .collect(None, None, true)
        .into_iter()
        .filter(|tensor| is_adapter_tensor(&tensor.name))
        .map(|tensor| {
            let (name, _, shape, _, bytes) = tensor
                .into_parts()
                .expect("a trained tensor can be read from its device");
            (name, shape.to_vec(), bytes.to_vec())
        })
        .collect();
    let data = centroids.to_data().convert::<f32>();
    tensors.push((
        CENTROIDS.to_owned(),
        centroids.dims().to_vec(),
        data.as_bytes().to_vec(),
    ));
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes)
            .expect("trained tensors are f32 and as long as their shape says");
        (name, view)
    });
    safetensors::serialize(views, None).expect("names are unique")
}

pub(crate) fn load_tensors(
    path: &Path,
    config: AdapterConfig,
    model: &LanguageModel,
    device: &Device,
) -> Result<Adapter, AdapterError> {
    let bytes = read(path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|source| AdapterError::Tensors {
        path: path.to_owned(),
        source,
    })?;
    // Nothing is allocated for a configuration that asks for more numbers than the file can hold.
    let num_params = config.head.num_trainable_params();
    if num_params > bytes.len() / size_of::<f32>() {
        return Err(mismatch(
            path,
            format!("the configuration asks for {num_params} numbers"),
        ));
    }
    let mut trainee = empty_trainee(&config, model, device)?;
    let expected = adapter_tensor_names(&trainee);
    let mut stored = Vec::new();
    let mut centroids = None;
    let mut found = BTreeSet::new();
    for (name, view) in file.iter() {
        let values = finite_f32(path, name, &view)?;
        if name == CENTROIDS {
            let shape = [config.num_clusters, config.base.sizes.hidden_size];
            if view.shape() != shape {
                return Err(mismatch(
                    path,
                    format!("`{name}` is {:?}, expected {shape:?}", view.shape()),
                ));
            }
            centroids = Some(Tensor::from_data(TensorData::new(values, shape), device));
            continue;
        }
        if name == CONDITION_STD && values.iter().any(|&value| value <= 0.0) {
            return Err(mismatch(path, format!("`{name}` is not positive")));
        }
        found.insert(name.to_owned());
        stored.push(StoredTensor::new(
            name.to_owned(),
            DType::F32,
            view.shape().to_vec(),
            None,
            Bytes::from_bytes_vec(view.data().to_vec()),
        ));
    }
    let names = |set: Vec<&String>| {
        set.into_iter()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let missing: Vec<_> = expected.difference(&found).collect();
    if !missing.is_empty() {
        return Err(mismatch(path, format!("missing {}", names(missing))));
    }
    let extra: Vec<_> = found.difference(&expected).collect();
    if !extra.is_empty() {
        return Err(mismatch(path, format!("unexpected {}", names(extra))));
    }
    let result = trainee.apply(stored, None, None, true);
    if let Some(error) = result.errors.first() {
        return Err(mismatch(path, error.to_string()));
    }
    let centroids = centroids.ok_or_else(|| mismatch(path, format!("missing `{CENTROIDS}`")))?;
    Ok(Adapter {
        config,
        trainee,
        centroids,
    })
}

fn mismatch(path: &Path, reason: String) -> AdapterError {
    AdapterError::Mismatch {
        path: path.to_owned(),
        reason,
    }
}

fn finite_f32(path: &Path, name: &str, view: &TensorView<'_>) -> Result<Vec<f32>, AdapterError> {
    if view.dtype() != Dtype::F32 {
        return Err(mismatch(
            path,
            format!("`{name}` is {:?}, expected F32", view.dtype()),
        ));
    }
    let values: Vec<f32> = view
        .data()
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("chunks of four")))
        .collect();
    if values.iter().all(|value| value.is_finite()) {
        Ok(values)
    } else {
        Err(AdapterError::NotFinite {
            path: path.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// A trainee before its first step, or one whose values are still to be loaded.
///
/// # Errors
///
/// When a target of the layers is no module of the model.
pub fn empty_trainee(
    config: &AdapterConfig,
    model: &LanguageModel,
    device: &Device,
) -> Result<Trainee, AdapterError> {
    let head = config.head.init(config.seed.derive("head"), device);
    Ok(match &config.layers {
        None => Trainee::head_only(head),
        Some(layers) => Trainee::with_layers(head, model.clone(), layers, config.seed, device)?,
    })
}

fn adapter_tensor_names(trainee: &Trainee) -> BTreeSet<String> {
    trainee
        .collect(None, None, true)
        .into_iter()
        .map(|tensor| tensor.name)
        .filter(|name| is_adapter_tensor(name))
        .collect()
}
