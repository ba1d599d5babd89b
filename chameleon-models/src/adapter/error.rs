//! Why an adapter folder cannot be read or written.

use std::path::PathBuf;

use chameleon_hypernet::HypernetError;

use super::{FORMAT_VERSION, OLDEST_VERSION};
use crate::adapter::layer_adaptation::{LayerRange, UnknownTarget};
use crate::error::ModelError;

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
    #[error("{} has format version {found}, this build reads {OLDEST_VERSION} to {FORMAT_VERSION}", path.display())]
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
    /// The model has no module named by a target of the layers.
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
    /// Layers are named that the model does not have.
    #[error("layers {range} of a model with {num_layers}")]
    Layers {
        /// The layers.
        range: LayerRange,
        /// How many there are.
        num_layers: usize,
    },
    /// Prompts are represented by a layer that the model does not have.
    #[error("prompts represented after {found} layers of a model with {num_layers}")]
    Representation {
        /// After how many layers.
        found: usize,
        /// How many there are.
        num_layers: usize,
    },
    /// No module of the layers is named, absurdly many, or one twice.
    #[error("the modules {found:?} of each layer")]
    Targets {
        /// The names.
        found: Vec<String>,
    },
    /// Cores are to be written for the layers, and there is no hypernetwork.
    #[error("generated cores in the layers without a hypernetwork at the head")]
    CoresWithoutNetwork,
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
    /// A memory by a layer that the model does not have.
    #[error("a memory by the states that enter layer {found} of a model with {num_layers}")]
    MemoryLayer {
        /// The layer.
        found: usize,
        /// How many there are.
        num_layers: usize,
    },
    /// A memory by states that the adapter itself changes.
    #[error(
        "a memory by the states that enter layer {layer_idx}, which the adapter changes from layer {first_adapted} on"
    )]
    MemoryAboveAdapted {
        /// The layer of the memory.
        layer_idx: usize,
        /// The lowest adapted layer.
        first_adapted: usize,
    },
    /// Keys of no number, or of more than a state has.
    #[error("keys of {found} numbers of states with {hidden_size}")]
    MemoryKeys {
        /// Numbers of a key.
        found: usize,
        /// Numbers of a state.
        hidden_size: usize,
    },
    /// Groups that may remember no token.
    #[error("a memory of no token")]
    MemoryOfNothing,
    /// The gate lacks a number, or has one that is none.
    #[error("a gate that does not fit {num_clusters} groups, or numbers in it that cannot be")]
    MemoryGate {
        /// Clusters of the adapter.
        num_clusters: usize,
    },
    /// The sequences are longer than the positions that the model has learned.
    #[error("sequences of {seq_len} tokens on a model that has learned {max_seq_len} positions")]
    Positions {
        /// Tokens of a whole example.
        seq_len: usize,
        /// Positions of the model.
        max_seq_len: usize,
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
