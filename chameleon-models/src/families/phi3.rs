//! Phi-3, Phi-3.5 and Phi-4-mini: fused projections, part of each head rotated, wavelengths for long contexts.

use super::config::{Biases, DecoderConfig, FeedForward, ModuleNames, QueryKeyValue};
use super::config_error::ConfigError;
use super::config_keys::ConfigKeys;
use super::family::{Family, complete};
use super::llama_like::{self, Defaults};
use super::names::{ENDS, LLAMA_KEYS, NORMS_BEFORE, ROTARY_BUFFERS, WINDOW_KEY};
use crate::files::name_table::{Layout::Linear, NameTable, row};

const NAME: &str = "phi3";

pub(crate) const FAMILY: Family = Family {
    name: NAME,
    gguf: NAME,
    names: NAMES,
    describe,
    gguf_keys: &[LLAMA_KEYS, WINDOW_KEY],
    complete,
};

#[rustfmt::skip]
const NAMES: NameTable = NameTable {
    prefix: "model.",
    rows: &[ENDS, NORMS_BEFORE, &[
        row("model.layers.*.self_attn.qkv_proj.weight", "blk.*.attn_qkv.weight", "layers.*.attention.inputs.0.weight", Linear),
        row("model.layers.*.self_attn.o_proj.weight", "blk.*.attn_output.weight", "layers.*.attention.output.weight", Linear),
        row("model.layers.*.mlp.gate_up_proj.weight", "blk.*.ffn_up.weight", "layers.*.feed_forward.inputs.0.weight", Linear),
        row("model.layers.*.mlp.down_proj.weight", "blk.*.ffn_down.weight", "layers.*.feed_forward.output.weight", Linear),
    ]],
    buffers: ROTARY_BUFFERS,
};

fn describe(keys: &ConfigKeys<'_>) -> Result<DecoderConfig, ConfigError> {
    let keys = keys.with_counts(&[("max_position_embeddings", 4096)]);
    let defaults = Defaults {
        epsilon: 1e-5,
        ..Defaults::LLAMA
    };
    let mut config = llama_like::describe(&keys, NAME, &defaults)?;
    let are_local = vec![true; config.layers.len()];
    llama_like::set_windows(&mut config, &are_local, keys.count("sliding_window")?);
    Ok(DecoderConfig {
        modules: ModuleNames {
            query_key_value: QueryKeyValue::SideBySide("self_attn.qkv_proj"),
            feed_forward: FeedForward::GatedSideBySide("mlp.gate_up_proj"),
            ..llama_like::MODULES
        },
        biases: Biases::NONE,
        ..config
    })
}
