//! GPT-NeoX and Pythia: layer norms, query, key and value of each head side by side, part of each head rotated, both
//! parts of a layer beside each other.

use chameleon_core::fused::ScoreRule;

use super::config::{
    Activation, Biases, DecoderConfig, FeedForward, LayerConfig, ModuleNames, NormConfig, NormKind,
    NormPlace, QueryKeyValue, Residual, Scales,
};
use super::config_error::{ConfigError, check_multiple, check_sizes};
use super::config_keys::ConfigKeys;
use super::family::{Family, complete};
use super::llama_like::{num_layers, stable_sizes};
use super::rope_config::{self, RopeDefaults};
use super::sizes::ModelSizes;
use crate::files::gguf_keys::{Kind, key};
use crate::files::name_table::{
    Layout::{ByHead, Linear, Same},
    NameTable, row,
};

const NAME: &str = "gpt_neox";

pub(crate) const FAMILY: Family = Family {
    name: NAME,
    gguf: "gptneox",
    names: NAMES,
    describe,
    gguf_keys: &[&[
        key("hidden_size", "embedding_length", Kind::Count),
        key("intermediate_size", "feed_forward_length", Kind::Count),
        key("num_hidden_layers", "block_count", Kind::Count),
        key("num_attention_heads", "attention.head_count", Kind::Count),
        key("max_position_embeddings", "context_length", Kind::Count),
        key(
            "layer_norm_eps",
            "attention.layer_norm_epsilon",
            Kind::Number,
        ),
        key(
            "use_parallel_residual",
            "use_parallel_residual",
            Kind::OptionalFlag,
        ),
        key("rope_theta", "rope.freq_base", Kind::OptionalNumber),
        key("hidden_act", "", Kind::Text("gelu")),
    ]],
    complete,
};

#[rustfmt::skip]
const NAMES: NameTable = NameTable {
    prefix: "gpt_neox.",
    rows: &[&[
        row("gpt_neox.embed_in.weight", "token_embd.weight", "embed_tokens.weight", Same),
        row("gpt_neox.layers.*.input_layernorm.weight", "blk.*.attn_norm.weight", "layers.*.attention_norms.before.gamma", Same),
        row("gpt_neox.layers.*.input_layernorm.bias", "blk.*.attn_norm.bias", "layers.*.attention_norms.before.beta", Same),
        row("gpt_neox.layers.*.attention.query_key_value.weight", "blk.*.attn_qkv.weight", "layers.*.attention.inputs.0.weight", ByHead),
        row("gpt_neox.layers.*.attention.query_key_value.bias", "blk.*.attn_qkv.bias", "layers.*.attention.inputs.0.bias", ByHead),
        row("gpt_neox.layers.*.attention.dense.weight", "blk.*.attn_output.weight", "layers.*.attention.output.weight", Linear),
        row("gpt_neox.layers.*.attention.dense.bias", "blk.*.attn_output.bias", "layers.*.attention.output.bias", Same),
        row("gpt_neox.layers.*.post_attention_layernorm.weight", "blk.*.ffn_norm.weight", "layers.*.feed_forward_norms.before.gamma", Same),
        row("gpt_neox.layers.*.post_attention_layernorm.bias", "blk.*.ffn_norm.bias", "layers.*.feed_forward_norms.before.beta", Same),
        row("gpt_neox.layers.*.mlp.dense_h_to_4h.weight", "blk.*.ffn_up.weight", "layers.*.feed_forward.inputs.0.weight", Linear),
        row("gpt_neox.layers.*.mlp.dense_h_to_4h.bias", "blk.*.ffn_up.bias", "layers.*.feed_forward.inputs.0.bias", Same),
        row("gpt_neox.layers.*.mlp.dense_4h_to_h.weight", "blk.*.ffn_down.weight", "layers.*.feed_forward.output.weight", Linear),
        row("gpt_neox.layers.*.mlp.dense_4h_to_h.bias", "blk.*.ffn_down.bias", "layers.*.feed_forward.output.bias", Same),
        row("gpt_neox.final_layer_norm.weight", "output_norm.weight", "norm.gamma", Same),
        row("gpt_neox.final_layer_norm.bias", "output_norm.bias", "norm.beta", Same),
        row("embed_out.weight", "output.weight", "lm_head.weight", Linear),
        // Newer releases of transformers name it as in other families.
        row("lm_head.weight", "output.weight", "lm_head.weight", Linear),
    ]],
    // Older files carry the causal mask and the rotary frequencies.
    buffers: &[".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"],
};

fn describe(keys: &ConfigKeys<'_>) -> Result<DecoderConfig, ConfigError> {
    const ACTIVATION: &str = "hidden_act";
    let hidden_size = keys.required_count("hidden_size")?;
    let num_heads = keys.required_count("num_attention_heads")?;
    let heads = ("num_attention_heads", num_heads);
    check_sizes(&[heads])?;
    check_multiple(("hidden_size", hidden_size), heads)?;
    let sizes = ModelSizes {
        vocab_size: keys.required_count("vocab_size")?,
        hidden_size,
        intermediate_size: keys.required_count("intermediate_size")?,
        num_layers: num_layers(keys, "num_hidden_layers")?,
        num_heads,
        num_kv_heads: num_heads,
        head_dim: hidden_size / num_heads,
        max_seq_len: keys.count("max_position_embeddings")?.unwrap_or(2048),
    };
    let rotary = rope_config::rotary(
        keys,
        RopeDefaults {
            head_dim: sizes.head_dim,
            max_seq_len: sizes.max_seq_len,
            base: keys.number_or("rotary_emb_base", 10_000.0)?,
            share: keys.number_or("rotary_pct", 0.25)?,
        },
    )?;
    let attention_bias = keys.flag_or("attention_bias", true)?;
    let layer = LayerConfig {
        rotary: Some(0),
        scores: ScoreRule::of_head(sizes.head_dim),
    };
    Ok(DecoderConfig {
        family: NAME,
        sizes: stable_sizes(sizes, &rotary),
        modules: ModuleNames {
            query_key_value: QueryKeyValue::ByHead("attention.query_key_value"),
            attention_output: "attention.dense",
            feed_forward: FeedForward::Plain("mlp.dense_h_to_4h"),
            feed_forward_output: "mlp.dense_4h_to_h",
        },
        biases: Biases {
            query_key_value: attention_bias,
            attention_output: attention_bias,
            feed_forward: true,
        },
        norm: NormConfig {
            kind: NormKind::Layer,
            epsilon: keys.number_or("layer_norm_eps", 1e-5)?,
        },
        norm_place: NormPlace::Before,
        query_key_norm: None,
        activation: Activation::named(ACTIVATION, keys.text(ACTIVATION)?.unwrap_or("gelu"))?,
        residual: if keys.flag_or("use_parallel_residual", true)? {
            Residual::Parallel
        } else {
            Residual::Sequential
        },
        rotary: vec![rotary],
        layers: vec![layer; sizes.num_layers],
        scales: Scales::NONE,
        is_tied: keys.flag_or("tie_word_embeddings", false)?,
    })
}
