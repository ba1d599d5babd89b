//! Errors of reading and writing adapter folders.

use std::path::PathBuf;

use chameleon_hypernet::HypernetError;

use super::{FORMAT_VERSION, OLDEST_VERSION};
use crate::adapter::layer_adaptation::{LayerRange, UnknownTarget};
use crate::error::ModelError;

/// Errors of reading and writing adapter folders.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// A file of the folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file of the folder cannot be written.
    #[error(transparent)]
    Write(#[from] ModelError),
    /// The configuration is not valid JSON of the expected layout.
    #[error("{} is not an adapter configuration", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The cause.
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
    /// The configuration has invalid sizes.
    #[error("{} describes an impossible adapter", path.display())]
    Impossible {
        /// The file.
        path: PathBuf,
        /// The invalid setting.
        source: ImpossibleAdapter,
    },
    /// The adapter was trained on another model.
    #[error("the adapter was trained on {expected}, this model is {found}")]
    OtherBase {
        /// The model it was trained on.
        expected: String,
        /// The model it was loaded for.
        found: String,
    },
    /// The tensor file is damaged.
    #[error("{} is not a safetensors file", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: safetensors::SafeTensorError,
    },
    /// Tensors are missing, unexpected or of another shape.
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
    /// A folder cannot be created.
    #[error("cannot make the folder {}", path.display())]
    CreateFolder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A folder that is no longer needed cannot be removed.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

/// Invalid sizes of an adapter.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ImpossibleAdapter {
    /// A setting of the head fails the checks of the hypernetwork.
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
    /// A rank is zero, or above the hidden size.
    #[error("rank {rank} is not between 1 and the hidden size {hidden_size}")]
    Rank {
        /// The rank.
        rank: usize,
        /// The hidden size of the model.
        hidden_size: usize,
    },
    /// The layer range exceeds the layers of the model.
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
        /// Number of layers before the representation.
        found: usize,
        /// How many there are.
        num_layers: usize,
    },
    /// The list of modules is empty, too long, or names one twice.
    #[error("the modules {found:?} of each layer")]
    Targets {
        /// The names.
        found: Vec<String>,
    },
    /// The layers have generated cores, but the head has no hypernetwork.
    #[error("generated cores in the layers without a hypernetwork at the head")]
    CoresWithoutNetwork,
    /// The hypernetwork's input width differs from that of a prompt embedding.
    #[error("a condition of width {found}, prompt embeddings have width {hidden_size}")]
    ConditionSize {
        /// Width of the condition.
        found: usize,
        /// The hidden size of the model.
        hidden_size: usize,
    },
    /// A layer of the hypernetwork is too wide, or there are too many layers.
    #[error("hidden layers {found:?} of a hypernetwork")]
    HiddenSizes {
        /// The widths.
        found: Vec<usize>,
    },
    /// No clusters, or too many.
    #[error("{found} clusters")]
    Clusters {
        /// How many.
        found: usize,
    },
    /// The number of experts differs from the number of clusters.
    #[error("{num_experts} experts for {num_clusters} clusters")]
    Experts {
        /// Experts of the head.
        num_experts: usize,
        /// Clusters of the adapter.
        num_clusters: usize,
    },
    /// The memory uses a layer that the model does not have.
    #[error("a memory by the states that enter layer {found} of a model with {num_layers}")]
    MemoryLayer {
        /// The layer.
        found: usize,
        /// How many there are.
        num_layers: usize,
    },
    /// The memory uses states that the adapter itself changes.
    #[error(
        "a memory by the states that enter layer {layer_idx}, which the adapter changes from layer {first_adapted} on"
    )]
    MemoryAboveAdapted {
        /// The layer of the memory.
        layer_idx: usize,
        /// The lowest adapted layer.
        first_adapted: usize,
    },
    /// The width of keys is zero, or above that of a state.
    #[error("keys of width {found} from states of width {hidden_size}")]
    MemoryKeys {
        /// Width of a key.
        found: usize,
        /// Width of a state.
        hidden_size: usize,
    },
    /// The largest number of entries is zero.
    #[error("a memory of at most 0 tokens")]
    MemoryOfNothing,
    /// The gate lacks a parameter, or has one that is not valid.
    #[error("a gate that does not fit {num_clusters} groups, or has invalid parameters")]
    MemoryGate {
        /// Clusters of the adapter.
        num_clusters: usize,
    },
    /// There are no learned steps, no exemplars, or too many.
    #[error("{num_steps} learned steps on {num_exemplars} exemplars")]
    Exemplars {
        /// Steps.
        num_steps: usize,
        /// Exemplars of a group.
        num_exemplars: usize,
    },
    /// Exemplars are used, but head and layers are not both adapted by LoRA.
    #[error("exemplars without LoRA inside the layers and at the head")]
    ExemplarsWithoutLora,
    /// The sequences have more tokens than the model has learned positions.
    #[error("sequences of {seq_len} tokens on a model that has learned {max_seq_len} positions")]
    Positions {
        /// Tokens of a whole example.
        seq_len: usize,
        /// Positions of the model.
        max_seq_len: usize,
    },
    /// The recipe has no conditioning span or no scored tokens.
    #[error("a prefix of {prefix} in sequences of {seq_len} tokens")]
    Spans {
        /// Tokens of the conditioning span.
        prefix: usize,
        /// Tokens of a whole example.
        seq_len: usize,
    },
}
