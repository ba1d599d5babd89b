//! What makes a family: its names, and the description of its decoder.

use serde_json::{Map, Value};

use super::config::DecoderConfig;
use super::config_error::ConfigError;
use super::config_keys::ConfigKeys;
use crate::files::gguf_keys::KeyRow;
use crate::files::name_table::NameTable;

/// A family of models. Adding one takes a constant of this type, and a variant of
/// [`Architecture`](crate::Architecture).
#[derive(Debug)]
pub(crate) struct Family {
    /// The name in `model_type`.
    pub(crate) name: &'static str,
    /// The name in `general.architecture` of GGUF files.
    pub(crate) gguf: &'static str,
    /// What its tensors are called, and how they are laid out.
    pub(crate) names: NameTable,
    /// The decoder of a `config.json`.
    pub(crate) describe: fn(&ConfigKeys<'_>) -> Result<DecoderConfig, ConfigError>,
    /// Where GGUF files hold the keys of a `config.json`.
    pub(crate) gguf_keys: &'static [&'static [KeyRow]],
    /// Completes a configuration from GGUF with keys that follow from others.
    pub(crate) complete: fn(&mut Map<String, Value>),
}

/// No key follows from others.
pub(crate) fn complete(_config: &mut Map<String, Value>) {}

impl Family {
    /// The decoder of a `config.json`.
    pub(crate) fn config(&self, config: &Value) -> Result<DecoderConfig, ConfigError> {
        let keys = ConfigKeys::of(config)?;
        for (key, found) in [
            ("num_local_experts", "mixture of experts"),
            ("num_experts", "mixture of experts"),
            ("n_routed_experts", "mixture of experts"),
        ] {
            if keys.count(key)?.unwrap_or(0) > 0 {
                return Err(ConfigError::Unsupported {
                    key,
                    found: found.to_owned(),
                    supported: "models without experts",
                });
            }
        }
        if let Some(quantised) = keys.object("quantization_config")? {
            return Err(ConfigError::Unsupported {
                key: "quantization_config",
                found: quantised.text("quant_method")?.unwrap_or("?").to_owned(),
                supported: "f32, f16 and bf16 weights, or a GGUF file",
            });
        }
        let config = (self.describe)(&keys)?;
        config.validate()?;
        Ok(config)
    }
}
