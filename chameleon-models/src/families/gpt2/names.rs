//! The names of a GPT-2 checkpoint's tensors.

use crate::files::name_table::{
    Layout::{Conv1d, Linear, Same},
    NameTable, row,
};

/// Burn calls the weight of a norm `gamma` and its bias `beta`.
#[rustfmt::skip]
pub(crate) const NAMES: NameTable = NameTable {
    prefix: "transformer.",
    rows: &[
        row("transformer.wte.weight", "token_embd.weight", "wte.weight", Same),
        row("transformer.wpe.weight", "position_embd.weight", "wpe.weight", Same),
        row("transformer.h.*.ln_1.weight", "blk.*.attn_norm.weight", "h.*.ln_1.gamma", Same),
        row("transformer.h.*.ln_1.bias", "blk.*.attn_norm.bias", "h.*.ln_1.beta", Same),
        row("transformer.h.*.attn.c_attn.weight", "blk.*.attn_qkv.weight", "h.*.attn.c_attn.weight", Conv1d),
        row("transformer.h.*.attn.c_attn.bias", "blk.*.attn_qkv.bias", "h.*.attn.c_attn.bias", Same),
        row("transformer.h.*.attn.c_proj.weight", "blk.*.attn_output.weight", "h.*.attn.c_proj.weight", Conv1d),
        row("transformer.h.*.attn.c_proj.bias", "blk.*.attn_output.bias", "h.*.attn.c_proj.bias", Same),
        row("transformer.h.*.ln_2.weight", "blk.*.ffn_norm.weight", "h.*.ln_2.gamma", Same),
        row("transformer.h.*.ln_2.bias", "blk.*.ffn_norm.bias", "h.*.ln_2.beta", Same),
        row("transformer.h.*.mlp.c_fc.weight", "blk.*.ffn_up.weight", "h.*.mlp.c_fc.weight", Conv1d),
        row("transformer.h.*.mlp.c_fc.bias", "blk.*.ffn_up.bias", "h.*.mlp.c_fc.bias", Same),
        row("transformer.h.*.mlp.c_proj.weight", "blk.*.ffn_down.weight", "h.*.mlp.c_proj.weight", Conv1d),
        row("transformer.h.*.mlp.c_proj.bias", "blk.*.ffn_down.bias", "h.*.mlp.c_proj.bias", Same),
        row("transformer.ln_f.weight", "output_norm.weight", "ln_f.gamma", Same),
        row("transformer.ln_f.bias", "output_norm.bias", "ln_f.beta", Same),
        row("lm_head.weight", "output.weight", "lm_head.weight", Linear),
    ],
    // Older files carry the causal mask.
    buffers: &[".attn.bias", ".attn.masked_bias"],
};
