//! An active request: its state besides its tokens, and its transition after each token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::adapters::LoadedAdapter;
use super::answer::Answer;
use super::event::{EndReason, Event, TokenEvent, Usage};
use super::head::RowFactors;
use super::logprobs::SampledToken;
use super::memory::RowMemory;
use super::request::{EndOfText, Logprobs};
use super::sampling::Sampler;
use super::shared::{Sink, report};
use crate::files::tokenizer::Tokenizer;

/// The state of an active request, except its tokens.
pub(super) struct ActiveRequest {
    pub(super) request_id: u64,
    pub(super) sampler: Sampler,
    pub(super) logprobs: Logprobs,
    /// The factors of its head.
    pub(super) factors: Option<RowFactors>,
    /// The memory of its group.
    pub(super) memory: Option<RowMemory>,
    /// The adapter and group of the request.
    pub(super) group: Option<(Arc<LoadedAdapter>, usize)>,
    /// Tokens reserved for it.
    pub(super) num_tokens: usize,
    pub(super) end_of_text: EndOfText,
    pub(super) max_new_tokens: usize,
    pub(super) answer: Answer,
    pub(super) sink: Sink,
    pub(super) is_cancelled: Arc<AtomicBool>,
    pub(super) started: Instant,
    pub(super) usage: Usage,
}

impl ActiveRequest {
    pub(super) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Acquire)
    }

    pub(super) fn report(&mut self, event: Event) {
        report(&mut self.sink, event);
    }

    pub(super) fn leave_group(&self) {
        if let Some((adapter, cluster_idx)) = &self.group {
            adapter.record_end(*cluster_idx);
        }
    }

    /// Adds a sampled token. Returns it if the request continues, and reports the end otherwise.
    ///
    /// # Errors
    ///
    /// When the tokenizer cannot decode the token.
    pub(super) fn advance(
        &mut self,
        sampled: SampledToken,
        tokenizer: &Tokenizer,
        max_seq_len: usize,
    ) -> Result<Option<u32>, String> {
        let SampledToken {
            token_id,
            logprob,
            top,
        } = sampled;
        if self.usage.num_new_tokens == 0 {
            self.usage.time_to_first_token = self.started.elapsed();
        }
        self.usage.num_new_tokens += 1;
        if self.end_of_text == EndOfText::Ends && tokenizer.is_eos(token_id) {
            self.finish(EndReason::StopToken, tokenizer)?;
            return Ok(None);
        }
        let text = self
            .answer
            .push(token_id, tokenizer)
            .map_err(|error| error.to_string())?;
        self.report(Event::Token(TokenEvent {
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

    /// Reports the end.
    ///
    /// # Errors
    ///
    /// When the tokenizer cannot decode the rest of the text.
    pub(super) fn finish(
        &mut self,
        reason: EndReason,
        tokenizer: &Tokenizer,
    ) -> Result<(), String> {
        let text = self
            .answer
            .finish(tokenizer)
            .map_err(|error| error.to_string())?;
        // The last piece of text may complete a stop text as well.
        let reason = if self.answer.is_stopped() {
            EndReason::StopText
        } else {
            reason
        };
        self.usage.total_time = self.started.elapsed();
        let usage = self.usage;
        self.report(Event::Finished {
            reason,
            text,
            usage,
        });
        Ok(())
    }
}
