//! Errors of preparing texts, training an adapter and scoring it.

use std::path::{Path, PathBuf};

use chameleon_cluster::ClusterError;
use chameleon_hypernet::HypernetError;

use crate::adapter::group_memory::MemoryError;
use crate::adapter::{AdapterError, ImpossibleAdapter};
use crate::data::DataError;
use crate::data::hub_dataset::HubDatasetError;
use crate::engine::{EngineError, RequestFailure};
use crate::error::ModelError;
use crate::training::hidden_cache::HiddenCacheError;
use crate::training::train::TrainError;

/// An error of preparing, training or scoring.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingError {
    /// The observer requested a stop. Finished work is on disk; the same call continues it.
    #[error("interrupted")]
    Interrupted,
    /// The model cannot be loaded or run.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The texts cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The prompts cannot be clustered.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// An adapter cannot be read or written.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The adapter does not fit the model.
    #[error(transparent)]
    ImpossibleAdapter(#[from] ImpossibleAdapter),
    /// Hidden states cannot be read or written.
    #[error(transparent)]
    HiddenCache(#[from] HiddenCacheError),
    /// A memory cannot be built.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The sizes of a hypernetwork or a control do not fit.
    #[error(transparent)]
    Hypernet(#[from] HypernetError),
    /// An optimizer step failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The folder for results is not empty.
    #[error("{} holds {what} already", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
        /// The results it holds.
        what: &'static str,
    },
    /// There is no training state in the folder.
    #[error("{} holds no checkpoint to resume from", path.display())]
    NothingToResume {
        /// The folder.
        path: PathBuf,
    },
    /// What is in the folder belongs to other settings or data.
    #[error("{} was made with other flags or other data", path.display())]
    OtherRun {
        /// The folder.
        path: PathBuf,
    },
    /// The record of a finished run cannot be parsed.
    #[error("{} is not the record of a run", path.display())]
    RunRecord {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        #[source]
        source: serde_json::Error,
    },
    /// A file or folder of results cannot be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// The operation that failed, such as `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// No training of a method reached the end of its first epoch.
    #[error("every training of `{method}` with seed {seed} diverged")]
    AllDiverged {
        /// The method.
        method: String,
        /// The seed.
        seed: u64,
    },
    /// A control that redraws conditions has only one condition.
    #[error("redrawn conditions need a second batch to take a condition from, and there is one")]
    OneBatch,
    /// No group has two examples.
    #[error("no two rows have the same group; name the field that holds it")]
    NoGroups,
    /// No group has so many examples besides those that are scored.
    #[error("no group has {num_exemplars} examples besides those that are scored")]
    TooFewExemplars {
        /// Exemplars of a group.
        num_exemplars: usize,
    },
    /// The engine rejects a prompt.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An answer could not be completed.
    #[error(transparent)]
    Answer(#[from] RequestFailure),
    /// A data set of the hub cannot be downloaded.
    #[error(transparent)]
    HubDataset(#[from] HubDatasetError),
    /// A folder of a data set has no Parquet file.
    #[error("{} holds no parquet file", path.display())]
    NoParquet {
        /// The folder.
        path: PathBuf,
    },
    /// A recipe leaves no row to score.
    #[error("the recipe `{recipe}` scores none of these rows")]
    NothingScored {
        /// The recipe.
        recipe: String,
    },
}

impl TrainingError {
    /// An error of `action` on a file or folder, such as `write`.
    pub fn file(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File {
            action,
            path: path.clone(),
            source,
        }
    }
}
