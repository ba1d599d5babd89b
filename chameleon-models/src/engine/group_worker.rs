//! The thread that computes the layers of groups by key, while the engine answers.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::group_jobs::GroupJob;
use super::groups::compute_layers;
use super::isolation::{lock, message_of};
use super::shared::Shared;

/// Runs until the jobs are closed.
pub(super) fn run(shared: &Shared) {
    while let Some(GroupJob { adapter, key }) = shared.group_jobs.next() {
        let max_groups = shared.options.max_group_layers;
        let Some(groups) = &adapter.groups else {
            continue;
        };
        let computed = catch_unwind(AssertUnwindSafe(|| {
            compute_layers(&shared.loaded, &adapter.adapter, groups, &key, max_groups);
        }));
        if let Err(panic) = computed {
            let message = message_of(panic.as_ref());
            tracing::error!(message, "computing the factors of a group panicked");
            groups.fail(&key, message);
        }
        // Under the lock of the queue, so that a worker that has just found nothing ready notices it.
        drop(lock(&shared.queue));
        shared.changed.notify_all();
    }
}
