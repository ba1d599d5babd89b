//! Continues a batch of prompts of any lengths with a model as it is, and waits for all of them.
//!
//! For adapters, texts and requests that come and go there is the [`engine`](crate::engine).

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use chameleon_core::RunSeed;

use crate::engine::lane::{Lane, NewRow, enough_rows, on_host};
use crate::engine::sampling::{Sampler, Sampling};
use crate::error::ModelError;
use crate::families::causal_lm::CausalLm;

/// How to decode.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// The most tokens to add to a prompt.
    pub max_new_tokens: usize,
    /// How each token is chosen.
    pub sampling: Sampling,
    /// Tokens that end a text; they do not become part of it.
    pub stop_token_ids: Vec<u32>,
    /// Every prompt draws from a stream of its own, named by its position.
    pub seed: RunSeed,
}

/// A token that was just chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewToken {
    /// The prompt it continues.
    pub prompt_idx: usize,
    /// How many tokens came after the prompt before this one.
    pub token_idx: usize,
    /// The token.
    pub token_id: u32,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// The model chose a stop token.
    StopToken,
    /// It has as many tokens as were asked for.
    MaxNewTokens,
    /// It is as long as the model allows.
    ContextFull,
    /// The caller said so.
    Stopped,
}

/// What was added to one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The new tokens, without the prompt and without a stop token.
    pub token_ids: Vec<u32>,
    /// Why there are no more.
    pub finish_reason: FinishReason,
}

/// The answer to a batch of prompts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerateOutput {
    /// One for each prompt, in their order.
    pub generations: Vec<Generation>,
    /// What it cost.
    pub timings: GenerateTimings,
}

/// What decoding a batch cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GenerateTimings {
    /// Tokens in all prompts, without padding.
    pub num_prompt_tokens: usize,
    /// The passes in which any prompt was read.
    pub prompt_time: Duration,
    /// Tokens chosen after the first of each row, stop tokens included.
    pub num_decoded_tokens: usize,
    /// The other passes.
    pub decode_time: Duration,
}

/// Continues every prompt.
///
/// `on_token` hears of every new token as soon as it is chosen, and ends a row with [`ControlFlow::Break`]. What is
/// written does not depend on the other prompts.
///
/// # Errors
///
/// Fails if a prompt is empty, longer than the model allows, or holds a token the model does not know.
pub fn generate<M: CausalLm + ?Sized>(
    model: &M,
    prompts: &[&[u32]],
    options: &GenerateOptions,
    mut on_token: impl FnMut(NewToken) -> ControlFlow<()>,
) -> Result<GenerateOutput, ModelError> {
    check_prompts(model, prompts)?;
    let mut timings = GenerateTimings::default();
    let mut rows: Vec<Row> = (0..prompts.len())
        .map(|prompt_idx| Row::new(prompt_idx, options))
        .collect();
    let mut lane = Lane::new(model.sizes(), &model.head_weight().device());
    if options.max_new_tokens > 0 {
        for (prompt_idx, prompt) in prompts.iter().enumerate() {
            let row = NewRow {
                prompt: prompt.to_vec(),
                ..NewRow::default()
            };
            lane.add(prompt_idx, row);
        }
    }
    while !lane.is_empty() {
        let start = Instant::now();
        let step = lane.step(model, PREFILL_CHUNK);
        if let Some(hidden) = step.hidden {
            let vocab_size = model.sizes().vocab_size;
            let logits = on_host(model.logits(enough_rows(hidden)));
            for (prompt_idx, logits) in step.keys.into_iter().zip(logits.chunks_exact(vocab_size)) {
                let row = &mut rows[prompt_idx];
                let room = model.sizes().max_seq_len - prompts[prompt_idx].len();
                match row.choose(prompt_idx, logits, room, options, &mut on_token) {
                    Some(token_id) => lane.push(prompt_idx, token_id),
                    None => lane.remove(prompt_idx),
                }
            }
        }
        timings.num_prompt_tokens += step.num_prompt_tokens;
        timings.num_decoded_tokens += step.num_writing;
        if step.num_prompt_tokens > 0 {
            timings.prompt_time += start.elapsed();
        } else {
            timings.decode_time += start.elapsed();
        }
    }
    Ok(GenerateOutput {
        generations: rows.into_iter().map(|row| row.generation).collect(),
        timings,
    })
}

/// Prompt tokens read at a time.
const PREFILL_CHUNK: usize = 512;

/// One prompt's text so far.
struct Row {
    sampler: Sampler,
    generation: Generation,
}

impl Row {
    fn new(prompt_idx: usize, options: &GenerateOptions) -> Self {
        Self {
            sampler: Sampler::new(
                options.sampling,
                options.seed.stream(&format!("prompt {prompt_idx}")),
            ),
            generation: Generation {
                token_ids: Vec::new(),
                finish_reason: FinishReason::MaxNewTokens,
            },
        }
    }

    /// Chooses a token; answers with it if the row goes on.
    fn choose(
        &mut self,
        prompt_idx: usize,
        logits: &[f32],
        room: usize,
        options: &GenerateOptions,
        on_token: &mut impl FnMut(NewToken) -> ControlFlow<()>,
    ) -> Option<u32> {
        let generation = &mut self.generation;
        let token_id = self.sampler.sample(logits);
        if options.stop_token_ids.contains(&token_id) {
            generation.finish_reason = FinishReason::StopToken;
            return None;
        }
        let flow = on_token(NewToken {
            prompt_idx,
            token_idx: generation.token_ids.len(),
            token_id,
        });
        generation.token_ids.push(token_id);
        if flow.is_break() {
            generation.finish_reason = FinishReason::Stopped;
        } else if generation.token_ids.len() == options.max_new_tokens {
            generation.finish_reason = FinishReason::MaxNewTokens;
        } else if generation.token_ids.len() > room {
            generation.finish_reason = FinishReason::ContextFull;
        } else {
            return Some(token_id);
        }
        None
    }
}

fn check_prompts<M: CausalLm + ?Sized>(model: &M, prompts: &[&[u32]]) -> Result<(), ModelError> {
    let sizes = model.sizes();
    for (prompt_idx, prompt) in prompts.iter().enumerate() {
        if prompt.is_empty() || prompt.len() > sizes.max_seq_len {
            return Err(ModelError::PromptLen {
                prompt_idx,
                found: prompt.len(),
                max_seq_len: sizes.max_seq_len,
            });
        }
        if let Some(&token_id) = prompt
            .iter()
            .find(|&&token_id| token_id as usize >= sizes.vocab_size)
        {
            return Err(ModelError::PromptToken {
                prompt_idx,
                token_id,
                vocab_size: sizes.vocab_size,
            });
        }
    }
    Ok(())
}
