//! Where each tensor of a GPT-2 checkpoint belongs.

use burn_pack::Tensor as StoredTensor;

use super::model::Gpt2;
use crate::files::key_map::{ImportReport, KeyMap, KeyRule, import};

/// GPT-2's `Conv1D` stores `[in, out]`, as Burn's linear layers do: only the head is turned. Burn calls
/// the weight of a norm `gamma` and its bias `beta`.
const KEY_MAP: KeyMap = KeyMap {
    optional_prefix: "transformer.",
    rules: &[
        KeyRule::same("wte.weight"),
        KeyRule::same("wpe.weight"),
        KeyRule::renamed("h.*.ln_1.weight", "h.*.ln_1.gamma"),
        KeyRule::renamed("h.*.ln_1.bias", "h.*.ln_1.beta"),
        KeyRule::same("h.*.attn.c_attn.weight"),
        KeyRule::same("h.*.attn.c_attn.bias"),
        KeyRule::same("h.*.attn.c_proj.weight"),
        KeyRule::same("h.*.attn.c_proj.bias"),
        KeyRule::renamed("h.*.ln_2.weight", "h.*.ln_2.gamma"),
        KeyRule::renamed("h.*.ln_2.bias", "h.*.ln_2.beta"),
        KeyRule::same("h.*.mlp.c_fc.weight"),
        KeyRule::same("h.*.mlp.c_fc.bias"),
        KeyRule::same("h.*.mlp.c_proj.weight"),
        KeyRule::same("h.*.mlp.c_proj.bias"),
        KeyRule::renamed("ln_f.weight", "ln_f.gamma"),
        KeyRule::renamed("ln_f.bias", "ln_f.beta"),
        KeyRule::HEAD,
    ],
    // Older files carry the causal mask.
    ignored_endings: &[".attn.bias", ".attn.masked_bias"],
};

impl Gpt2 {
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
