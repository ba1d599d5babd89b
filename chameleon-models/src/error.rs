//! The errors of loading, running and saving models: one enum, one variant per situation.
//!
//! Messages say what was found and what was expected; what to do about it is decided by the program.

use std::path::PathBuf;

/// An error raised while loading, running or saving a language model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    // Files and folders.
    /// A file or folder could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file or folder could not be written; the previous contents are unchanged.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A file that should hold JSON does not.
    #[error("{} is not valid JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's error.
        #[source]
        source: serde_json::Error,
    },

    // Which model.
    /// The text names neither a folder, nor a `.gguf` file, nor a hub id.
    #[error(
        "`{text}` is neither a model folder, nor a .gguf file, nor a hub id such as `owner/name`"
    )]
    NotAModelSource {
        /// The text as given.
        text: String,
    },
    /// The path does not exist.
    #[error("there is no model at {}", path.display())]
    ModelMissing {
        /// The path.
        path: PathBuf,
    },
    /// The folder lacks a file that every model folder has.
    #[error("{} has no {file}", folder.display())]
    FolderIncomplete {
        /// The model folder.
        folder: PathBuf,
        /// The missing file.
        file: &'static str,
    },
    /// The file is a placeholder of Git for a large file.
    #[error("{} is a Git LFS pointer, not the file itself", path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// The folder holds something other than a model in safetensors.
    #[error("{} holds {found}, expected config.json and model.safetensors", folder.display())]
    OtherFolder {
        /// The folder.
        folder: PathBuf,
        /// Its contents.
        found: &'static str,
    },
    /// The path names a file of a model folder.
    #[error("{} is a safetensors file, expected a model folder or a .gguf file", path.display())]
    FileOfFolder {
        /// The file.
        path: PathBuf,
    },
    /// The model is of a family that is not implemented.
    #[error("{} holds a `{found}` model; supported are {supported}", path.display())]
    UnsupportedArchitecture {
        /// The file that names the family.
        path: PathBuf,
        /// The family found.
        found: String,
        /// The families that are.
        supported: &'static str,
    },
    /// The configuration describes a model that cannot be built.
    #[error("{} describes a model that cannot be built", path.display())]
    Config {
        /// The file that holds the configuration.
        path: PathBuf,
        /// The cause.
        #[source]
        source: crate::families::config_error::ConfigError,
    },
    /// The configuration lacks a value or holds one of the wrong type.
    #[error("{}: `{key}` should be {expected}, found {found}", path.display())]
    ConfigValue {
        /// The file that holds the configuration.
        path: PathBuf,
        /// The key.
        key: String,
        /// The expected type.
        expected: &'static str,
        /// The type found, `nothing` if the key is absent.
        found: String,
    },

    // GGUF.
    /// The file does not begin with the GGUF magic.
    #[error("{} is not a GGUF file: it begins with {found:02x?}", path.display())]
    NotGguf {
        /// The file.
        path: PathBuf,
        /// Its first bytes.
        found: Vec<u8>,
    },
    /// The header holds a value that GGUF does not define, or one that is not read here.
    #[error("{}: {problem}", path.display())]
    GgufHeader {
        /// The file.
        path: PathBuf,
        /// What was found, and what was expected.
        problem: String,
    },
    /// The file is one of several that are a model together, and another one is not beside it.
    #[error("{} is one of the {num_parts} parts of a model, and {} is not there", path.display(), missing.display())]
    PartMissing {
        /// The file.
        path: PathBuf,
        /// The number of parts.
        num_parts: usize,
        /// The part that is not there.
        missing: PathBuf,
    },
    /// The file ends too early.
    #[error("{} ends inside {part}: {needed} bytes needed, {available} left", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The item being read.
        part: String,
        /// How many bytes it takes.
        needed: u64,
        /// How many bytes the file still has.
        available: u64,
    },
    /// A name that must be unique appears twice.
    #[error("{}: the name `{name}` appears twice", path.display())]
    DuplicateName {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A tensor has no dimensions, too many, an empty one, or more elements than fit in memory.
    #[error("{}: tensor `{name}` has the impossible shape {found:?}", path.display())]
    ImpossibleShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape as stored.
        found: Vec<u64>,
    },
    /// A tensor lies, at least in part, outside of the file.
    #[error("{}: tensor `{name}` ends at byte {end}, the file has {file_len}", path.display())]
    TensorOutsideFile {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The end of the tensor.
        end: u64,
        /// The length of the file.
        file_len: u64,
    },
    /// Two tensors share bytes.
    #[error("{}: tensors `{first}` and `{second}` overlap", path.display())]
    TensorsOverlap {
        /// The file.
        path: PathBuf,
        /// The tensor that comes first.
        first: String,
        /// The tensor that starts before the first one ends.
        second: String,
    },
    /// A tensor has an unsupported type.
    #[error("{}: tensor `{name}` is stored as {found}; supported are {}", path.display(), chameleon_core::stored::TensorDtype::NAMES)]
    UnsupportedDtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// Stored values are not a weight.
    #[error("{}: tensor `{name}` is not a weight", path.display())]
    StoredWeight {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The cause.
        #[source]
        source: chameleon_core::stored::StoredMatrixError,
    },

    // Safetensors.
    /// The header of a safetensors file is broken or does not match the file.
    #[error("{} is not a valid safetensors file", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// The index names a file outside of the folder, or a tensor that its shard does not have.
    #[error("{}: {problem}", path.display())]
    ShardIndex {
        /// The index file.
        path: PathBuf,
        /// What was found, and what was expected.
        problem: String,
    },

    // Tensors, whatever the file.
    /// The model needs a tensor that the file lacks.
    #[error("{} has no tensor `{name}`", path.display())]
    TensorMissing {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape than the model expects.
    #[error("{}: tensor `{name}` has shape {found:?}, the model expects {expected:?}", path.display())]
    ShapeMismatch {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape the model expects.
        expected: Vec<usize>,
    },
    /// A weight is NaN or infinite.
    #[error("{}: tensor `{name}` holds {value} at position {position}", path.display())]
    NonFinite {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Position among the values of the tensor, row by row.
        position: usize,
        /// NaN or an infinity.
        value: f32,
    },

    /// Sequences have more tokens than the model has learned positions.
    #[error("sequences of {found} tokens, the model has learned {max_seq_len} positions")]
    TooManyPositions {
        /// Tokens of a sequence.
        found: usize,
        /// Positions of the model.
        max_seq_len: usize,
    },

    // Tokens.
    /// The vocabulary or the rules of a tokenizer are invalid.
    #[error("{}: the tokenizer is broken", path.display())]
    Tokenizer {
        /// The file that holds the tokenizer.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A merge joins pieces that the vocabulary does not have.
    #[error("{}: merge {index}, `{merge}`, does not join two tokens into a third", path.display())]
    BrokenMerge {
        /// The file that holds the tokenizer.
        path: PathBuf,
        /// The index of the merge.
        index: usize,
        /// The merge as stored.
        merge: String,
    },
    /// The kind of tokenizer is not implemented.
    #[error("{}: tokenizer {kind} `{found}` is not supported; supported are {supported}", path.display())]
    UnsupportedTokenizer {
        /// The file that holds the tokenizer.
        path: PathBuf,
        /// `model` or `pre-tokenizer`.
        kind: &'static str,
        /// The kind found.
        found: String,
        /// The supported kinds.
        supported: &'static str,
    },
    /// A special token id points outside of the vocabulary.
    #[error("{}: {role} token id {token_id} is outside of the vocabulary of {vocab_size}", path.display())]
    SpecialTokenOutsideVocab {
        /// The file that holds the tokenizer.
        path: PathBuf,
        /// `bos`, `eos` or `pad`.
        role: &'static str,
        /// The id found.
        token_id: u32,
        /// The size of the vocabulary.
        vocab_size: usize,
    },
    /// The tokenizer can produce ids for which the model has no embedding.
    #[error("the tokenizer has {tokenizer} tokens, the model only {model}")]
    VocabTooLarge {
        /// The number of tokens in the vocabulary.
        tokenizer: usize,
        /// The number of rows in the model's embedding.
        model: usize,
    },
    /// A text has a token for which the model has no embedding.
    #[error("the text has the token {token_id}, the model has embeddings for {num_rows} tokens")]
    TokenWithoutRow {
        /// The token.
        token_id: u32,
        /// Rows of the embedding.
        num_rows: usize,
    },
    /// Text could not be turned into token ids, or back.
    #[error("the tokenizer failed")]
    Encode {
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    // Decoding.
    /// A setting of the sampler is out of range.
    #[error("{name} is {found}, expected {expected}")]
    SamplingValue {
        /// Which setting.
        name: &'static str,
        /// Its value.
        found: f64,
        /// The allowed values.
        expected: &'static str,
    },

    // Chat.
    /// A chat template cannot be parsed, or raises an error for the conversation.
    #[error("the chat template failed")]
    ChatTemplate {
        /// The position and the cause.
        #[source]
        source: minijinja::Error,
    },

    // The hub.
    /// The cache lacks the model, or a part of it, and the hub may not be used.
    #[error(
        "`{model}` is not, or not completely, in the cache {}; fetch it once without HF_HUB_OFFLINE, or name a folder or a .gguf file",
        cache_folder.display()
    )]
    HubNotCached {
        /// The model.
        model: crate::files::hub_model::HubModel,
        /// Where it was looked for.
        cache_folder: PathBuf,
    },
    /// The hub refused or did not answer, and the cache lacks the model.
    #[error(
        "cannot fetch `{model}` from {endpoint}; check the name and the network, set HF_TOKEN if the model asks for a login, or name a folder or a .gguf file"
    )]
    HubRequest {
        /// The model.
        model: crate::files::hub_model::HubModel,
        /// The hub's address.
        endpoint: String,
        /// The cause.
        #[source]
        source: Box<hf_hub::api::sync::ApiError>,
    },
    /// The model on the hub has no safetensors.
    #[error(
        "`{model}` has no safetensors; its GGUF files, to be named after a colon, are {gguf_files:?}"
    )]
    HubNoWeights {
        /// The model.
        model: crate::files::hub_model::HubModel,
        /// What it has instead.
        gguf_files: Vec<String>,
    },
}
