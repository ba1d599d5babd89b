//! The inference engine: queue, grouping, batches and sampling, for a server or a run over a file.
//!
//! One worker thread decodes. Requests wait in a bounded queue, are grouped by the trained centroid nearest to their
//! prompt, join and leave the running batch between steps, and may each use another adapter. Conditioned on
//! centroids, an answer is the same, bit for bit, whichever requests are in the batch. Owns no transport.

pub(crate) mod sampling;

mod active;
mod adapters;
mod answer;
mod decode_batch;
mod error;
mod event;
mod group_calls;
mod group_jobs;
mod group_worker;
mod grouping;
mod groups;
mod handle;
mod head;
mod isolation;
mod logprobs;
mod memory;
mod options;
mod request;
mod shared;
mod start;
mod stats;
mod ticket;
mod worker;

pub use adapters::{AdapterInfo, ClusterInfo, NearestGroup};
pub use error::EngineError;
pub use event::{
    EndReason, Event, RequestFailure, Started, StartedGroup, TokenChoice, TokenEvent, Usage,
};
pub use grouping::PromptGrouping;
pub use groups::{GroupExemplarSource, GroupInfo, GroupState};
pub use handle::Engine;
pub use options::EngineOptions;
pub use request::{ConditionChoice, EndOfText, GivenCondition, Logprobs, Request};
pub use sampling::{RandomSampling, Sampling};
pub use stats::EngineStats;
pub use ticket::{Cancellation, Completion, Ticket};
