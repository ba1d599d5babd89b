//! The names of tensors that several families share. Burn calls the scale of a norm `gamma` and its shift `beta`.

use crate::files::gguf_keys::{KeyRow, Kind, key};
use crate::files::name_table::{
    Heads::{KeyValue, Query},
    Layout::{self, Linear, OneLess, Rotary, Same},
    NameRow, row,
};

/// Embedding, last norm and head.
#[rustfmt::skip]
pub(super) const ENDS: &[NameRow] = &ends(Same);

/// The same where norms are stored less one.
#[rustfmt::skip]
pub(super) const ENDS_LESS_ONE: &[NameRow] = &ends(OneLess);

#[rustfmt::skip]
const fn ends(norm: Layout) -> [NameRow; 3] {
    [
        row("model.embed_tokens.weight", "token_embd.weight", "embed_tokens.weight", Same),
        row("model.norm.weight", "output_norm.weight", "norm.gamma", norm),
        row("lm_head.weight", "output.weight", "lm_head.weight", Linear),
    ]
}

/// Attention with a module each for query, key and value.
pub(super) const ATTENTION: &[NameRow] = &attention(Linear, Linear);

/// The same where GGUF files store queries and keys in rotary pairs.
pub(super) const PAIRED_ATTENTION: &[NameRow] = &attention(Rotary(Query), Rotary(KeyValue));

#[rustfmt::skip]
const fn attention(query: Layout, key: Layout) -> [NameRow; 8] {
    [
        row("model.layers.*.self_attn.q_proj.weight", "blk.*.attn_q.weight", "layers.*.attention.inputs.0.weight", query),
        row("model.layers.*.self_attn.q_proj.bias", "blk.*.attn_q.bias", "layers.*.attention.inputs.0.bias", query),
        row("model.layers.*.self_attn.k_proj.weight", "blk.*.attn_k.weight", "layers.*.attention.inputs.1.weight", key),
        row("model.layers.*.self_attn.k_proj.bias", "blk.*.attn_k.bias", "layers.*.attention.inputs.1.bias", key),
        row("model.layers.*.self_attn.v_proj.weight", "blk.*.attn_v.weight", "layers.*.attention.inputs.2.weight", Linear),
        row("model.layers.*.self_attn.v_proj.bias", "blk.*.attn_v.bias", "layers.*.attention.inputs.2.bias", Same),
        row("model.layers.*.self_attn.o_proj.weight", "blk.*.attn_output.weight", "layers.*.attention.output.weight", Linear),
        row("model.layers.*.self_attn.o_proj.bias", "blk.*.attn_output.bias", "layers.*.attention.output.bias", Same),
    ]
}

/// Norms of queries and keys.
pub(super) const QUERY_KEY_NORMS: &[NameRow] = &query_key_norms(Same);

/// The same stored less one.
pub(super) const QUERY_KEY_NORMS_LESS_ONE: &[NameRow] = &query_key_norms(OneLess);

#[rustfmt::skip]
const fn query_key_norms(norm: Layout) -> [NameRow; 2] {
    [
        row("model.layers.*.self_attn.q_norm.weight", "blk.*.attn_q_norm.weight", "layers.*.attention.query_norm.gamma", norm),
        row("model.layers.*.self_attn.k_norm.weight", "blk.*.attn_k_norm.weight", "layers.*.attention.key_norm.gamma", norm),
    ]
}

/// Norms before attention and before the feed-forward part.
#[rustfmt::skip]
pub(super) const NORMS_BEFORE: &[NameRow] = &[
    row("model.layers.*.input_layernorm.weight", "blk.*.attn_norm.weight", "layers.*.attention_norms.before.gamma", Same),
    row("model.layers.*.post_attention_layernorm.weight", "blk.*.ffn_norm.weight", "layers.*.feed_forward_norms.before.gamma", Same),
];

/// The gated feed-forward part.
#[rustfmt::skip]
pub(super) const GATED: &[NameRow] = &[
    row("model.layers.*.mlp.gate_proj.weight", "blk.*.ffn_gate.weight", "layers.*.feed_forward.inputs.0.weight", Linear),
    row("model.layers.*.mlp.gate_proj.bias", "blk.*.ffn_gate.bias", "layers.*.feed_forward.inputs.0.bias", Same),
    row("model.layers.*.mlp.up_proj.weight", "blk.*.ffn_up.weight", "layers.*.feed_forward.inputs.1.weight", Linear),
    row("model.layers.*.mlp.up_proj.bias", "blk.*.ffn_up.bias", "layers.*.feed_forward.inputs.1.bias", Same),
    row("model.layers.*.mlp.down_proj.weight", "blk.*.ffn_down.weight", "layers.*.feed_forward.output.weight", Linear),
    row("model.layers.*.mlp.down_proj.bias", "blk.*.ffn_down.bias", "layers.*.feed_forward.output.bias", Same),
];

/// Older files carry the rotary frequencies, which the configuration determines.
pub(super) const ROTARY_BUFFERS: &[&str] = &[".rotary_emb.inv_freq"];

/// Where GGUF files hold the keys of Llama.
pub(super) const LLAMA_KEYS: &[KeyRow] = &[
    key("hidden_size", "embedding_length", Kind::Count),
    key("intermediate_size", "feed_forward_length", Kind::Count),
    key("num_hidden_layers", "block_count", Kind::Count),
    key("num_attention_heads", "attention.head_count", Kind::Count),
    key(
        "num_key_value_heads",
        "attention.head_count_kv",
        Kind::OptionalCount,
    ),
    key("head_dim", "attention.key_length", Kind::OptionalCount),
    key("max_position_embeddings", "context_length", Kind::Count),
    key(
        "rms_norm_eps",
        "attention.layer_norm_rms_epsilon",
        Kind::Number,
    ),
    key("rope_theta", "rope.freq_base", Kind::OptionalNumber),
    key("hidden_act", "", Kind::Text("silu")),
    key("attention_bias", "blk.0.attn_q.bias", Kind::HasTensor),
    key("mlp_bias", "blk.0.ffn_up.bias", Kind::HasTensor),
];

/// The window of layers that have one; zero stands for none.
pub(super) const WINDOW_KEY: &[KeyRow] = &[key(
    "sliding_window",
    "attention.sliding_window",
    Kind::OptionalCount,
)];
