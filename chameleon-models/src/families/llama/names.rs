//! The names of a Llama checkpoint's tensors.

use crate::files::name_table::{
    Heads::{KeyValue, Query},
    Layout::{Linear, Rotary, Same},
    NameTable, row,
};

/// Burn calls the weight of a norm `gamma`.
#[rustfmt::skip]
pub(crate) const NAMES: NameTable = NameTable {
    prefix: "model.",
    rows: &[
        row("model.embed_tokens.weight", "token_embd.weight", "embed_tokens.weight", Same),
        row("model.layers.*.input_layernorm.weight", "blk.*.attn_norm.weight", "layers.*.input_layernorm.gamma", Same),
        row("model.layers.*.self_attn.q_proj.weight", "blk.*.attn_q.weight", "layers.*.self_attn.q_proj.weight", Rotary(Query)),
        row("model.layers.*.self_attn.q_proj.bias", "blk.*.attn_q.bias", "layers.*.self_attn.q_proj.bias", Rotary(Query)),
        row("model.layers.*.self_attn.k_proj.weight", "blk.*.attn_k.weight", "layers.*.self_attn.k_proj.weight", Rotary(KeyValue)),
        row("model.layers.*.self_attn.k_proj.bias", "blk.*.attn_k.bias", "layers.*.self_attn.k_proj.bias", Rotary(KeyValue)),
        row("model.layers.*.self_attn.v_proj.weight", "blk.*.attn_v.weight", "layers.*.self_attn.v_proj.weight", Linear),
        row("model.layers.*.self_attn.v_proj.bias", "blk.*.attn_v.bias", "layers.*.self_attn.v_proj.bias", Same),
        row("model.layers.*.self_attn.o_proj.weight", "blk.*.attn_output.weight", "layers.*.self_attn.o_proj.weight", Linear),
        row("model.layers.*.self_attn.o_proj.bias", "blk.*.attn_output.bias", "layers.*.self_attn.o_proj.bias", Same),
        row("model.layers.*.post_attention_layernorm.weight", "blk.*.ffn_norm.weight", "layers.*.post_attention_layernorm.gamma", Same),
        row("model.layers.*.mlp.gate_proj.weight", "blk.*.ffn_gate.weight", "layers.*.mlp.gate_proj.weight", Linear),
        row("model.layers.*.mlp.gate_proj.bias", "blk.*.ffn_gate.bias", "layers.*.mlp.gate_proj.bias", Same),
        row("model.layers.*.mlp.up_proj.weight", "blk.*.ffn_up.weight", "layers.*.mlp.up_proj.weight", Linear),
        row("model.layers.*.mlp.up_proj.bias", "blk.*.ffn_up.bias", "layers.*.mlp.up_proj.bias", Same),
        row("model.layers.*.mlp.down_proj.weight", "blk.*.ffn_down.weight", "layers.*.mlp.down_proj.weight", Linear),
        row("model.layers.*.mlp.down_proj.bias", "blk.*.ffn_down.bias", "layers.*.mlp.down_proj.bias", Same),
        row("model.norm.weight", "output_norm.weight", "norm.gamma", Same),
        row("lm_head.weight", "output.weight", "lm_head.weight", Linear),
    ],
    // Older files carry the rotary frequencies, which the configuration determines.
    buffers: &[".rotary_emb.inv_freq"],
};
