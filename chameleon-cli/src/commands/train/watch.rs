//! How a training is watched: by a bar, or on the whole terminal.

use chameleon_models::{StepReport, Trainer};

use crate::{
    commands::{Context, method::StepBar},
    errors::CliError,
    resolve::{TrainConfig, TrainView},
};

#[cfg(feature = "tui")]
use super::dashboard::{Course, Dashboard};
#[cfg(feature = "tui")]
use crate::output::Screen;

/// What is drawn while a training runs, until it is dropped.
pub(super) trait Watch {
    fn step(&mut self, report: &StepReport) -> Result<(), CliError>;

    /// Something begins that takes longer than a step.
    fn doing(&mut self, _doing: &'static str) -> Result<(), CliError> {
        Ok(())
    }

    /// The loss on the held-out texts after a step; the training goes on.
    fn validated(&mut self, _step: usize, _loss: f64) -> Result<(), CliError> {
        Ok(())
    }
}

/// Refuses a view that cannot be drawn, before the long work starts.
pub(super) fn check(view: TrainView) -> Result<(), CliError> {
    match view {
        TrainView::Bar => Ok(()),
        #[cfg(feature = "tui")]
        TrainView::Dashboard => Screen::check(),
    }
}

/// Begins to draw.
pub(super) fn watch<'a>(
    config: &TrainConfig,
    trainer: &Trainer<'_>,
    context: &'a Context,
) -> Result<Box<dyn Watch + 'a>, CliError> {
    Ok(match config.view {
        TrainView::Bar => Box::new(Bar {
            bar: Some(StepBar::new("training", trainer, context)),
        }),
        #[cfg(feature = "tui")]
        TrainView::Dashboard => {
            let course = Course::new(
                config.out.display().to_string(),
                config.training.optimizer.num_epochs,
                trainer.num_steps(),
                trainer.cursor().step,
            );
            Box::new(Dashboard::open(course, &context.output)?)
        }
    })
}

struct Bar {
    /// Taken when it is dropped.
    bar: Option<StepBar>,
}

impl Watch for Bar {
    fn step(&mut self, report: &StepReport) -> Result<(), CliError> {
        if let Some(bar) = &mut self.bar {
            bar.step(report);
        }
        Ok(())
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }
}
