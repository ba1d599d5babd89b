//! `OLMo` 2: norms after each part, and of queries and keys as a whole.

use super::config::{Biases, DecoderConfig, NormPlace, QueryKeyNorm};
use super::config_error::ConfigError;
use super::config_keys::ConfigKeys;
use super::family::{Family, complete};
use super::llama_like::{self, Defaults};
use super::names::{ATTENTION, ENDS, GATED, LLAMA_KEYS, QUERY_KEY_NORMS, ROTARY_BUFFERS};
use crate::files::name_table::{Layout::Same, NameTable, row};

const NAME: &str = "olmo2";

pub(crate) const FAMILY: Family = Family {
    name: NAME,
    gguf: NAME,
    names: NAMES,
    describe,
    gguf_keys: &[LLAMA_KEYS],
    complete,
};

#[rustfmt::skip]
const NAMES: NameTable = NameTable {
    prefix: "model.",
    rows: &[ENDS, ATTENTION, QUERY_KEY_NORMS, GATED, &[
        row("model.layers.*.post_attention_layernorm.weight", "blk.*.post_attention_norm.weight", "layers.*.attention_norms.after.gamma", Same),
        row("model.layers.*.post_feedforward_layernorm.weight", "blk.*.post_ffw_norm.weight", "layers.*.feed_forward_norms.after.gamma", Same),
    ]],
    buffers: ROTARY_BUFFERS,
};

fn describe(keys: &ConfigKeys<'_>) -> Result<DecoderConfig, ConfigError> {
    let defaults = Defaults {
        epsilon: 1e-5,
        ..Defaults::LLAMA
    };
    let config = llama_like::describe(keys, NAME, &defaults)?;
    Ok(DecoderConfig {
        norm_place: NormPlace::After,
        query_key_norm: Some(QueryKeyNorm::Whole),
        biases: Biases {
            feed_forward: false,
            ..config.biases
        },
        ..config
    })
}
