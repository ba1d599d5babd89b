//! What an engine has done so far.

use std::time::Duration;

/// Counts since the start, and what is going on now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineStats {
    /// Requests that are being answered.
    pub num_running: usize,
    /// Requests that wait.
    pub num_queued: usize,
    /// Tokens, prompts and answers, that waiting requests may need.
    pub num_queued_tokens: usize,
    /// Tokens, prompts and answers, set aside for running requests.
    pub num_reserved_tokens: usize,
    /// Tokens whose keys and values are kept.
    pub num_cached_tokens: usize,
    /// Requests taken on.
    pub num_submitted: u64,
    /// Requests refused because the queue was full or the engine draining.
    pub num_refused: u64,
    /// Requests answered to the end.
    pub num_finished: u64,
    /// Requests whose caller went away.
    pub num_cancelled: u64,
    /// Requests that ended with a failure.
    pub num_failed: u64,
    /// Prompt tokens read.
    pub num_prompt_tokens: u64,
    /// Tokens written.
    pub num_generated_tokens: u64,
    /// Decoding steps.
    pub num_steps: u64,
    /// Rows of these, summed; divided by the steps, the average batch.
    pub num_step_rows: u64,
    /// The time prompts took.
    pub prefill_time: Duration,
    /// The time decoding steps took.
    pub step_time: Duration,
    /// The latest decoding step.
    pub last_step_time: Duration,
    /// Its rows.
    pub last_step_rows: usize,
    /// Requests whose factors were kept from an earlier one.
    pub num_factor_hits: u64,
    /// Requests whose factors were generated.
    pub num_factor_misses: u64,
    /// Factors that are kept.
    pub num_cached_factors: usize,
}
