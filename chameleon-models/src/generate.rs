//! The decoding loop: a batch of prompts of any lengths, one token a step for each row that still runs.
//!
//! What happens between hidden states and logits is the caller's: [`generate`] asks a closure, and
//! [`AdaptedHead`] gives every prompt the factors of its own group.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use burn::tensor::{Int, Tensor, TensorData, assert_shape};
use chameleon_core::RunSeed;
use chameleon_hypernet::GroupedFactors;

use crate::causal_lm::CausalLm;
use crate::error::ModelError;
use crate::indices::index_tensor;
use crate::kv_cache::KvCache;
use crate::sampling::{Sampler, Sampling};

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

/// The last hidden states of the rows that still run.
#[derive(Debug)]
pub struct HeadRows<'a> {
    /// `[rows, hidden]`
    pub hidden: Tensor<2>,
    /// Which prompt each row continues.
    pub prompt_indices: &'a [usize],
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
    /// Until the first token of every row was chosen.
    pub prompt_time: Duration,
    /// Tokens chosen after that, stop tokens included.
    pub num_decoded_tokens: usize,
    /// The time they took.
    pub decode_time: Duration,
}

/// Continues every prompt.
///
/// `head` turns the last hidden states of the running rows into logits `[rows, vocab]`; `on_token` hears of
/// every new token as soon as it is chosen, and ends a row with [`ControlFlow::Break`].
///
/// # Errors
///
/// Fails if a prompt is empty, longer than the model allows, or holds a token the model does not know.
///
/// # Panics
///
/// Panics if `head` answers with another shape than `[rows, vocab]`.
pub fn generate<M: CausalLm + ?Sized>(
    model: &M,
    prompts: &[&[u32]],
    options: &GenerateOptions,
    mut head: impl FnMut(HeadRows<'_>) -> Tensor<2>,
    mut on_token: impl FnMut(NewToken) -> ControlFlow<()>,
) -> Result<GenerateOutput, ModelError> {
    check_prompts(model, prompts)?;
    let mut batch = RunningBatch::new(model.sizes().max_seq_len, prompts, options);
    let mut timings = GenerateTimings {
        num_prompt_tokens: prompts.iter().map(|prompt| prompt.len()).sum(),
        ..GenerateTimings::default()
    };
    if batch.rows.is_empty() {
        return Ok(batch.into_output(timings));
    }

    let device = model.head_weight().device();
    let mut cache = KvCache::new(
        &prompts
            .iter()
            .map(|prompt| prompt.len())
            .collect::<Vec<_>>(),
    );
    let start = Instant::now();
    let hidden = model.hidden_states_with_cache(padded(prompts, &device), &mut cache);
    let last_tokens: Vec<usize> = prompts.iter().map(|prompt| prompt.len() - 1).collect();
    let mut next_hidden = select_tokens(hidden, &last_tokens);
    let mut is_prompt = true;
    let mut decode_start = start;
    loop {
        let prompt_indices: Vec<usize> = batch.rows.iter().map(|row| row.prompt_idx).collect();
        let logits = head(HeadRows {
            hidden: next_hidden,
            prompt_indices: &prompt_indices,
        });
        assert_shape!(logits, [prompt_indices.len(), model.sizes().vocab_size]);
        let kept = batch.choose(&logits_on_host(logits), &mut on_token);
        if is_prompt {
            timings.prompt_time = start.elapsed();
            decode_start = Instant::now();
            is_prompt = false;
        } else {
            timings.num_decoded_tokens += prompt_indices.len();
        }
        if kept.is_empty() {
            break;
        }
        if kept.len() < prompt_indices.len() {
            cache.keep_rows(&kept);
        }
        let token_ids: Vec<i64> = batch
            .rows
            .iter()
            .map(|row| i64::from(row.last_token_id))
            .collect();
        let token_ids = TensorData::new(token_ids, [kept.len(), 1]);
        let token_ids = Tensor::<2, Int>::from_data(token_ids, &device);
        let hidden = model.hidden_states_with_cache(token_ids, &mut cache);
        next_hidden = hidden.squeeze_dim(1); // [rows, hidden]
    }
    timings.decode_time = decode_start.elapsed();
    Ok(batch.into_output(timings))
}

/// A head that adds, for each prompt, the factors of its group: `h·W + scale·(h·a)·b`.
#[derive(Debug)]
pub struct AdaptedHead<'a, M: ?Sized> {
    /// The model, for its frozen head.
    pub model: &'a M,
    /// The factors of all groups.
    pub factors: &'a GroupedFactors,
    /// The group of each prompt.
    pub group_of_prompt: &'a [usize],
}

impl<M: CausalLm + ?Sized> AdaptedHead<'_, M> {
    /// Logits for the running rows: one product with the weight for all groups, and no group's change is
    /// ever built.
    ///
    /// # Shapes
    ///
    /// - `rows.hidden`: `[rows, hidden]`
    /// - output: `[rows, vocab]`
    ///
    /// # Panics
    ///
    /// Panics if a row belongs to no prompt, or a prompt to no group.
    pub fn forward(&self, rows: HeadRows<'_>) -> Tensor<2> {
        let HeadRows {
            hidden,
            prompt_indices,
        } = rows;
        let groups = prompt_indices
            .iter()
            .map(|&prompt_idx| self.group_of_prompt[prompt_idx]);
        let group_idx = index_tensor(groups, &hidden.device());
        self.model.logits(hidden.clone()) + self.factors.apply(hidden, group_idx)
    }
}

/// The rows that still run, and the texts so far.
struct RunningBatch<'a> {
    options: &'a GenerateOptions,
    max_seq_len: usize,
    rows: Vec<RunningRow>,
    generations: Vec<Generation>,
}

struct RunningRow {
    prompt_idx: usize,
    /// Tokens of the prompt and after it.
    len: usize,
    last_token_id: u32,
    sampler: Sampler,
}

impl<'a> RunningBatch<'a> {
    fn new(max_seq_len: usize, prompts: &[&[u32]], options: &'a GenerateOptions) -> Self {
        let generations = prompts
            .iter()
            .map(|_| Generation {
                token_ids: Vec::new(),
                finish_reason: FinishReason::MaxNewTokens,
            })
            .collect();
        let num_running = match options.max_new_tokens {
            0 => 0,
            _ => prompts.len(),
        };
        let rows = prompts[..num_running]
            .iter()
            .enumerate()
            .map(|(prompt_idx, prompt)| RunningRow {
                prompt_idx,
                len: prompt.len(),
                last_token_id: 0,
                sampler: Sampler::new(
                    options.sampling,
                    options.seed.stream(&format!("prompt {prompt_idx}")),
                ),
            })
            .collect();
        Self {
            options,
            max_seq_len,
            rows,
            generations,
        }
    }

    /// Chooses a token for each row; answers with the positions of the rows that go on.
    fn choose(
        &mut self,
        logits: &[f32],
        on_token: &mut impl FnMut(NewToken) -> ControlFlow<()>,
    ) -> Vec<usize> {
        let vocab_size = logits.len() / self.rows.len();
        let mut kept = Vec::new();
        for (row_idx, logits) in logits.chunks_exact(vocab_size).enumerate() {
            let row = &mut self.rows[row_idx];
            let generation = &mut self.generations[row.prompt_idx];
            let token_id = row.sampler.sample(logits);
            if self.options.stop_token_ids.contains(&token_id) {
                generation.finish_reason = FinishReason::StopToken;
                continue;
            }
            let flow = on_token(NewToken {
                prompt_idx: row.prompt_idx,
                token_idx: generation.token_ids.len(),
                token_id,
            });
            generation.token_ids.push(token_id);
            row.last_token_id = token_id;
            row.len += 1;
            if flow.is_break() {
                generation.finish_reason = FinishReason::Stopped;
            } else if generation.token_ids.len() == self.options.max_new_tokens {
                generation.finish_reason = FinishReason::MaxNewTokens;
            } else if row.len > self.max_seq_len {
                generation.finish_reason = FinishReason::ContextFull;
            } else {
                kept.push(row_idx);
            }
        }
        let mut row_idx = 0;
        self.rows.retain(|_| {
            row_idx += 1;
            kept.contains(&(row_idx - 1))
        });
        kept
    }

    fn into_output(self, timings: GenerateTimings) -> GenerateOutput {
        GenerateOutput {
            generations: self.generations,
            timings,
        }
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

/// The prompts, padded on the right: `[batch, seq]`. What stands in the padding is never looked at.
fn padded(prompts: &[&[u32]], device: &burn::tensor::Device) -> Tensor<2, Int> {
    let seq_len = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
    let token_ids: Vec<i64> = prompts
        .iter()
        .flat_map(|prompt| {
            let padding = std::iter::repeat_n(0, seq_len - prompt.len());
            prompt.iter().copied().chain(padding).map(i64::from)
        })
        .collect();
    Tensor::from_data(TensorData::new(token_ids, [prompts.len(), seq_len]), device)
}

/// One token of each row: `[batch, seq, hidden]` -> `[batch, hidden]`.
fn select_tokens(hidden: Tensor<3>, token_indices: &[usize]) -> Tensor<2> {
    let [batch, seq_len, hidden_size] = hidden.dims();
    let flat = token_indices
        .iter()
        .enumerate()
        .map(|(row_idx, token_idx)| row_idx * seq_len + token_idx);
    let indices = index_tensor(flat, &hidden.device());
    hidden
        .reshape([batch * seq_len, hidden_size])
        .select(0, indices)
}

fn logits_on_host(logits: Tensor<2>) -> Vec<f32> {
    logits
        .into_data()
        .convert::<f32>()
        .try_into_vec()
        .expect("the data was just converted to f32")
}
