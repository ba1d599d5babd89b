//! The groups by key whose layers are to be computed, in order.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::adapters::LoadedAdapter;
use super::isolation::lock;

/// Groups whose layers are to be computed.
#[derive(Debug, Default)]
pub(super) struct GroupJobs {
    queue: Mutex<JobQueue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct JobQueue {
    waiting: VecDeque<GroupJob>,
    is_closed: bool,
}

#[derive(Debug, Clone)]
pub(super) struct GroupJob {
    pub(super) adapter: Arc<LoadedAdapter>,
    pub(super) key: String,
}

impl GroupJobs {
    /// Adds groups behind all others.
    pub(super) fn add(&self, adapter: &Arc<LoadedAdapter>, keys: impl Iterator<Item = String>) {
        let jobs = keys.map(|key| GroupJob {
            adapter: Arc::clone(adapter),
            key,
        });
        lock(&self.queue).waiting.extend(jobs);
        self.changed.notify_all();
    }

    /// Moves a group before all others, or adds it there.
    pub(super) fn add_first(&self, adapter: &Arc<LoadedAdapter>, key: &str) {
        let mut queue = lock(&self.queue);
        queue
            .waiting
            .retain(|job| job.adapter.id != adapter.id || job.key != key);
        queue.waiting.push_front(GroupJob {
            adapter: Arc::clone(adapter),
            key: key.to_owned(),
        });
        drop(queue);
        self.changed.notify_all();
    }

    /// Drops the groups of an adapter.
    pub(super) fn remove_adapter(&self, adapter_id: u64) {
        let mut queue = lock(&self.queue);
        queue.waiting.retain(|job| job.adapter.id != adapter_id);
    }

    /// Ends the thread after the group it computes.
    pub(super) fn close(&self) {
        lock(&self.queue).is_closed = true;
        self.changed.notify_all();
    }

    /// The next group; waits for one. `None` when closed.
    pub(super) fn next(&self) -> Option<GroupJob> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.is_closed {
                return None;
            }
            if let Some(job) = queue.waiting.pop_front() {
                return Some(job);
            }
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
