//! One training from its first step to its last, with a validation after each epoch: the same for both recipes.

use burn::module::Module as _;
use chameleon_models::{
    AdapterModule, Cursor, StepReport, TrainError, Trainer, training::recipes::PublishedTrainer,
};

use crate::{
    commands::{Context, method::StepBar},
    errors::CliError,
};

use super::runs::Epoch;

/// What both trainers have in common.
pub(super) trait Steps {
    fn next_step(&mut self) -> Result<Option<StepReport>, TrainError>;
    fn num_steps(&self) -> usize;
    fn cursor(&self) -> Cursor;
    fn module(&self) -> &AdapterModule;
}

impl Steps for Trainer<'_> {
    fn next_step(&mut self) -> Result<Option<StepReport>, TrainError> {
        Trainer::next_step(self)
    }

    fn num_steps(&self) -> usize {
        Trainer::num_steps(self)
    }

    fn cursor(&self) -> Cursor {
        Trainer::cursor(self)
    }

    fn module(&self) -> &AdapterModule {
        Trainer::module(self)
    }
}

impl Steps for PublishedTrainer<'_> {
    fn next_step(&mut self) -> Result<Option<StepReport>, TrainError> {
        PublishedTrainer::next_step(self)
    }

    fn num_steps(&self) -> usize {
        PublishedTrainer::num_steps(self)
    }

    fn cursor(&self) -> Cursor {
        PublishedTrainer::cursor(self)
    }

    fn module(&self) -> &AdapterModule {
        PublishedTrainer::module(self)
    }
}

/// Which epoch's adapter is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Selection {
    BestEpoch,
    LastEpoch,
}

/// A finished training.
pub(super) struct Fitted {
    /// The adapter of the chosen epoch, off the autodiff device.
    pub(super) module: AdapterModule,
    pub(super) curve: Vec<Epoch>,
    /// The one that was chosen.
    pub(super) epoch: Epoch,
}

/// Trains to the end, or answers `None` if the user asked to stop.
pub(super) fn fit(
    steps: &mut impl Steps,
    label: &'static str,
    selection: Selection,
    validate: impl Fn(&AdapterModule) -> Result<f64, CliError>,
    context: &Context,
) -> Result<Option<Fitted>, CliError> {
    let mut bar = StepBar::at(label, steps.cursor().step, steps.num_steps(), context);
    let mut curve = Vec::new();
    let mut chosen: Option<(Epoch, AdapterModule)> = None;
    let mut losses = Vec::new();
    while let Some(report) = steps.next_step()? {
        bar.step(&report);
        if context.interrupt.is_asked() {
            bar.finish();
            return Ok(None);
        }
        losses.push(report.loss);
        let cursor = steps.cursor();
        if cursor.batch != 0 {
            continue;
        }
        let module = steps.module().valid();
        let epoch = Epoch {
            number: cursor.epoch,
            train_loss: losses.iter().sum::<f64>() / losses.len() as f64,
            valid_loss: validate(&module)?,
        };
        losses.clear();
        curve.push(epoch);
        let is_chosen = match (selection, &chosen) {
            (Selection::BestEpoch, Some((best, _))) => epoch.valid_loss < best.valid_loss,
            (Selection::LastEpoch, _) | (_, None) => true,
        };
        if is_chosen {
            chosen = Some((epoch, module));
        }
    }
    bar.finish();
    let (epoch, module) = chosen.expect("a training has at least one epoch");
    Ok(Some(Fitted {
        module,
        curve,
        epoch,
    }))
}
