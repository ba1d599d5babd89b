//! Granite 3: Llama with factors of embeddings, residuals, scores and logits.

use super::config::{DecoderConfig, Scales};
use super::config_error::{ConfigError, check_positive};
use super::config_keys::ConfigKeys;
use super::family::{Family, complete};
use super::llama;
use super::llama_like::{self, Defaults};
use super::names::LLAMA_KEYS;
use crate::files::gguf_keys::{Kind, key};

const NAME: &str = "granite";

pub(crate) const FAMILY: Family = Family {
    name: NAME,
    gguf: NAME,
    names: llama::NAMES,
    describe,
    gguf_keys: &[
        LLAMA_KEYS,
        &[
            key(
                "embedding_multiplier",
                "embedding_scale",
                Kind::OptionalNumber,
            ),
            key(
                "residual_multiplier",
                "residual_scale",
                Kind::OptionalNumber,
            ),
            key(
                "attention_multiplier",
                "attention.scale",
                Kind::OptionalNumber,
            ),
            key("logits_scaling", "logit_scale", Kind::OptionalNumber),
        ],
    ],
    complete,
};

fn describe(keys: &ConfigKeys<'_>) -> Result<DecoderConfig, ConfigError> {
    let config = llama_like::describe(keys, NAME, &Defaults::LLAMA)?;
    let divisor = keys.number_or("logits_scaling", 1.0)?;
    check_positive("logits_scaling", divisor)?;
    let scale = keys.number_or("attention_multiplier", 1.0)?;
    let mut layers = config.layers;
    for layer in &mut layers {
        layer.scores.scale = scale;
    }
    Ok(DecoderConfig {
        layers,
        scales: Scales {
            embedding: keys.number("embedding_multiplier")?,
            residual: keys.number("residual_multiplier")?,
            logits: Some(divisor.recip()),
            ..Scales::NONE
        },
        ..config
    })
}
