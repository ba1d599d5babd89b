//! Model families: the decoders, their common parts, and their loading.

pub mod causal_lm;
pub mod config_error;
pub mod gpt2;
pub mod import;
pub mod kv_cache;
pub mod language_model;
pub mod llama;
pub mod load;
pub mod sizes;

pub(crate) mod attention;
pub(crate) mod decoder;
pub(crate) mod indices;
pub(crate) mod packed;
