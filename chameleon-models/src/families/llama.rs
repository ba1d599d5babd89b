//! Llama 2 and 3, SmolLM2, TinyLlama and others of the same build.

use super::config::DecoderConfig;
use super::config_error::ConfigError;
use super::config_keys::ConfigKeys;
use super::family::{Family, complete};
use super::llama_like::{self, Defaults};
use super::names::{
    ENDS, GATED, LLAMA_KEYS, NORMS_BEFORE, PAIRED_ATTENTION, ROTARY_BUFFERS, WINDOW_KEY,
};
use crate::files::name_table::NameTable;

const NAME: &str = "llama";

pub(crate) const FAMILY: Family = Family {
    name: NAME,
    gguf: NAME,
    names: NAMES,
    describe,
    gguf_keys: &[LLAMA_KEYS, WINDOW_KEY],
    complete,
};

pub(super) const NAMES: NameTable = NameTable {
    prefix: "model.",
    rows: &[ENDS, NORMS_BEFORE, PAIRED_ATTENTION, GATED],
    buffers: ROTARY_BUFFERS,
};

fn describe(keys: &ConfigKeys<'_>) -> Result<DecoderConfig, ConfigError> {
    let config = llama_like::describe(keys, NAME, &Defaults::LLAMA)?;
    if let Some(window) = keys.count("sliding_window")?
        && window < config.sizes.max_seq_len
    {
        // Hugging Face would not apply it.
        return Err(ConfigError::Unsupported {
            key: "sliding_window",
            found: window.to_string(),
            supported: "null, or no less than max_position_embeddings; `model_type` mistral has one",
        });
    }
    Ok(config)
}
