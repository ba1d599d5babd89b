//! Model families: the decoders, their common parts, and their loading.

pub(crate) mod causal_lm;
pub(crate) mod config_error;
pub(crate) mod gpt2;
pub(crate) mod import;
pub(crate) mod kv_cache;
pub(crate) mod language_model;
pub(crate) mod llama;
pub(crate) mod load;
pub(crate) mod sizes;

pub(crate) mod attention;
pub(crate) mod decoder;
pub(crate) mod indices;
pub(crate) mod stored_weights;

pub use causal_lm::{CachedStates, LinearModule, PassEnd, PassInput, SequencePass};
pub use config_error::ConfigError;
pub use gpt2::{Gpt2, Gpt2Config};
pub use import::{ImportReport, Misshapen, Unreadable};
pub use kv_cache::{CacheRow, KvCache, Segment};
pub use llama::{Llama, Llama3Scaling, LlamaConfig, RopeParameters, RopeScaling};
pub use sizes::{ModelSizes, TokenIds};
