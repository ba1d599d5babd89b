//! Where each tensor of a Llama checkpoint belongs.

use burn_pack::Tensor as StoredTensor;

use super::model::Llama;
use crate::key_map::{ImportReport, KeyMap, KeyRule, Prefix, StoredLayout, import};

/// Burn's linear layers hold `[in, out]`, PyTorch's `[out, in]`; Burn calls the weight of a norm `gamma`.
const KEY_MAP: KeyMap = KeyMap {
    optional_prefix: "model.",
    rules: &[
        same("embed_tokens.weight", "embed_tokens.weight"),
        same(
            "layers.*.input_layernorm.weight",
            "layers.*.input_layernorm.gamma",
        ),
        turned("layers.*.self_attn.q_proj.weight"),
        turned("layers.*.self_attn.k_proj.weight"),
        turned("layers.*.self_attn.v_proj.weight"),
        turned("layers.*.self_attn.o_proj.weight"),
        bias("layers.*.self_attn.q_proj.bias"),
        bias("layers.*.self_attn.k_proj.bias"),
        bias("layers.*.self_attn.v_proj.bias"),
        bias("layers.*.self_attn.o_proj.bias"),
        same(
            "layers.*.post_attention_layernorm.weight",
            "layers.*.post_attention_layernorm.gamma",
        ),
        turned("layers.*.mlp.gate_proj.weight"),
        turned("layers.*.mlp.up_proj.weight"),
        turned("layers.*.mlp.down_proj.weight"),
        bias("layers.*.mlp.gate_proj.bias"),
        bias("layers.*.mlp.up_proj.bias"),
        bias("layers.*.mlp.down_proj.bias"),
        same("norm.weight", "norm.gamma"),
        KeyRule {
            prefix: Prefix::Never,
            ..turned(HEAD)
        },
    ],
    // Older files carry the angular speeds, which the configuration determines.
    ignored_endings: &["rotary_emb.inv_freq"],
};

const HEAD: &str = "lm_head.weight";

impl Llama {
    /// Takes its weights from the tensors of a checkpoint: named as Hugging Face does, of type f32.
    ///
    /// Whatever does not fit is named in the report, and leaves that part of the model as it was.
    pub fn import(&mut self, tensors: Vec<StoredTensor>) -> ImportReport {
        let mut report = import(self, tensors, &KEY_MAP);
        if self.lm_head.is_none()
            && let Some(position) = report.unused.iter().position(|name| name == HEAD)
        {
            // A tied model is often saved with a copy of the embedding as its head.
            report.ignored.push(report.unused.remove(position));
        }
        report
    }
}

const fn same(stored: &'static str, field: &'static str) -> KeyRule {
    KeyRule {
        stored,
        field,
        layout: StoredLayout::Same,
        prefix: Prefix::Usual,
    }
}

const fn bias(name: &'static str) -> KeyRule {
    same(name, name)
}

const fn turned(name: &'static str) -> KeyRule {
    KeyRule {
        stored: name,
        field: name,
        layout: StoredLayout::Transposed,
        prefix: Prefix::Usual,
    }
}
