//! Qwen2 and Qwen2.5, with biases of query, key and value; Qwen3, with norms of queries and keys.

use super::config::{Biases, DecoderConfig, QueryKeyNorm};
use super::config_error::ConfigError;
use super::config_keys::ConfigKeys;
use super::family::{Family, complete};
use super::llama_like::{self, Defaults};
use super::names::{
    ATTENTION, ENDS, GATED, LLAMA_KEYS, NORMS_BEFORE, QUERY_KEY_NORMS, ROTARY_BUFFERS,
};
use crate::files::name_table::NameTable;

const QWEN2_NAME: &str = "qwen2";
const QWEN3_NAME: &str = "qwen3";

pub(crate) const QWEN2: Family = Family {
    name: QWEN2_NAME,
    gguf: QWEN2_NAME,
    names: NameTable {
        prefix: "model.",
        rows: &[ENDS, NORMS_BEFORE, ATTENTION, GATED],
        buffers: ROTARY_BUFFERS,
    },
    describe: qwen2,
    gguf_keys: &[LLAMA_KEYS],
    complete,
};

pub(crate) const QWEN3: Family = Family {
    name: QWEN3_NAME,
    gguf: QWEN3_NAME,
    names: NameTable {
        prefix: "model.",
        rows: &[ENDS, NORMS_BEFORE, ATTENTION, QUERY_KEY_NORMS, GATED],
        buffers: ROTARY_BUFFERS,
    },
    describe: qwen3,
    gguf_keys: &[LLAMA_KEYS],
    complete,
};

fn qwen2(keys: &ConfigKeys<'_>) -> Result<DecoderConfig, ConfigError> {
    let keys = keys.with_counts(&[("max_position_embeddings", 32_768)]);
    let config = llama_like::describe(&keys, QWEN2_NAME, &Defaults::LLAMA)?;
    windowed(
        &keys,
        DecoderConfig {
            biases: Biases {
                query_key_value: true,
                ..Biases::NONE
            },
            ..config
        },
    )
}

fn qwen3(keys: &ConfigKeys<'_>) -> Result<DecoderConfig, ConfigError> {
    let keys = keys.with_counts(&[("head_dim", 128), ("max_position_embeddings", 32_768)]);
    let config = llama_like::describe(&keys, QWEN3_NAME, &Defaults::LLAMA)?;
    windowed(
        &keys,
        DecoderConfig {
            query_key_norm: Some(QueryKeyNorm::Head),
            biases: Biases {
                feed_forward: false,
                ..config.biases
            },
            ..config
        },
    )
}

/// The upper layers may be local.
fn windowed(
    keys: &ConfigKeys<'_>,
    mut config: DecoderConfig,
) -> Result<DecoderConfig, ConfigError> {
    let window = llama_like::switched_window(keys)?;
    let first_local = keys.count("max_window_layers")?.unwrap_or(28);
    let are_local = llama_like::local_layers(keys, config.layers.len(), |idx| idx >= first_local)?;
    llama_like::set_windows(&mut config, &are_local, window);
    Ok(config)
}
