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
use chameleon_hypernet::Condition;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use crate::adaptation::{Adaptation, LayerLora, Trainee, UnknownTarget};
use crate::atomic_file;
use crate::error::ModelError;
use crate::identity::ModelIdentity;
use crate::language_model::LanguageModel;
use crate::train::{Cursor, TrainOptions};

/// The version of the folder's format that this crate writes and reads.
pub const FORMAT_VERSION: u32 = 1;

const CONFIG_FILE: &str = "adapter_config.json";
const TENSOR_FILE: &str = "adapter.safetensors";
const STATE_FOLDER: &str = "training_state";
const STEP_PREFIX: &str = "step-";
const STATE_FILE: &str = "state.json";
const STATE_TENSORS: &str = "trainee.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.burnpack";
const CENTROIDS: &str = "centroids";

/// How examples were made, which inference must repeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
#[non_exhaustive]
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

/// What `training_state/` holds besides the trained tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingState {
    /// Where training stands.
    pub cursor: Cursor,
    /// Ties the state to its data: a resumed run must see the same examples.
    pub data_fingerprint: String,
    /// Held-out loss of the best epoch so far, nats per token.
    pub best_valid_nll: Option<f64>,
}

/// An interrupted training, read back.
#[derive(Debug)]
pub struct Checkpoint {
    /// The adapter as it stood.
    pub adapter: Adapter,
    /// Where training stands.
    pub state: TrainingState,
    /// For [`Trainer::resume`](crate::train::Trainer::resume).
    pub optimizer_state: Vec<u8>,
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
    #[error("{} describes an impossible adapter: {reason}", path.display())]
    Impossible {
        /// The file.
        path: PathBuf,
        /// What cannot work.
        reason: String,
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
    /// The optimizer's state cannot be serialised or read.
    #[error("cannot handle the optimizer's state")]
    Optimizer(#[source] burn::store::RecordError),
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
        let config = read_config(folder)?;
        if config.base != *identity {
            return Err(AdapterError::OtherBase {
                expected: config.base.to_string(),
                found: identity.to_string(),
            });
        }
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
    match impossible(&config) {
        Some(reason) => Err(AdapterError::Impossible { path, reason }),
        None => Ok(config),
    }
}

/// Writes an adapter folder from its parts.
///
/// # Errors
///
/// When a file cannot be written.
pub fn save(
    folder: &Path,
    config: &AdapterConfig,
    trainee: &Trainee,
    centroids: &Tensor<2>,
) -> Result<(), AdapterError> {
    create_folder(folder)?;
    // The configuration comes last: a folder that has one is complete.
    let tensors = tensor_bytes(trainee, centroids);
    atomic_file::write(&folder.join(TENSOR_FILE), &tensors)?;
    let json = serde_json::to_vec_pretty(config).expect("a configuration is plain data");
    atomic_file::write(&folder.join(CONFIG_FILE), &json)?;
    Ok(())
}

/// Writes everything a resumed training needs under a name of its own, then removes the older ones:
/// at every moment one complete state is there.
///
/// # Errors
///
/// When a file cannot be written.
pub fn save_training_state(
    folder: &Path,
    config: &AdapterConfig,
    trainee: &Trainee,
    centroids: &Tensor<2>,
    optimizer_state: &[u8],
    state: &TrainingState,
) -> Result<(), AdapterError> {
    let states = folder.join(STATE_FOLDER);
    create_folder(&states)?;
    let json = serde_json::to_vec_pretty(state).expect("a state is plain data");
    let config = serde_json::to_vec_pretty(config).expect("a configuration is plain data");
    let own = states.join(format!("{STEP_PREFIX}{}", state.cursor.step));
    atomic_file::write_folder(&own, |folder| {
        atomic_file::write(&folder.join(CONFIG_FILE), &config)?;
        atomic_file::write(
            &folder.join(STATE_TENSORS),
            &tensor_bytes(trainee, centroids),
        )?;
        atomic_file::write(&folder.join(OPTIMIZER_FILE), optimizer_state)?;
        atomic_file::write(&folder.join(STATE_FILE), &json)
    })?;
    for (step, path) in states_in(&states)? {
        if step != state.cursor.step {
            std::fs::remove_dir_all(&path).map_err(|source| AdapterError::Read { path, source })?;
        }
    }
    Ok(())
}

/// The training states in a folder with their steps.
fn states_in(states: &Path) -> Result<Vec<(usize, PathBuf)>, AdapterError> {
    let failed = |source| AdapterError::Read {
        path: states.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(states).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let step = name
            .to_str()
            .and_then(|name| name.strip_prefix(STEP_PREFIX))
            .and_then(|step| step.parse().ok());
        if let Some(step) = step {
            found.push((step, entry.path()));
        }
    }
    Ok(found)
}

/// Reads the last training state, or `None` when the folder has none.
///
/// # Errors
///
/// When it is damaged or for another base model.
pub fn load_training_state(
    folder: &Path,
    model: &LanguageModel,
    identity: &ModelIdentity,
    device: &Device,
) -> Result<Option<Checkpoint>, AdapterError> {
    let states = folder.join(STATE_FOLDER);
    if !states.is_dir() {
        return Ok(None);
    }
    let Some((_, folder)) = states_in(&states)?.into_iter().max() else {
        return Ok(None);
    };
    let config = read_config(&folder)?;
    if config.base != *identity {
        return Err(AdapterError::OtherBase {
            expected: config.base.to_string(),
            found: identity.to_string(),
        });
    }
    let path = folder.join(STATE_FILE);
    let state = serde_json::from_slice(&read(&path)?)
        .map_err(|source| AdapterError::Config { path, source })?;
    let optimizer_state = read(&folder.join(OPTIMIZER_FILE))?;
    let adapter = load_tensors(&folder.join(STATE_TENSORS), config, model, device)?;
    Ok(Some(Checkpoint {
        adapter,
        state,
        optimizer_state,
    }))
}

/// Removes the training state of a finished run.
///
/// # Errors
///
/// When it is there and cannot be removed.
pub fn remove_training_state(folder: &Path) -> Result<(), AdapterError> {
    let path = folder.join(STATE_FOLDER);
    match std::fs::remove_dir_all(&path) {
        Ok(()) => Ok(()),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(AdapterError::Read { path, source }),
    }
}

#[derive(Deserialize)]
struct VersionOnly {
    format_version: u32,
}

fn read(path: &Path) -> Result<Vec<u8>, AdapterError> {
    std::fs::read(path).map_err(|source| AdapterError::Read {
        path: path.to_owned(),
        source,
    })
}

fn create_folder(folder: &Path) -> Result<(), AdapterError> {
    std::fs::create_dir_all(folder).map_err(|source| AdapterError::Read {
        path: folder.to_owned(),
        source,
    })
}

/// Sizes that would panic or exhaust memory further on.
fn impossible(config: &AdapterConfig) -> Option<String> {
    let checked = match &config.head {
        Adaptation::Lora { config } | Adaptation::Experts { config, .. } => config.check(),
        Adaptation::Hyper { config } => config.check(),
    };
    if let Err(error) = checked {
        return Some(error.to_string());
    }
    let (shape, sizes) = (config.head.shape(), &config.base.sizes);
    if [shape.in_size, shape.out_size] != [sizes.hidden_size, sizes.vocab_size] {
        return Some(format!(
            "factors for {} x {} on a head of {} x {}",
            shape.in_size, shape.out_size, sizes.hidden_size, sizes.vocab_size
        ));
    }
    if shape.rank > sizes.hidden_size {
        return Some(format!(
            "rank {} is above the hidden size {}",
            shape.rank, sizes.hidden_size
        ));
    }
    if let Adaptation::Hyper { config: head } = &config.head
        && head.generator.condition_size() != sizes.hidden_size
    {
        return Some("the condition has another width than the model".to_owned());
    }
    if config.num_clusters == 0 || config.num_clusters > MAX_CLUSTERS {
        return Some(format!("{} clusters", config.num_clusters));
    }
    None
}

/// More clusters than any run has; bounds what a damaged file can ask for.
const MAX_CLUSTERS: usize = 1 << 20;

/// Which tensors of a trainee belong to the adapter: all of the head, and the LoRA factors of the trunk.
fn is_adapter_tensor(name: &str) -> bool {
    name.starts_with("head.") || name.contains(".lora.")
}

fn tensor_bytes(trainee: &Trainee, centroids: &Tensor<2>) -> Vec<u8> {
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

fn load_tensors(
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

/// A trainee of the right shape, its values still to be loaded.
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
