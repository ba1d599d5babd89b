//! The state shared by the handles of an engine and its worker: queue, adapters and counts.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use super::adapters::LoadedAdapter;
use super::error::EngineError;
use super::event::Event;
use super::group_jobs::GroupJobs;
use super::options::EngineOptions;
use super::request::Request;
use super::stats::EngineStats;
use crate::families::load::LoadedModel;

/// The shared state of handles and worker.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) loaded: LoadedModel,
    pub(super) options: EngineOptions,
    pub(super) queue: Mutex<Queue>,
    /// Whether a request that may still wait was cancelled.
    pub(super) has_cancelled: AtomicBool,
    /// Notified when the queue changes, and when the engine has nothing left to do.
    pub(super) changed: Condvar,
    pub(super) stats: Mutex<EngineStats>,
    pub(super) adapters: Mutex<Adapters>,
    /// Groups by key whose layers are to be computed.
    pub(super) group_jobs: GroupJobs,
}

/// The waiting requests, and whether new ones are accepted.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiting: VecDeque<Pending>,
    pub(super) num_tokens: usize,
    /// Requests taken out of the queue and not over yet.
    pub(super) num_running: usize,
    pub(super) phase: Phase,
    pub(super) next_request_id: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// Requests are accepted.
    #[default]
    Open,
    /// Accepted requests are finished, and new ones are rejected.
    Draining,
    /// All requests end now.
    Closed,
}

/// A request that waits.
pub(super) struct Pending {
    pub(super) request_id: u64,
    pub(super) request: Request,
    pub(super) adapter: Option<Arc<LoadedAdapter>>,
    /// Largest number of tokens it may need.
    pub(super) num_tokens: usize,
    pub(super) is_cancelled: Arc<AtomicBool>,
    pub(super) submitted: Instant,
    pub(super) sink: Sink,
}

/// The receiver of a request's events.
pub(super) type Sink = Box<dyn FnMut(Event) + Send>;

impl Pending {
    /// Whether the layers of its group are not computed yet.
    pub(super) fn waits_for_group(&self) -> bool {
        let groups = self
            .adapter
            .as_ref()
            .and_then(|adapter| adapter.groups.as_ref());
        match (&self.request.group, groups) {
            (Some(key), Some(groups)) => groups.is_waiting(key),
            _ => false,
        }
    }
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the prompt: logs must not contain user texts.
        f.debug_struct("Pending")
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

/// The loaded adapters.
#[derive(Debug, Default)]
pub(super) struct Adapters {
    pub(super) by_name: BTreeMap<String, Arc<LoadedAdapter>>,
    pub(super) next_id: u64,
}

impl Adapters {
    pub(super) fn get(&self, name: &str) -> Result<&Arc<LoadedAdapter>, EngineError> {
        self.by_name.get(name).ok_or_else(|| self.unknown(name))
    }

    pub(super) fn unknown(&self, name: &str) -> EngineError {
        let known: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
        EngineError::UnknownAdapter {
            name: name.to_owned(),
            known: match known.as_slice() {
                [] => "none".to_owned(),
                known => known.join(", "),
            },
        }
    }
}

/// Reports an event to the caller. A panic of the callback is only logged.
pub(super) fn report(sink: &mut Sink, event: Event) {
    if catch_unwind(AssertUnwindSafe(|| sink(event))).is_err() {
        tracing::error!("a callback for the events of a request panicked");
    }
}
