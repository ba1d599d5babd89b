//! Gemma 2 and the text models of Gemma 3: norms before and after each part, scaled embeddings, local and global layers.
//! Gemma 2 caps scores and logits; Gemma 3 has norms of queries and keys, and another rotary embedding in local layers.

use serde_json::{Map, Value, json};

use super::config::{DecoderConfig, NormPlace, QueryKeyNorm, Scales};
use super::config_error::ConfigError;
use super::config_keys::ConfigKeys;
use super::family::Family;
use super::llama_like::{self, Defaults};
use super::names::{
    ATTENTION, ENDS_LESS_ONE, GATED, LLAMA_KEYS, QUERY_KEY_NORMS_LESS_ONE, ROTARY_BUFFERS,
    WINDOW_KEY,
};
use super::rope_config::{self, RopeDefaults};
use crate::files::gguf_keys::{KeyRow, Kind, key};
use crate::files::name_table::{Layout::OneLess, NameRow, NameTable, row};

const GEMMA2_NAME: &str = "gemma2";
const GEMMA3_NAME: &str = "gemma3_text";

pub(crate) const GEMMA2: Family = Family {
    name: GEMMA2_NAME,
    gguf: "gemma2",
    names: NameTable {
        prefix: "model.",
        rows: &[ENDS_LESS_ONE, NORMS, ATTENTION, GATED],
        buffers: ROTARY_BUFFERS,
    },
    describe: gemma2,
    gguf_keys: &[LLAMA_KEYS, WINDOW_KEY, KEYS],
    complete: |config| complete(config, 46),
};

pub(crate) const GEMMA3: Family = Family {
    name: GEMMA3_NAME,
    gguf: "gemma3",
    names: NameTable {
        prefix: "model.",
        rows: &[
            ENDS_LESS_ONE,
            NORMS,
            ATTENTION,
            QUERY_KEY_NORMS_LESS_ONE,
            GATED,
        ],
        buffers: ROTARY_BUFFERS,
    },
    describe: gemma3,
    gguf_keys: &[LLAMA_KEYS, WINDOW_KEY, KEYS],
    complete: |config| complete(config, 62),
};

#[rustfmt::skip]
const NORMS: &[NameRow] = &[
    row("model.layers.*.input_layernorm.weight", "blk.*.attn_norm.weight", "layers.*.attention_norms.before.gamma", OneLess),
    row("model.layers.*.post_attention_layernorm.weight", "blk.*.post_attention_norm.weight", "layers.*.attention_norms.after.gamma", OneLess),
    row("model.layers.*.pre_feedforward_layernorm.weight", "blk.*.ffn_norm.weight", "layers.*.feed_forward_norms.before.gamma", OneLess),
    row("model.layers.*.post_feedforward_layernorm.weight", "blk.*.post_ffw_norm.weight", "layers.*.feed_forward_norms.after.gamma", OneLess),
];

#[rustfmt::skip]
const KEYS: &[KeyRow] = &[
    key("attn_logit_softcapping", "attn_logit_softcapping", Kind::OptionalNumber),
    key("final_logit_softcapping", "final_logit_softcapping", Kind::OptionalNumber),
    key("rope_local_base_freq", "rope.freq_base_swa", Kind::OptionalNumber),
    key("hidden_activation", "", Kind::Text("gelu_pytorch_tanh")),
];

/// GGUF files leave out what the scores are divided by: the width of a head, or in the largest model of each generation,
/// known by its layers, the share of a head in the residual width.
fn complete(config: &mut Map<String, Value>, layers_of_the_largest: u64) {
    let count = |key: &str| config.get(key).and_then(Value::as_u64).unwrap_or(0);
    let scalar = if count("num_hidden_layers") == layers_of_the_largest {
        let num_heads = count("num_attention_heads");
        count("hidden_size").checked_div(num_heads).unwrap_or(0)
    } else {
        count("head_dim")
    };
    config.insert("query_pre_attn_scalar".to_owned(), json!(scalar));
}

const DEFAULTS: Defaults = Defaults {
    activation_key: "hidden_activation",
    activation: "gelu_pytorch_tanh",
    is_tied: true,
    ..Defaults::LLAMA
};

fn gemma2(keys: &ConfigKeys<'_>) -> Result<DecoderConfig, ConfigError> {
    let keys = keys.with_counts(&[
        ("num_key_value_heads", 4),
        ("head_dim", 256),
        ("max_position_embeddings", 8192),
        ("sliding_window", 4096),
    ]);
    let config = llama_like::describe(&keys, GEMMA2_NAME, &DEFAULTS)?;
    let caps = [
        keys.number_unless_absent("attn_logit_softcapping", 50.0)?,
        keys.number_unless_absent("final_logit_softcapping", 30.0)?,
    ];
    gemma(&keys, config, caps, |layer_idx| layer_idx % 2 == 0)
}

fn gemma3(keys: &ConfigKeys<'_>) -> Result<DecoderConfig, ConfigError> {
    // Published configurations leave out what equals the class.
    let keys = keys.with_counts(&[
        ("vocab_size", 262_208),
        ("hidden_size", 2304),
        ("intermediate_size", 9216),
        ("num_hidden_layers", 26),
        ("num_attention_heads", 8),
        ("num_key_value_heads", 4),
        ("head_dim", 256),
        ("max_position_embeddings", 131_072),
        ("sliding_window", 4096),
    ]);
    let parameters = keys.object("rope_parameters")?;
    let of_type = |key| match &parameters {
        Some(parameters) => parameters.object(key),
        None => Ok(None),
    };
    let (local, global) = (of_type("sliding_attention")?, of_type("full_attention")?);
    let defaults = Defaults {
        rope_base: 1_000_000.0,
        ..DEFAULTS
    };
    let mut config = llama_like::describe(&keys, GEMMA3_NAME, &defaults)?;
    let rope = |base| RopeDefaults {
        base,
        ..llama_like::rope_defaults(&config.sizes, &defaults)
    };
    let local_base = keys.number_or("rope_local_base_freq", 10_000.0)?;
    let local = rope_config::local(local, rope(local_base))?;
    let rotary = match global {
        Some(global) => {
            vec![
                rope_config::rotary_of(&keys, Some(global), rope(1_000_000.0))?,
                local,
            ]
        }
        None => vec![config.rotary.remove(0), local],
    };
    config.rotary = rotary;
    config.query_key_norm = Some(QueryKeyNorm::Head);
    let caps = [
        keys.number("attn_logit_softcapping")?,
        keys.number("final_logit_softcapping")?,
    ];
    let pattern = keys.count("sliding_window_pattern")?.unwrap_or(6).max(1);
    let mut config = gemma(&keys, config, caps, |layer_idx| {
        !(layer_idx + 1).is_multiple_of(pattern)
    })?;
    for layer in &mut config.layers {
        layer.rotary = Some(usize::from(layer.scores.window.is_some()));
    }
    Ok(config)
}

/// What both generations share.
fn gemma(
    keys: &ConfigKeys<'_>,
    mut config: DecoderConfig,
    [score_cap, logit_soft_cap]: [Option<f64>; 2],
    is_local: impl Fn(usize) -> bool,
) -> Result<DecoderConfig, ConfigError> {
    if keys.flag_or("use_bidirectional_attention", false)? {
        return Err(ConfigError::Unsupported {
            key: "use_bidirectional_attention",
            found: "true".to_owned(),
            supported: "false",
        });
    }
    let scalar = keys.number_or("query_pre_attn_scalar", 256.0)?;
    for layer in &mut config.layers {
        layer.scores.scale = scalar.sqrt().recip();
        layer.scores.soft_cap = score_cap;
    }
    let are_local = llama_like::local_layers(keys, config.layers.len(), is_local)?;
    llama_like::set_windows(&mut config, &are_local, keys.count("sliding_window")?);
    Ok(DecoderConfig {
        norm_place: NormPlace::Both,
        scales: Scales {
            embedding: Some((config.sizes.hidden_size as f64).sqrt()),
            logit_soft_cap,
            ..Scales::NONE
        },
        ..config
    })
}
