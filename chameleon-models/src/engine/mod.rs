//! An engine that answers many requests at once: what a server, or a run over a whole file, drives.
//!
//! One worker thread owns the decoding. Requests wait in a bounded queue, are grouped by the trained centroid
//! nearest to their prompt, join and leave the running batch between steps, and may each use another adapter.
//! Conditioned on centroids, an answer is the same, bit for bit, whoever else is in the batch.
//!
//! Owns no transport and knows no clustering: whoever loads an adapter says how prompts find their centroid.

pub mod generate;
pub mod sampling;

mod adapters;
mod answer;
mod handle;
mod head;
pub(crate) mod lane;
mod options;
mod recall;
mod refusal;
mod request;
mod running;
mod start;
mod stats;
mod ticket;
mod worker;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use adapters::{AdapterInfo, ClusterInfo, Grouping, NearestCentroid, PromptGrouping};
pub use handle::Engine;
pub use options::EngineOptions;
pub use refusal::Refusal;
pub use request::{ConditionChoice, EndOfText, GivenCondition, Logprobs, Request};
pub use stats::EngineStats;
pub use ticket::{
    Cancellation, EndReason, Event, RequestFailure, Started, StartedGroup, Ticket, TokenChoice,
    TokenEvent, Usage,
};

/// The value behind a lock. What is kept behind locks here is whole after every statement, so a panic elsewhere
/// spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
