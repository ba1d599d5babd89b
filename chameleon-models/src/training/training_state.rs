//! The state from which a training resumes: `training_state/step-N/` inside an adapter folder.
//!
//! Each state has its own name, and older ones are removed once it is complete, so that one complete state exists
//! whenever the program is killed.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::adapter::adaptation::AdapterModule;
use crate::adapter::identity::ModelIdentity;
use crate::adapter::{self, Adapter, AdapterConfig, AdapterError, CONFIG_FILE};
use crate::families::language_model::LanguageModel;
use crate::files::atomic_file;
use crate::training::train::Cursor;

const FOLDER: &str = "training_state";
const STEP_PREFIX: &str = "step-";
const STATE_FILE: &str = "state.json";
const TENSOR_FILE: &str = "trainee.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.burnpack";

/// `state.json`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingState {
    /// Position in the training.
    pub cursor: Cursor,
    /// Ties the state to settings and data: a resumed run must have the same.
    pub run_fingerprint: String,
    /// Held-out loss of the best epoch so far, nats per token.
    pub best_valid_nll: Option<f64>,
}

/// An interrupted training, read back.
#[derive(Debug)]
pub struct TrainingCheckpoint {
    /// The adapter at that step.
    pub adapter: Adapter,
    /// Position and best loss.
    pub state: TrainingState,
    /// For [`Trainer::resume`](crate::training::train::Trainer::resume).
    pub optimizer_state: Vec<u8>,
}

/// The saved parts of a training.
#[derive(Debug, Clone, Copy)]
pub struct TrainingParts<'a> {
    /// The configuration of the adapter.
    pub config: &'a AdapterConfig,
    /// The trained tensors.
    pub module: &'a AdapterModule,
    /// `[clusters, hidden]`
    pub centroids: &'a Tensor<2>,
    /// From [`Trainer::optimizer_state`](crate::training::train::Trainer::optimizer_state).
    pub optimizer_state: &'a [u8],
    /// Position and best loss.
    pub state: &'a TrainingState,
}

/// Writes the state of a training, then removes the older ones.
///
/// # Errors
///
/// When a file cannot be written.
///
/// # Panics
///
/// When a trained tensor cannot be read back from its device.
pub fn save(adapter_folder: &Path, parts: TrainingParts<'_>) -> Result<(), AdapterError> {
    let states = adapter_folder.join(FOLDER);
    adapter::create_folder(&states)?;
    let state = serde_json::to_vec_pretty(parts.state).expect("a state is plain data");
    let config = serde_json::to_vec_pretty(parts.config).expect("a configuration is plain data");
    let tensors = adapter::tensor_bytes(parts.module, parts.centroids);
    let own_step = parts.state.cursor.step;
    let own = states.join(format!("{STEP_PREFIX}{own_step}"));
    atomic_file::write_folder(&own, |folder| {
        atomic_file::write(&folder.join(CONFIG_FILE), &config)?;
        atomic_file::write(&folder.join(TENSOR_FILE), &tensors)?;
        atomic_file::write(&folder.join(OPTIMIZER_FILE), parts.optimizer_state)?;
        atomic_file::write(&folder.join(STATE_FILE), &state)
    })?;
    for (step, path) in steps_in(&states)? {
        if step != own_step {
            std::fs::remove_dir_all(&path)
                .map_err(|source| AdapterError::Remove { path, source })?;
        }
    }
    Ok(())
}

/// Reads the last state, or `None` when the folder has none.
///
/// # Errors
///
/// When it is damaged or for another base model.
pub fn load(
    adapter_folder: &Path,
    model: &LanguageModel,
    identity: &ModelIdentity,
    device: &Device,
) -> Result<Option<TrainingCheckpoint>, AdapterError> {
    let states = adapter_folder.join(FOLDER);
    if !states.is_dir() {
        return Ok(None);
    }
    let Some((_, folder)) = steps_in(&states)?.into_iter().max() else {
        return Ok(None);
    };
    let config = adapter::read_config_for(&folder, identity)?;
    let path = folder.join(STATE_FILE);
    let state = serde_json::from_slice(&adapter::read(&path)?)
        .map_err(|source| AdapterError::Config { path, source })?;
    let optimizer_state = adapter::read(&folder.join(OPTIMIZER_FILE))?;
    let adapter = adapter::load_tensors(&folder.join(TENSOR_FILE), config, model, device)?;
    Ok(Some(TrainingCheckpoint {
        adapter,
        state,
        optimizer_state,
    }))
}

/// Whether the folder has a state to resume from.
pub fn exists(adapter_folder: &Path) -> bool {
    adapter_folder.join(FOLDER).exists()
}

/// Removes the states of a finished training.
///
/// # Errors
///
/// When there are some and they cannot be removed.
pub fn remove(adapter_folder: &Path) -> Result<(), AdapterError> {
    let path = adapter_folder.join(FOLDER);
    match std::fs::remove_dir_all(&path) {
        Ok(()) => Ok(()),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(AdapterError::Remove { path, source }),
    }
}

/// The states in a folder with their steps.
fn steps_in(states: &Path) -> Result<Vec<(usize, PathBuf)>, AdapterError> {
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
