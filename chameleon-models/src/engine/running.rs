//! A request that is being answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::adapters::LoadedAdapter;
use super::answer::Answer;
use super::handle::Sink;
use super::head::RowFactors;
use super::recall::RowMemory;
use super::request::{EndOfText, Logprobs};
use super::ticket::{EndReason, Event, TokenChoice, TokenEvent, Usage};
use super::worker::tell;
use crate::engine::sampling::Sampler;
use crate::files::tokenizer::Tokenizer;

/// Everything about a request that runs, except its tokens.
pub(super) struct Running {
    pub(super) request_id: u64,
    pub(super) sampler: Sampler,
    pub(super) logprobs: Logprobs,
    /// What is added to its logits.
    pub(super) factors: Option<RowFactors>,
    /// What its group remembers.
    pub(super) memory: Option<RowMemory>,
    /// The adapter, and the group it fell in.
    pub(super) group: Option<(Arc<LoadedAdapter>, usize)>,
    /// Tokens set aside for it.
    pub(super) num_tokens: usize,
    pub(super) end_of_text: EndOfText,
    pub(super) max_new_tokens: usize,
    pub(super) answer: Answer,
    pub(super) sink: Sink,
    pub(super) is_cancelled: Arc<AtomicBool>,
    pub(super) started: Instant,
    pub(super) usage: Usage,
}

/// A token that was chosen for a row.
#[derive(Debug)]
pub(super) struct Chosen {
    token_id: u32,
    logprob: Option<f32>,
    top: Vec<TokenChoice>,
}

impl Running {
    pub(super) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Acquire)
    }

    pub(super) fn tell(&mut self, event: Event) {
        tell(&mut self.sink, event);
    }

    pub(super) fn leave_group(&self) {
        if let Some((adapter, cluster_idx)) = &self.group {
            adapter.record_end(*cluster_idx);
        }
    }

    /// Takes a token; answers with it if the request goes on, or tells that it is over.
    ///
    /// # Errors
    ///
    /// When the token cannot be spelled.
    pub(super) fn advance(
        &mut self,
        chosen: Chosen,
        tokenizer: &Tokenizer,
        max_seq_len: usize,
    ) -> Result<Option<u32>, String> {
        let Chosen {
            token_id,
            logprob,
            top,
        } = chosen;
        if self.usage.num_new_tokens == 0 {
            self.usage.time_to_first_token = self.started.elapsed();
        }
        self.usage.num_new_tokens += 1;
        if self.end_of_text == EndOfText::Ends && tokenizer.is_eos(token_id) {
            self.finish(EndReason::StopToken, tokenizer)?;
            return Ok(None);
        }
        let text = self.answer.push(token_id, tokenizer).map_err(spelling)?;
        self.tell(Event::Token(TokenEvent {
            token_id,
            text,
            logprob,
            top,
        }));
        let reason = if self.answer.is_stopped() {
            EndReason::StopText
        } else if self.usage.num_new_tokens == self.max_new_tokens {
            EndReason::MaxNewTokens
        } else if self.usage.num_prompt_tokens + self.usage.num_new_tokens > max_seq_len {
            EndReason::ContextFull
        } else {
            return Ok(Some(token_id));
        };
        self.finish(reason, tokenizer)?;
        Ok(None)
    }

    /// Tells that it is over.
    ///
    /// # Errors
    ///
    /// When the rest of the text cannot be spelled.
    pub(super) fn finish(
        &mut self,
        reason: EndReason,
        tokenizer: &Tokenizer,
    ) -> Result<(), String> {
        let text = self.answer.finish(tokenizer).map_err(spelling)?;
        // The last piece of text may complete a stop text as well.
        let reason = if self.answer.is_stopped() {
            EndReason::StopText
        } else {
            reason
        };
        self.usage.total_time = self.started.elapsed();
        let usage = self.usage;
        self.tell(Event::Finished {
            reason,
            text,
            usage,
        });
        Ok(())
    }
}

fn spelling(error: impl std::fmt::Display) -> String {
    error.to_string()
}

impl Usage {
    pub(super) fn of_prompt(num_prompt_tokens: usize) -> Self {
        Self {
            num_prompt_tokens,
            num_new_tokens: 0,
            time_to_first_token: Duration::ZERO,
            total_time: Duration::ZERO,
        }
    }
}

/// Chooses a token from the logits of the whole vocabulary.
pub(super) fn choose(sampler: &mut Sampler, logprobs: Logprobs, logits: &[f32]) -> Chosen {
    let token_id = sampler.sample(logits);
    let Logprobs::Top(num_top) = logprobs else {
        return Chosen {
            token_id,
            logprob: None,
            top: Vec::new(),
        };
    };
    let total = log_sum_exp(logits);
    let logprob = |token_id: u32| logits[token_id as usize] - total;
    let top = likeliest(logits, num_top)
        .into_iter()
        .map(|token_id| TokenChoice {
            token_id,
            logprob: logprob(token_id),
        })
        .collect();
    Chosen {
        token_id,
        logprob: Some(logprob(token_id)),
        top,
    }
}

/// The logarithm of the sum of the exponentials, which is what turns logits into logarithms of probabilities.
pub(super) fn log_sum_exp(logits: &[f32]) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|&logit| f64::from((logit - largest).exp()))
        .sum();
    #[expect(clippy::cast_possible_truncation, reason = "logits are f32 as well")]
    let log = sum.ln() as f32;
    largest + log
}

/// The ids of the largest logits, the largest first, of equal ones the lowest id first.
fn likeliest(logits: &[f32], num: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..).take(logits.len()).collect();
    let by_rank = |left: &u32, right: &u32| {
        let (left_logit, right_logit) = (logits[*left as usize], logits[*right as usize]);
        right_logit.total_cmp(&left_logit).then(left.cmp(right))
    };
    let num = num.min(ids.len());
    if num < ids.len() && num > 0 {
        ids.select_nth_unstable_by(num - 1, by_rank);
    }
    ids.truncate(num);
    ids.sort_unstable_by(by_rank);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_first_and_probabilities_sum_to_one() {
        let logits = [0.5, 2.0, -1.0, 2.0];
        assert_eq!(likeliest(&logits, 3), [1, 3, 0]);
        assert_eq!(likeliest(&logits, 9), [1, 3, 0, 2]);
        assert!(likeliest(&logits, 0).is_empty());
        let total = log_sum_exp(&logits);
        let sum: f32 = logits.iter().map(|logit| (logit - total).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6);
    }
}
