//! Who follows long work: progress, messages, and the wish to stop.

use crate::training::train::StepReport;

/// Follows long work and may end it.
///
/// The library reports through it and never prints. Work that is interrupted ends with
/// [`TrainingError::Interrupted`](crate::training::TrainingError::Interrupted); what was finished is on disk, so that
/// the same call continues it.
pub trait Observer {
    /// A piece of work begins; the handle is dropped when it ends.
    fn begin(&self, work: Work<'_>) -> Box<dyn Progress + '_>;

    /// Something that a user should read.
    fn note(&self, _message: &str) {}

    /// Something that explains a result, for those who ask for details.
    fn detail(&self, _message: &str) {}

    /// Whether the work should end at the next point from which it can be continued.
    fn is_interrupted(&self) -> bool {
        false
    }
}

/// A piece of work whose progress can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work<'a> {
    /// What is done, in a word or two.
    pub name: &'a str,
    /// What is counted.
    pub unit: WorkUnit,
    /// How many units there are; `None` if that is not known.
    pub total: Option<u64>,
}

/// What progress is counted in.
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

/// Shows how far a piece of work is.
pub trait Progress {
    /// So many units are done.
    fn set_position(&mut self, num_done: u64);

    /// An optimizer step was taken.
    fn step(&mut self, report: &StepReport) {
        self.set_position(report.step as u64);
    }

    /// The mean loss of what was scored so far, nats per token.
    fn scored(&mut self, _mean_nll: f64) {}

    /// The validation loss after a step, nats per token.
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
