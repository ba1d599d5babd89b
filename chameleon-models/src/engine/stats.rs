//! The counts of an engine.

use std::time::Duration;

/// Counts since the start, and the present load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineStats {
    /// Requests that run.
    pub num_running: usize,
    /// Requests that wait.
    pub num_queued: usize,
    /// Tokens, prompts and answers, that waiting requests may need.
    pub num_queued_tokens: usize,
    /// Tokens, prompts and answers, reserved for running requests.
    pub num_reserved_tokens: usize,
    /// Tokens in the KV cache.
    pub num_cached_tokens: usize,
    /// Requests accepted.
    pub num_submitted: u64,
    /// Requests refused because the queue was full or the engine draining.
    pub num_refused: u64,
    /// Requests answered to the end.
    pub num_finished: u64,
    /// Requests whose caller dropped them.
    pub num_cancelled: u64,
    /// Requests that ended with a failure.
    pub num_failed: u64,
    /// Prompt tokens prefilled.
    pub num_prompt_tokens: u64,
    /// Tokens sampled.
    pub num_generated_tokens: u64,
    /// Decode steps.
    pub num_steps: u64,
    /// Rows of these, summed; divided by the steps, the average batch.
    pub num_step_rows: u64,
    /// The time of steps with prompt tokens.
    pub prefill_time: Duration,
    /// The time of the other steps.
    pub step_time: Duration,
    /// The time of the latest decode step.
    pub last_step_time: Duration,
    /// Its rows.
    pub last_step_rows: usize,
    /// Requests whose factors were cached.
    pub num_factor_hits: u64,
    /// Requests whose factors were generated.
    pub num_factor_misses: u64,
    /// Factors in the cache.
    pub num_cached_factors: usize,
}
