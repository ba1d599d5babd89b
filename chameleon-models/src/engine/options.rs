//! The bounds of an engine.

use super::error::EngineError;

/// The bounds of an engine. Every value is checked when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// Most requests in a batch.
    pub max_batch_rows: usize,
    /// Most tokens in the KV cache, over all running requests. A request counts with its prompt and with all tokens it
    /// may generate, so that one that runs can always finish.
    pub max_cached_tokens: usize,
    /// Most prompt tokens between two decode steps, so that a long prompt does not stall the other requests.
    pub prefill_chunk: usize,
    /// Most requests in the queue; one more is refused.
    pub max_queued_requests: usize,
    /// Most tokens of the requests in the queue, counted as in `max_cached_tokens`.
    pub max_queued_tokens: usize,
    /// Most groups whose factors are cached; the least recently used leave first.
    pub max_cached_factors: usize,
    /// Most groups by key of one adapter whose factors are in memory; the least recently used leave first, and are
    /// computed again when they are asked for.
    pub max_group_layers: usize,
    /// Most request numbers that are listed for each group.
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
            max_group_layers: 1024,
            num_recent_requests: 8,
        }
    }
}

impl EngineOptions {
    /// Rejects bounds of zero, with which no request could run.
    ///
    /// # Errors
    ///
    /// [`EngineError::Option`] names the first one.
    pub fn check(&self) -> Result<(), EngineError> {
        let bounds = [
            ("max_batch_rows", self.max_batch_rows),
            ("max_cached_tokens", self.max_cached_tokens),
            ("prefill_chunk", self.prefill_chunk),
            ("max_queued_requests", self.max_queued_requests),
            ("max_queued_tokens", self.max_queued_tokens),
            ("max_cached_factors", self.max_cached_factors),
            ("max_group_layers", self.max_group_layers),
        ];
        match bounds.into_iter().find(|(_, bound)| *bound == 0) {
            Some((name, _)) => Err(EngineError::Option { name }),
            None => Ok(()),
        }
    }
}
