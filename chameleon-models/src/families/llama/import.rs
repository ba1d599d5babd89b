//! Where each tensor of a Llama checkpoint belongs.

use burn_pack::Tensor as StoredTensor;

use super::model::Llama;
use crate::files::key_map::{ImportReport, KeyMap, KeyRule, import};

/// Burn's linear layers hold `[in, out]`, PyTorch's `[out, in]`; Burn calls the weight of a norm `gamma`.
const KEY_MAP: KeyMap = KeyMap {
    optional_prefix: "model.",
    rules: &[
        KeyRule::same("embed_tokens.weight"),
        KeyRule::renamed(
            "layers.*.input_layernorm.weight",
            "layers.*.input_layernorm.gamma",
        ),
        KeyRule::turned("layers.*.self_attn.q_proj.weight"),
        KeyRule::turned("layers.*.self_attn.k_proj.weight"),
        KeyRule::turned("layers.*.self_attn.v_proj.weight"),
        KeyRule::turned("layers.*.self_attn.o_proj.weight"),
        KeyRule::same("layers.*.self_attn.q_proj.bias"),
        KeyRule::same("layers.*.self_attn.k_proj.bias"),
        KeyRule::same("layers.*.self_attn.v_proj.bias"),
        KeyRule::same("layers.*.self_attn.o_proj.bias"),
        KeyRule::renamed(
            "layers.*.post_attention_layernorm.weight",
            "layers.*.post_attention_layernorm.gamma",
        ),
        KeyRule::turned("layers.*.mlp.gate_proj.weight"),
        KeyRule::turned("layers.*.mlp.up_proj.weight"),
        KeyRule::turned("layers.*.mlp.down_proj.weight"),
        KeyRule::same("layers.*.mlp.gate_proj.bias"),
        KeyRule::same("layers.*.mlp.up_proj.bias"),
        KeyRule::same("layers.*.mlp.down_proj.bias"),
        KeyRule::renamed("norm.weight", "norm.gamma"),
        KeyRule::HEAD,
    ],
    // Older files carry the angular speeds, which the configuration determines.
    ignored_endings: &["rotary_emb.inv_freq"],
};

impl Llama {
    /// Takes its weights from the tensors of a checkpoint: named as Hugging Face does, of type f32.
    ///
    /// Whatever does not fit is named in the report, and leaves that part of the model as it was.
    pub fn import(&mut self, tensors: Vec<StoredTensor>) -> ImportReport {
        let report = import(self, tensors, &KEY_MAP);
        match self.lm_head {
            Some(_) => report,
            None => report.ignoring_tied_head(),
        }
    }
}
