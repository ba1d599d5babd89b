//! `--tui`: the loss curve above the progress bar of a training.

use std::time::{Duration, Instant};

use chameleon_models::training::{Observer, Progress, StepReport, Work, WorkUnit};
use indicatif::ProgressBar;

use super::curve::Curve;
use crate::commands::Context;

/// Time between two drawings of the curve.
const FRAME: Duration = Duration::from_millis(200);

/// Draws the loss curve while a training runs; everything else is shown as without it.
pub(super) struct CurveObserver<'a>(pub(super) &'a Context);

impl Observer for CurveObserver<'_> {
    fn begin(&self, work: Work<'_>) -> Box<dyn Progress + '_> {
        let WorkUnit::Steps = work.unit else {
            return self.0.begin(work);
        };
        let num_steps = usize::try_from(work.total.unwrap_or(0)).unwrap_or(usize::MAX);
        // The lines come first, so that they are drawn above the bar.
        let lines = self.0.output.lines();
        Box::new(Panel {
            curve: Curve::new(num_steps),
            lines,
            drawn: Instant::now(),
            bar: self.0.begin(work),
        })
    }

    fn note(&self, message: &str) {
        self.0.note(message);
    }

    fn detail(&self, message: &str) {
        self.0.detail(message);
    }

    fn is_interrupted(&self) -> bool {
        self.0.is_interrupted()
    }
}

/// The curve, where it is drawn, and the bar below it.
struct Panel<'a> {
    curve: Curve,
    lines: ProgressBar,
    drawn: Instant,
    bar: Box<dyn Progress + 'a>,
}

impl Panel<'_> {
    fn draw(&mut self) {
        self.drawn = Instant::now();
        self.lines.set_message(self.curve.draw("training"));
    }
}

impl Progress for Panel<'_> {
    fn set_position(&mut self, num_done: u64) {
        self.bar.set_position(num_done);
    }

    fn step(&mut self, report: &StepReport) {
        self.bar.step(report);
        self.curve.step(report.step, report.loss);
        if self.drawn.elapsed() >= FRAME {
            self.draw();
        }
    }

    fn validated(&mut self, step: usize, valid_loss: f64) {
        self.curve.validated(step, valid_loss);
        self.draw();
    }
}

impl Drop for Panel<'_> {
    fn drop(&mut self) {
        self.lines.finish_and_clear();
    }
}
