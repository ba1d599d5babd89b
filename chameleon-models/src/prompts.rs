//! Prompt embeddings of token sequences, by a model's own input embedding.

use burn::tensor::Tensor;
use chameleon_core::{TokenBatch, prompt_embeddings};

use crate::causal_lm::CausalLm;

/// Prompts embedded at a time; bounds memory, changes nothing.
const CHUNK_PROMPTS: usize = 256;

/// Embeds prompts: the unit-norm mean of their input-token embeddings.
///
/// Give conditioning spans here, never whole sequences: what is embedded is what the hypernetwork
/// gets to see.
///
/// # Shapes
///
/// - output: `[prompts, hidden]`
///
/// # Panics
///
/// When there is no prompt or one is empty.
pub fn embed_prompts(model: &impl CausalLm, prompts: &[&[u32]]) -> Tensor<2> {
    let device = model.head_weight().device();
    let chunks = prompts
        .chunks(CHUNK_PROMPTS)
        .map(|prompts| {
            assert!(
                prompts.iter().all(|prompt| !prompt.is_empty()),
                "a prompt has at least one token"
            );
            // Padding is masked, so any token may stand for it.
            let batch = TokenBatch::from_rows(prompts, 0, &device);
            prompt_embeddings(model.embed(batch.token_ids), batch.pad_mask)
        })
        .collect();
    Tensor::cat(chunks, 0)
}
