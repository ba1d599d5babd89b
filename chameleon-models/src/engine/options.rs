//! How much an engine takes on.

use super::refusal::Refusal;

/// The bounds of an engine. Every value is checked when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// Requests that are decoded together at most.
    pub max_batch_rows: usize,
    /// Tokens whose keys and values are kept at most, over all running requests. A request counts with its prompt
    /// and with all it may write, so that one that runs can always finish.
    pub max_cached_tokens: usize,
    /// Prompt tokens read between two decoding steps at most, so that a long prompt does not stall the others.
    pub prefill_chunk: usize,
    /// Requests that wait at most; one more is refused.
    pub max_queued_requests: usize,
    /// Tokens, counted as in `max_cached_tokens`, of the requests that wait at most.
    pub max_queued_tokens: usize,
    /// Groups whose factors are kept at most; those not used for longest are generated anew.
    pub max_cached_factors: usize,
    /// Names of recent requests remembered for each group.
    pub num_recent_requests: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            max_batch_rows: 32,
            max_cached_tokens: 32 * 2048,
            prefill_chunk: 128,
            max_queued_requests: 256,
            max_queued_tokens: 256 * 2048,
            max_cached_factors: 128,
            num_recent_requests: 8,
        }
    }
}

impl EngineOptions {
    /// Refuses bounds with which nothing could ever run.
    ///
    /// # Errors
    ///
    /// [`Refusal::Option`] names the first one.
    pub fn check(&self) -> Result<(), Refusal> {
        let bounds = [
            ("max_batch_rows", self.max_batch_rows),
            ("max_cached_tokens", self.max_cached_tokens),
            ("prefill_chunk", self.prefill_chunk),
            ("max_queued_requests", self.max_queued_requests),
            ("max_queued_tokens", self.max_queued_tokens),
            ("max_cached_factors", self.max_cached_factors),
        ];
        match bounds.into_iter().find(|(_, bound)| *bound == 0) {
            Some((name, _)) => Err(Refusal::Option { name }),
            None => Ok(()),
        }
    }
}
