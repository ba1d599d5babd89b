//! Mistral: Llama with a sliding window.

use super::config::DecoderConfig;
use super::config_error::ConfigError;
use super::config_keys::ConfigKeys;
use super::family::{Family, complete};
use super::llama;
use super::llama_like::{self, Defaults};
use super::names::{LLAMA_KEYS, WINDOW_KEY};

const NAME: &str = "mistral";

pub(crate) const FAMILY: Family = Family {
    name: NAME,
    gguf: NAME,
    names: llama::NAMES,
    describe,
    gguf_keys: &[LLAMA_KEYS, WINDOW_KEY],
    complete,
};

fn describe(keys: &ConfigKeys<'_>) -> Result<DecoderConfig, ConfigError> {
    let keys = keys.with_counts(&[
        ("num_key_value_heads", 8),
        ("max_position_embeddings", 131_072),
    ]);
    let mut config = llama_like::describe(&keys, NAME, &Defaults::LLAMA)?;
    // The class has a window of 4096 where the key is absent; `null` means none.
    let window = if keys.is_absent("sliding_window") {
        Some(4096)
    } else {
        keys.count("sliding_window")?
    };
    let are_local = vec![true; config.layers.len()];
    llama_like::set_windows(&mut config, &are_local, window);
    Ok(config)
}
