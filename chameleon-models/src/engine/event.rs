//! Events of a request.

use std::time::Duration;

use chameleon_hypernet::Condition;

/// An event of a request. `Started` comes first, one of `Finished` and `Failed` last.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// It left the queue.
    Started(Started),
    /// A token was sampled.
    Token(TokenEvent),
    /// The answer is complete.
    Finished {
        /// The end reason.
        reason: EndReason,
        /// Text that was held back because it might have become a stop text, or is half a character.
        text: String,
        /// Token counts and times.
        usage: Usage,
    },
    /// The answer cannot be completed.
    Failed(RequestFailure),
}

/// The group of a started request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Started {
    /// Its group; `None` for the base model.
    pub group: Option<StartedGroup>,
    /// How long it waited.
    pub waited: Duration,
}

/// The group of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StartedGroup {
    /// The trained centroid nearest to the prompt.
    pub cluster_idx: usize,
    /// The distance of the prompt from it.
    pub distance: f32,
    /// The kind of the hypernetwork's condition.
    pub condition: Condition,
    /// The number of prompts in the condition.
    pub group_size: usize,
    /// The number of exemplars of its key that the layers were computed from; 0 without exemplars.
    pub num_exemplars: usize,
}

/// A sampled token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenEvent {
    /// The token.
    pub token_id: u32,
    /// The text that may be shown now: whole characters, and nothing that could still become a stop text.
    pub text: String,
    /// The logarithm of its probability before any sampling rule, if requested.
    pub logprob: Option<f32>,
    /// The likeliest tokens, the likeliest first, if requested.
    pub top: Vec<TokenChoice>,
}

/// One of the likeliest tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenChoice {
    /// The token.
    pub token_id: u32,
    /// The logarithm of its probability.
    pub logprob: f32,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// The model sampled a token that ends a text.
    StopToken,
    /// The text reached a stop text.
    StopText,
    /// It has as many tokens as were requested.
    MaxNewTokens,
    /// It is as long as the model allows.
    ContextFull,
}

/// Token counts and times of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub num_prompt_tokens: usize,
    /// Sampled tokens, stop tokens included.
    pub num_new_tokens: usize,
    /// From the start to the first token.
    pub time_to_first_token: Duration,
    /// From the start to the end.
    pub total_time: Duration,
}

/// Why an answer could not be completed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestFailure {
    /// A decode step panicked; its requests fail, the engine continues.
    #[error("decoding failed: {message}")]
    Step {
        /// The message of the panic.
        message: String,
    },
    /// The prompt could not be grouped.
    #[error("the prompt could not be grouped: {message}")]
    Grouping {
        /// The cause.
        message: String,
    },
    /// The tokenizer could not decode the tokens.
    #[error("the answer could not be spelled: {message}")]
    Text {
        /// The cause.
        message: String,
    },
    /// The engine was dropped.
    #[error("the engine has stopped")]
    Stopped,
}

impl Usage {
    pub(super) fn of_prompt(num_prompt_tokens: usize) -> Self {
        Self {
            num_prompt_tokens,
            ..Self::default()
        }
    }
}
