//! GPT-2: learned positions, layer norms, one projection for query, key and value.

use chameleon_core::fused::ScoreRule;

use super::config::{
    Activation, Biases, DecoderConfig, FeedForward, LayerConfig, ModuleNames, NormConfig, NormKind,
    NormPlace, QueryKeyValue, Residual, Scales,
};
use super::config_error::{ConfigError, check_multiple, check_sizes};
use super::config_keys::ConfigKeys;
use super::family::{Family, complete};
use super::llama_like::num_layers;
use super::sizes::ModelSizes;
use crate::files::gguf_keys::{Kind, key};
use crate::files::name_table::{
    Layout::{Conv1d, Linear, Same},
    NameTable, row,
};

const NAME: &str = "gpt2";

pub(crate) const FAMILY: Family = Family {
    name: NAME,
    gguf: NAME,
    names: NAMES,
    describe,
    gguf_keys: &[&[
        key("n_embd", "embedding_length", Kind::Count),
        key("n_inner", "feed_forward_length", Kind::Count),
        key("n_layer", "block_count", Kind::Count),
        key("n_head", "attention.head_count", Kind::Count),
        key("n_positions", "context_length", Kind::Count),
        key("n_ctx", "context_length", Kind::Count),
        key(
            "layer_norm_epsilon",
            "attention.layer_norm_epsilon",
            Kind::Number,
        ),
        key("activation_function", "", Kind::Text("gelu_new")),
    ]],
    complete,
};

#[rustfmt::skip]
const NAMES: NameTable = NameTable {
    prefix: "transformer.",
    rows: &[&[
        row("transformer.wte.weight", "token_embd.weight", "embed_tokens.weight", Same),
        row("transformer.wpe.weight", "position_embd.weight", "embed_positions.weight", Same),
        row("transformer.h.*.ln_1.weight", "blk.*.attn_norm.weight", "layers.*.attention_norms.before.gamma", Same),
        row("transformer.h.*.ln_1.bias", "blk.*.attn_norm.bias", "layers.*.attention_norms.before.beta", Same),
        row("transformer.h.*.attn.c_attn.weight", "blk.*.attn_qkv.weight", "layers.*.attention.inputs.0.weight", Conv1d),
        row("transformer.h.*.attn.c_attn.bias", "blk.*.attn_qkv.bias", "layers.*.attention.inputs.0.bias", Same),
        row("transformer.h.*.attn.c_proj.weight", "blk.*.attn_output.weight", "layers.*.attention.output.weight", Conv1d),
        row("transformer.h.*.attn.c_proj.bias", "blk.*.attn_output.bias", "layers.*.attention.output.bias", Same),
        row("transformer.h.*.ln_2.weight", "blk.*.ffn_norm.weight", "layers.*.feed_forward_norms.before.gamma", Same),
        row("transformer.h.*.ln_2.bias", "blk.*.ffn_norm.bias", "layers.*.feed_forward_norms.before.beta", Same),
        row("transformer.h.*.mlp.c_fc.weight", "blk.*.ffn_up.weight", "layers.*.feed_forward.inputs.0.weight", Conv1d),
        row("transformer.h.*.mlp.c_fc.bias", "blk.*.ffn_up.bias", "layers.*.feed_forward.inputs.0.bias", Same),
        row("transformer.h.*.mlp.c_proj.weight", "blk.*.ffn_down.weight", "layers.*.feed_forward.output.weight", Conv1d),
        row("transformer.h.*.mlp.c_proj.bias", "blk.*.ffn_down.bias", "layers.*.feed_forward.output.bias", Same),
        row("transformer.ln_f.weight", "output_norm.weight", "norm.gamma", Same),
        row("transformer.ln_f.bias", "output_norm.bias", "norm.beta", Same),
        row("lm_head.weight", "output.weight", "lm_head.weight", Linear),
    ]],
    // Older files carry the causal mask.
    buffers: &[".attn.bias", ".attn.masked_bias"],
};

fn describe(keys: &ConfigKeys<'_>) -> Result<DecoderConfig, ConfigError> {
    const ACTIVATION: &str = "activation_function";
    if keys.flag_or("add_cross_attention", false)? {
        return Err(ConfigError::Unsupported {
            key: "add_cross_attention",
            found: "true".to_owned(),
            supported: "false",
        });
    }
    let hidden_size = keys.first_count(["n_embd", "hidden_size"])?;
    let num_heads = keys.first_count(["n_head", "num_attention_heads"])?;
    check_sizes(&[("n_head", num_heads)])?;
    check_multiple(("n_embd", hidden_size), ("n_head", num_heads))?;
    let layers_key = if keys.has("n_layer") {
        "n_layer"
    } else {
        "num_hidden_layers"
    };
    let sizes = ModelSizes {
        vocab_size: keys.required_count("vocab_size")?,
        hidden_size,
        intermediate_size: keys.count("n_inner")?.unwrap_or(4 * hidden_size),
        num_layers: num_layers(keys, layers_key)?,
        num_heads,
        num_kv_heads: num_heads,
        head_dim: hidden_size / num_heads,
        max_seq_len: keys.first_count(["n_positions", "max_position_embeddings"])?,
    };
    let scale = if keys.flag_or("scale_attn_weights", true)? {
        ScoreRule::of_head(sizes.head_dim).scale
    } else {
        1.0
    };
    let by_layer = keys.flag_or("scale_attn_by_inverse_layer_idx", false)?;
    let layer = |layer_idx: usize| LayerConfig {
        rotary: None,
        scores: ScoreRule {
            scale: if by_layer {
                scale / (layer_idx + 1) as f64
            } else {
                scale
            },
            ..ScoreRule::of_head(sizes.head_dim)
        },
    };
    Ok(DecoderConfig {
        family: NAME,
        sizes,
        modules: ModuleNames {
            query_key_value: QueryKeyValue::SideBySide("attn.c_attn"),
            attention_output: "attn.c_proj",
            feed_forward: FeedForward::Plain("mlp.c_fc"),
            feed_forward_output: "mlp.c_proj",
        },
        biases: Biases::ALL,
        norm: NormConfig {
            kind: NormKind::Layer,
            epsilon: keys.number_or("layer_norm_epsilon", 1e-5)?,
        },
        norm_place: NormPlace::Before,
        query_key_norm: None,
        activation: Activation::named(ACTIVATION, keys.text(ACTIVATION)?.unwrap_or("gelu_new"))?,
        residual: Residual::Sequential,
        rotary: Vec::new(),
        layers: (0..sizes.num_layers).map(layer).collect(),
        scales: Scales::NONE,
        is_tied: keys.flag_or("tie_word_embeddings", true)?,
    })
}
