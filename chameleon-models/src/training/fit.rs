//! The one training loop: epochs, each followed by the validation texts, and the epoch that is kept.

use chameleon_hypernet::ConditionControl;
use serde::{Deserialize, Serialize};

use crate::adapter::AdapterConfig;
use crate::adapter::adaptation::AdapterModule;
use crate::families::causal_lm::CausalLm;
use crate::training::error::TrainingError;
use crate::training::eval::{Scorer, TokenScores};
use crate::training::observer::{Observer, Work, WorkUnit};
use crate::training::prepare::{Split, TrainingData};
use crate::training::setup::TrainSetup;
use crate::training::states::HiddenStates;
use crate::training::train::{StepReport, TrainError, Trainer};

/// Which epoch of a training is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selection {
    /// The one with the lowest validation loss.
    BestEpoch,
    /// The last.
    LastEpoch,
    /// This one, counted from 1, chosen with another seed; training ends after it.
    Epoch(usize),
}

/// One epoch of a training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Counted from 1.
    pub epoch: usize,
    /// Nats per token over the batches of the epoch, each computed before its step.
    pub train_loss: f64,
    /// Nats per token afterwards.
    pub valid_loss: f64,
}

/// The epoch whose adapter is kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct KeptEpoch {
    /// Counted from 1.
    pub epoch: usize,
    /// Nats per token on the validation texts.
    pub valid_loss: f64,
}

/// A finished training.
#[derive(Debug)]
pub(crate) struct Fitted {
    /// The adapter of the kept epoch; `None` if the training diverged in its first epoch.
    pub module: Option<AdapterModule>,
    /// The kept epoch.
    pub kept: Option<KeptEpoch>,
    /// Every epoch, in order.
    pub curve: Vec<EpochRecord>,
    /// The step at which the loss was no longer finite.
    pub diverged_at_step: Option<usize>,
}

/// Callbacks between the steps of a training; the defaults do nothing.
pub(crate) trait FitHooks {
    /// After each step, except the last one of an epoch.
    ///
    /// # Errors
    /// An error ends the training.
    fn stepped(
        &mut self,
        _trainer: &Trainer<'_>,
        _report: &StepReport,
    ) -> Result<(), TrainingError> {
        Ok(())
    }

    /// After each epoch and its validation.
    ///
    /// # Errors
    /// An error ends the training.
    fn validated(
        &mut self,
        _trainer: &Trainer<'_>,
        _report: &StepReport,
        _record: &EpochRecord,
    ) -> Result<(), TrainingError> {
        Ok(())
    }

    /// Before a training ends because the observer interrupts it.
    ///
    /// # Errors
    ///
    /// When the state cannot be saved.
    fn interrupted(&mut self, _trainer: &Trainer<'_>) -> Result<(), TrainingError> {
        Ok(())
    }
}

/// Hooks that do nothing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NoHooks;

impl FitHooks for NoHooks {}

/// Trains to the last epoch, or to the epoch that is kept, or until the loss is not finite. `name` labels the progress.
///
/// # Errors
///
/// When a step or a validation fails other than by diverging, a hook fails, or the observer interrupts.
pub(crate) fn fit(
    name: &str,
    mut trainer: Trainer<'_>,
    selection: Selection,
    mut validate: impl FnMut(&AdapterModule) -> Result<f64, TrainingError>,
    hooks: &mut dyn FitHooks,
    observer: &dyn Observer,
) -> Result<Fitted, TrainingError> {
    let mut progress = observer.begin(Work {
        name,
        unit: WorkUnit::Steps,
        total: Some(trainer.num_steps() as u64),
    });
    progress.set_position(trainer.cursor().step as u64);
    let mut fitted = Fitted {
        module: None,
        kept: None,
        curve: Vec::new(),
        diverged_at_step: None,
    };
    let mut epoch = EpochLoss::default();
    loop {
        if observer.is_interrupted() {
            hooks.interrupted(&trainer)?;
            return Err(TrainingError::Interrupted);
        }
        let report = match trainer.next_step() {
            Ok(Some(report)) => report,
            Ok(None) => break,
            Err(TrainError::Diverged { step }) => {
                fitted.diverged_at_step = Some(step);
                break;
            }
            Err(error) => return Err(error.into()),
        };
        progress.step(&report);
        epoch.add(&report);
        let cursor = trainer.cursor();
        if cursor.batch > 0 {
            hooks.stepped(&trainer, &report)?;
            continue;
        }
        let valid_loss = validate(trainer.module())?;
        if !valid_loss.is_finite() {
            fitted.diverged_at_step = Some(cursor.step);
            break;
        }
        let record = EpochRecord {
            epoch: cursor.epoch,
            train_loss: std::mem::take(&mut epoch).mean(),
            valid_loss,
        };
        fitted.curve.push(record);
        let is_kept = match selection {
            Selection::BestEpoch => fitted.kept.is_none_or(|kept| valid_loss < kept.valid_loss),
            Selection::LastEpoch => true,
            Selection::Epoch(epoch) => cursor.epoch == epoch,
        };
        if is_kept {
            fitted.kept = Some(KeptEpoch {
                epoch: cursor.epoch,
                valid_loss,
            });
            fitted.module = Some(trainer.module().clone());
        }
        hooks.validated(&trainer, &report, &record)?;
        progress.validated(cursor.step, valid_loss);
        if selection == Selection::Epoch(cursor.epoch) {
            break;
        }
    }
    Ok(fitted)
}

/// Running token-weighted loss of an epoch.
#[derive(Default)]
struct EpochLoss {
    nll: f64,
    num_tokens: usize,
}

impl EpochLoss {
    fn add(&mut self, report: &StepReport) {
        self.nll += report.loss * report.num_tokens as f64;
        self.num_tokens += report.num_tokens;
    }

    fn mean(self) -> f64 {
        self.nll / self.num_tokens as f64
    }
}

/// The source of the conditions of a training or scoring.
#[derive(Debug, Clone, Copy)]
pub struct Conditions<'a> {
    /// The adapter's configuration.
    pub config: &'a AdapterConfig,
    /// Which condition a group receives.
    pub control: ConditionControl,
}

impl TrainingData {
    /// The fixed inputs of a training on the training texts.
    ///
    /// # Errors
    ///
    /// When the control needs more clusters than there are.
    pub fn setup<'a>(
        &'a self,
        conditions: Conditions<'_>,
        states: HiddenStates<'a>,
    ) -> Result<TrainSetup<'a>, TrainingError> {
        let Conditions { config, control } = conditions;
        Ok(TrainSetup {
            data: &self.train.data,
            hidden_states: states,
            head: self.model().head(),
            centroids: self.centroids.clone(),
            condition: config.condition,
            control: control.plan(config.num_clusters, config.seed.derive("control"))?,
            exemplars: config.exemplars,
            options: config.training.clone(),
            seed: config.seed.derive("training"),
        })
    }

    /// Scores one split, token by token, with an adapter or with the frozen model.
    ///
    /// # Errors
    ///
    /// When the control needs more clusters than there are.
    pub fn score(
        &self,
        module: Option<&AdapterModule>,
        conditions: Conditions<'_>,
        split: &Split,
        states: HiddenStates<'_>,
        observer: &dyn Observer,
    ) -> Result<Vec<TokenScores>, TrainingError> {
        let Conditions { config, control } = conditions;
        let evaluated = module.map(burn::module::Module::valid);
        let scorer = Scorer {
            module: evaluated.as_ref(),
            hidden_states: states,
            head: self.model().head(),
            centroids: self.centroids.clone(),
            condition: config.condition,
            control: control.plan(config.num_clusters, config.seed.derive("control"))?,
        };
        let num_batches = split.data.plan.batches.len();
        let mut progress = observer.begin(Work::items("scoring", num_batches));
        Ok(scorer.score_tokens(&split.data, |num_done| {
            progress.set_position(num_done as u64);
        }))
    }
}
