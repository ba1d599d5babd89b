//! The handle of one request: its events, its completion, and the end of it when it is dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::event::{EndReason, Event, RequestFailure, Usage};
use super::shared::Shared;

/// The events of one request. Dropping it cancels the request and frees its place.
#[derive(Debug)]
pub struct Ticket {
    pub(super) events: Receiver<Event>,
    pub(super) cancellation: Cancellation,
}

/// A finished answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The new tokens, without one that ends a text.
    pub token_ids: Vec<u32>,
    /// Their text, without a stop text.
    pub text: String,
    /// The end reason.
    pub reason: EndReason,
    /// Token counts and times.
    pub usage: Usage,
}

impl Ticket {
    /// The number of the request, as [`ClusterInfo`](super::ClusterInfo) names it.
    pub fn request_id(&self) -> u64 {
        self.cancellation.request_id
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    ///
    /// When the answer cannot be completed.
    pub fn wait(self) -> Result<Completion, RequestFailure> {
        let mut token_ids = Vec::new();
        let mut text = String::new();
        while let Some(event) = self.recv() {
            match event {
                Event::Started(_) => {}
                Event::Token(token) => {
                    token_ids.push(token.token_id);
                    text.push_str(&token.text);
                }
                Event::Finished {
                    reason,
                    text: rest,
                    usage,
                } => {
                    text.push_str(&rest);
                    return Ok(Completion {
                        token_ids,
                        text,
                        reason,
                        usage,
                    });
                }
                Event::Failed(failure) => return Err(failure),
            }
        }
        Err(RequestFailure::Stopped)
    }

    /// Waits for the next event; `None` after the last.
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

    /// The next event if it is available.
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
        // order the two flags: a thread that sees the second one also sees this one.
        self.is_cancelled.store(true, Ordering::Release);
        if let Some(shared) = self.shared.upgrade() {
            shared.has_cancelled.store(true, Ordering::Release);
            shared.changed.notify_all();
        }
    }
}
