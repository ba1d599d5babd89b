//! `--tui`: the steps of a training in full screen.

use std::cell::Cell;

use chameleon_models::{
    StepReport,
    training::observer::{Observer, Progress, Work, WorkUnit},
};

use super::dashboard::{Curves, Dashboard};
use crate::commands::Context;

/// Shows a training on a dashboard, and other work as without `--tui`.
pub(super) struct DashboardObserver<'a> {
    context: &'a Context,
    title: String,
    num_epochs: usize,
    /// Whether the terminal can no longer be drawn on.
    is_broken: Cell<bool>,
}

impl<'a> DashboardObserver<'a> {
    pub(super) fn new(context: &'a Context, title: String, num_epochs: usize) -> Self {
        Self {
            context,
            title,
            num_epochs,
            is_broken: Cell::new(false),
        }
    }
}

impl Observer for DashboardObserver<'_> {
    fn begin(&self, work: Work<'_>) -> Box<dyn Progress + '_> {
        let WorkUnit::Steps = work.unit else {
            return self.context.begin(work);
        };
        let num_steps = usize::try_from(work.total.unwrap_or(0)).unwrap_or(usize::MAX);
        let curves = Curves::new(self.title.clone(), self.num_epochs, num_steps);
        match Dashboard::open(curves, &self.context.output) {
            Ok(dashboard) => Box::new(Drawn {
                dashboard,
                is_broken: &self.is_broken,
            }),
            Err(_) => self.context.begin(work),
        }
    }

    fn note(&self, message: &str) {
        self.context.note(message);
    }

    fn detail(&self, message: &str) {
        self.context.detail(message);
    }

    fn is_interrupted(&self) -> bool {
        self.context.is_interrupted() || self.is_broken.get()
    }
}

/// Draws; if the terminal is closed, the training ends and its state is saved.
struct Drawn<'a> {
    dashboard: Dashboard<'a>,
    is_broken: &'a Cell<bool>,
}

impl Progress for Drawn<'_> {
    fn set_position(&mut self, num_done: u64) {
        self.dashboard
            .start_at(usize::try_from(num_done).unwrap_or(usize::MAX));
    }

    fn step(&mut self, report: &StepReport) {
        if self.dashboard.step(report).is_err() {
            self.is_broken.set(true);
        }
    }

    fn validated(&mut self, step: usize, valid_loss: f64) {
        if self.dashboard.validated(step, valid_loss).is_err() {
            self.is_broken.set(true);
        }
    }
}
