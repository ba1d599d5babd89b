//! What comes back from an engine: events, one after the other, and the handle that ends them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use chameleon_hypernet::Condition;

use super::handle::Shared;

/// Something that happened to a request. `Started` comes first, one of `Finished` and `Failed` last.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// It left the queue.
    Started(Started),
    /// A token was chosen.
    Token(TokenEvent),
    /// The answer is complete.
    Finished {
        /// Why there is no more.
        reason: EndReason,
        /// Text that was held back because it might have become a stop text, or is half a character.
        text: String,
        /// What it cost.
        usage: Usage,
    },
    /// The answer cannot be completed.
    Failed(RequestFailure),
}

/// Which group a request fell in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Started {
    /// What is different about its group; nothing for the base model.
    pub group: Option<StartedGroup>,
    /// How long it waited.
    pub waited: Duration,
}

/// The group of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StartedGroup {
    /// The trained centroid nearest to the prompt.
    pub cluster_idx: usize,
    /// How far from it the prompt is.
    pub distance: f32,
    /// What the hypernetwork saw.
    pub condition: Condition,
    /// How many prompts the condition sums up.
    pub group_size: usize,
}

/// A chosen token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenEvent {
    /// The token.
    pub token_id: u32,
    /// The text that may be shown now: whole characters, and nothing that could still become a stop text.
    pub text: String,
    /// The logarithm of its probability before any sampling rule, if asked for.
    pub logprob: Option<f32>,
    /// The likeliest tokens, the likeliest first, if asked for.
    pub top: Vec<TokenChoice>,
}

/// A token that might have been chosen.
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
    /// The model chose a token that ends a text.
    StopToken,
    /// A stop text was met.
    StopText,
    /// It has as many tokens as were asked for.
    MaxNewTokens,
    /// It is as long as the model allows.
    ContextFull,
}

/// What a request cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub num_prompt_tokens: usize,
    /// Tokens written, stop tokens included.
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
    /// A step broke; the requests in it are lost, the engine goes on.
    #[error("decoding failed: {message}")]
    Step {
        /// What the panic said.
        message: String,
    },
    /// The prompt could not be put in a group.
    #[error("the prompt could not be grouped: {message}")]
    Grouping {
        /// Why not.
        message: String,
    },
    /// The tokens could not be turned into text.
    #[error("the answer could not be spelled: {message}")]
    Text {
        /// Why not.
        message: String,
    },
    /// The engine was dropped.
    #[error("the engine has stopped")]
    Stopped,
}

/// The events of one request. Dropping it cancels the request and frees its place.
#[derive(Debug)]
pub struct Ticket {
    pub(super) events: Receiver<Event>,
    pub(super) cancellation: Cancellation,
}

impl Ticket {
    /// The number of the request, as [`ClusterInfo`](super::ClusterInfo) names it.
    pub fn request_id(&self) -> u64 {
        self.cancellation.request_id
    }

    /// Waits for the next event; nothing after the last.
    pub fn recv(&self) -> Option<Event> {
        self.events.recv().ok()
    }

    /// Waits for the next event, but not longer than this.
    ///
    /// # Errors
    ///
    /// When the time is over, or when there are no more events.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Event, RecvTimeoutError> {
        self.events.recv_timeout(timeout)
    }

    /// The next event if it is there already.
    ///
    /// # Errors
    ///
    /// When there is none yet, or when there are no more.
    pub fn try_recv(&self) -> Result<Event, TryRecvError> {
        self.events.try_recv()
    }
}

impl Iterator for Ticket {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.recv()
    }
}

/// Cancels its request when dropped; after the last event that changes nothing.
#[derive(Debug)]
pub struct Cancellation {
    pub(super) request_id: u64,
    pub(super) is_cancelled: Arc<AtomicBool>,
    pub(super) shared: Weak<Shared>,
}

impl Cancellation {
    /// The number of the request, as [`ClusterInfo`](super::ClusterInfo) names it.
    pub fn request_id(&self) -> u64 {
        self.request_id
    }
}

impl Drop for Cancellation {
    fn drop(&mut self) {
        // The worker clears `has_cancelled` before it looks for cancelled requests. Release here and acquire there
        // order the two flags: whoever sees the second one sees this one too.
        self.is_cancelled.store(true, Ordering::Release);
        if let Some(shared) = self.shared.upgrade() {
            shared.has_cancelled.store(true, Ordering::Release);
            shared.changed.notify_all();
        }
    }
}
