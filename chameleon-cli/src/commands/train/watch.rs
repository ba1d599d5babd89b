//! How a training is watched: by a bar, and with `--tui` by its loss curve as well.

use std::time::{Duration, Instant};

use chameleon_models::{StepReport, Trainer};
use indicatif::ProgressBar;

use super::curve::Curve;
use crate::{
    commands::{Context, method::StepBar},
    errors::CliError,
    resolve::{TrainConfig, TrainView},
};

/// Time between two drawings of the curve.
const FRAME: Duration = Duration::from_millis(200);

/// What is drawn while a training runs, until it is dropped.
pub(super) struct Watch {
    panel: Option<Panel>,
    /// Taken when it is dropped.
    bar: Option<StepBar>,
}

/// The curve and where it is drawn.
struct Panel {
    curve: Curve,
    lines: ProgressBar,
    drawn: Instant,
}

/// Refuses a view that cannot be drawn, before the long work starts.
pub(super) fn check(view: TrainView, context: &Context) -> Result<(), CliError> {
    match view {
        TrainView::Curve if !context.output.draws_bars() => Err(CliError::NoTerminal),
        _ => Ok(()),
    }
}

impl Watch {
    /// Begins to draw.
    pub(super) fn new(config: &TrainConfig, trainer: &Trainer<'_>, context: &Context) -> Self {
        let panel = (config.view == TrainView::Curve).then(|| Panel {
            curve: Curve::new(trainer.num_steps()),
            lines: context.output.lines(),
            drawn: Instant::now(),
        });
        Self {
            panel,
            bar: Some(StepBar::new("training", trainer, context)),
        }
    }

    /// Shows a step.
    pub(super) fn step(&mut self, report: &StepReport) {
        if let Some(bar) = &mut self.bar {
            bar.step(report);
        }
        if let Some(panel) = &mut self.panel {
            panel.curve.step(report.step, report.loss);
            if panel.drawn.elapsed() >= FRAME {
                panel.draw("training");
            }
        }
    }

    /// Shows that something begins that takes longer than a step.
    pub(super) fn doing(&mut self, doing: &str) {
        if let Some(panel) = &mut self.panel {
            panel.draw(doing);
        }
    }

    /// Shows the loss on the validation texts after a step.
    pub(super) fn validated(&mut self, step: usize, loss: f64) {
        if let Some(panel) = &mut self.panel {
            panel.curve.validated(step, loss);
            panel.draw("training");
        }
    }
}

impl Panel {
    fn draw(&mut self, title: &str) {
        self.drawn = Instant::now();
        self.lines.set_message(self.curve.draw(title));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
        if let Some(panel) = self.panel.take() {
            panel.lines.finish_and_clear();
        }
    }
}
