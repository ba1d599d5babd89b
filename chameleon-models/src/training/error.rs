//! What can go wrong between texts and a trained, scored adapter.

use std::path::PathBuf;

use chameleon_cluster::ClusterError;
use chameleon_hypernet::HypernetError;

use crate::adapter::group_memory::MemoryError;
use crate::adapter::{AdapterError, ImpossibleAdapter};
use crate::data::DataError;
use crate::error::ModelError;
use crate::training::hidden_cache::HiddenCacheError;
use crate::training::hub_dataset::HubDatasetError;
use crate::training::train::TrainError;

/// Why an adapter was not trained or scored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingError {
    /// The observer asked to stop. What was finished is on disk; the same call continues it.
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
    /// There can be no memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The sizes of a hypernetwork or a control do not fit.
    #[error(transparent)]
    Hypernet(#[from] HypernetError),
    /// An optimizer step failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The folder for an adapter holds one.
    #[error("{} holds an adapter already", path.display())]
    AdapterExists {
        /// The folder.
        path: PathBuf,
    },
    /// The folder for results holds finished runs.
    #[error("{} holds finished runs already", path.display())]
    RunsExist {
        /// The folder.
        path: PathBuf,
    },
    /// There is no training state in the folder.
    #[error("{} holds no training that could go on", path.display())]
    NothingToResume {
        /// The folder.
        path: PathBuf,
    },
    /// The training state belongs to other settings or data.
    #[error("the training in {} had other flags or other data", path.display())]
    OtherTraining {
        /// The folder.
        path: PathBuf,
    },
    /// A finished run belongs to other settings or data.
    #[error("{} was made with other flags or other data", path.display())]
    OtherRuns {
        /// The folder of the run.
        path: PathBuf,
    },
    /// The record of a finished run cannot be parsed.
    #[error("{} is no record of a run", path.display())]
    RunRecord {
        /// The file.
        path: PathBuf,
        /// Where the parser stopped.
        #[source]
        source: serde_json::Error,
    },
    /// A file of results cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file of results cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A folder cannot be made.
    #[error("cannot make the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file cannot be deleted.
    #[error("cannot delete {}", path.display())]
    Delete {
        /// The file.
        path: PathBuf,
        /// Why not.
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
    /// A control that draws other conditions has none to draw from.
    #[error("redrawn conditions need a second batch to take a condition from, and there is one")]
    OneBatch,
    /// A data set of the hub cannot be had.
    #[error(transparent)]
    HubDataset(#[from] HubDatasetError),
    /// A folder of a data set lacks its files.
    #[error("{} holds no parquet file", path.display())]
    NoParquet {
        /// The folder.
        path: PathBuf,
    },
    /// A recipe leaves nothing to score.
    #[error("the recipe `{recipe}` scores none of these rows")]
    NothingScored {
        /// The recipe.
        recipe: String,
    },
}
