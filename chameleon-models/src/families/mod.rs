//! Model families: one decoder, their descriptions of it, and their loading.

pub(crate) mod causal_lm;
pub(crate) mod config_error;
pub(crate) mod family;
pub(crate) mod import;
pub(crate) mod kv_cache;
pub(crate) mod language_model;
pub(crate) mod load;
pub(crate) mod sizes;

// The families, and what they share.
pub(crate) mod gemma;
pub(crate) mod gpt2;
pub(crate) mod gpt_neox;
pub(crate) mod granite;
pub(crate) mod llama;
mod llama_like;
pub(crate) mod mistral;
mod names;
pub(crate) mod olmo2;
pub(crate) mod phi3;
pub(crate) mod qwen;
pub(crate) mod smollm3;

pub(crate) mod attention;
pub(crate) mod config;
mod config_keys;
pub(crate) mod indices;
mod layer;
mod layer_context;
pub(crate) mod masks;
mod norm;
mod presets;
mod rope;
mod rope_config;
pub(crate) mod stored_weights;

pub use causal_lm::{CachedStates, LinearModule, PassEnd, PassInput, SequencePass};
pub use config::{
    Activation, Biases, DecoderConfig, FeedForward, LayerConfig, ModuleNames, NormConfig, NormKind,
    NormPlace, QueryKeyNorm, QueryKeyValue, Residual, Scales,
};
pub use config_error::ConfigError;
pub use import::{ImportReport, Misshapen, Unreadable};
pub use kv_cache::{CacheRow, KvCache, Segment};
pub use layer::{AttentionPart, DecoderLayer, FeedForwardPart};
pub use norm::{Norm, PartNorms};
pub use rope::{Llama3Scaling, LongRopeScaling, RopeScaling, RotaryConfig, YarnScaling};
pub use sizes::ModelSizes;
