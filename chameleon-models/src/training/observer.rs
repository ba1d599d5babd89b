//! Observers of long work: progress, messages and interruption.

use crate::training::train::StepReport;

/// Receives progress and messages of long work, and can interrupt it.
///
/// The library reports through it and never prints. Interrupted work ends with
/// [`TrainingError::Interrupted`](crate::training::TrainingError::Interrupted); finished work is on disk, so that the
/// same call continues it.
pub trait Observer {
    /// Called when a piece of work begins; the handle is dropped when it ends.
    fn begin(&self, work: Work<'_>) -> Box<dyn Progress + '_>;

    /// A message for the user.
    fn note(&self, _message: &str) {}

    /// A message with details that explain a result.
    fn detail(&self, _message: &str) {}

    /// Whether the work should end at the next point from which it can be continued.
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// A piece of work whose progress can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work<'a> {
    /// A short name of the work.
    pub name: &'a str,
    /// The unit of its progress.
    pub unit: WorkUnit,
    /// The number of units; `None` if unknown.
    pub total: Option<u64>,
}

/// The unit of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkUnit {
    /// Texts, batches or other items.
    Items,
    /// Bytes that were read.
    Bytes,
    /// Optimizer steps.
    Steps,
}

impl<'a> Work<'a> {
    /// Work over `total` items.
    pub fn items(name: &'a str, total: usize) -> Self {
        Self {
            name,
            unit: WorkUnit::Items,
            total: Some(total as u64),
        }
    }
}

/// Receives the progress of a piece of work.
pub trait Progress {
    /// Called with the number of finished units.
    fn set_position(&mut self, num_done: u64);

    /// Called after an optimizer step.
    fn step(&mut self, report: &StepReport) {
        self.set_position(report.step as u64);
    }

    /// Called with the mean loss so far, nats per token.
    fn scored(&mut self, _mean_nll: f64) {}

    /// Called with the validation loss after a step, nats per token.
    fn validated(&mut self, _step: usize, _valid_loss: f64) {}
}

/// Shows nothing and never interrupts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn begin(&self, _work: Work<'_>) -> Box<dyn Progress + '_> {
        Box::new(Self)
    }
}

impl Progress for Silent {
    fn set_position(&mut self, _num_done: u64) {}
}
