//! `SmolLM3`: Llama in which some layers have no positions.

use super::config::DecoderConfig;
use super::config_error::ConfigError;
use super::config_keys::ConfigKeys;
use super::family::{Family, complete};
use super::llama;
use super::llama_like::{self, Defaults};
use super::names::LLAMA_KEYS;

const NAME: &str = "smollm3";

pub(crate) const FAMILY: Family = Family {
    name: NAME,
    gguf: NAME,
    names: llama::NAMES,
    describe,
    gguf_keys: &[LLAMA_KEYS],
    complete,
};

fn describe(keys: &ConfigKeys<'_>) -> Result<DecoderConfig, ConfigError> {
    const KEY: &str = "no_rope_layers";
    let keys = keys.with_counts(&[
        ("num_key_value_heads", 4),
        ("max_position_embeddings", 32_768),
    ]);
    let defaults = Defaults {
        is_tied: true,
        rope_base: 2_000_000.0,
        ..Defaults::LLAMA
    };
    let mut config = llama_like::describe(&keys, NAME, &defaults)?;
    let num_layers = config.layers.len();
    let interval = keys.count("no_rope_layer_interval")?.unwrap_or(4).max(1);
    // One stands for a layer with positions, whatever the key says.
    let have_positions: Vec<bool> = match keys.numbers(KEY)? {
        Some(flags) if flags.len() != num_layers => {
            return Err(ConfigError::WrongLength {
                key: KEY,
                found: flags.len(),
                expected: num_layers,
            });
        }
        Some(flags) => flags.into_iter().map(|flag| flag != 0.0).collect(),
        None => (1..=num_layers)
            .map(|number| !number.is_multiple_of(interval))
            .collect(),
    };
    for (layer, &has_positions) in config.layers.iter_mut().zip(&have_positions) {
        layer.rotary = has_positions.then_some(0);
    }
    let are_local =
        llama_like::local_layers(&keys, num_layers, |layer_idx| !have_positions[layer_idx])?;
    let window = llama_like::switched_window(&keys)?;
    llama_like::set_windows(&mut config, &are_local, window);
    Ok(config)
}
