//! One training of a comparison: epochs, each followed by the validation texts.

use chameleon_hypernet::ConditionControl;
use chameleon_models::{AdapterConfig, AdapterModule, ScoreSummary, TrainError, Trainer};

use crate::{
    commands::method::{self, StepBar},
    errors::CliError,
};

use super::runs::Comparison;
use super::store::{CurvePoint, KeptEpoch, RunName, TrainedRun};

/// Which epoch of a training is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// The one with the lowest validation loss.
    Best,
    /// This one, chosen with another seed; no later one is trained.
    Epoch(usize),
}

/// One training on its way.
pub(super) struct Course<'a> {
    pub(super) comparison: &'a Comparison<'a>,
    pub(super) config: &'a AdapterConfig,
    pub(super) control: ConditionControl,
    pub(super) keep: Keep,
    pub(super) name: RunName,
}

/// What a training left behind; nothing if it diverged in its first epoch.
pub(super) struct Best {
    pub(super) module: Option<AdapterModule>,
}

impl Course<'_> {
    /// Trains to the end, or to the epoch that is kept, or until the loss is no longer a number; `None` if the user
    /// asked to stop.
    pub(super) fn run(
        &self,
        mut trainer: Trainer<'_>,
        run: &mut TrainedRun,
    ) -> Result<Option<Best>, CliError> {
        let context = self.comparison.context;
        let mut bar = StepBar::new(self.name.method, &trainer, context);
        let mut best = Best { module: None };
        let (mut nll, mut num_tokens) = (0.0, 0);
        loop {
            if context.interrupt.is_asked() {
                bar.finish();
                return Ok(None);
            }
            let report = match trainer.next_step() {
                Ok(Some(report)) => report,
                Ok(None) => break,
                Err(TrainError::Diverged { step }) => {
                    run.diverged_at_step = Some(step);
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            bar.step(&report);
            nll += report.loss * report.num_tokens as f64;
            num_tokens += report.num_tokens;
            let cursor = trainer.cursor();
            if cursor.batch > 0 {
                continue;
            }
            let valid_loss = self.valid_loss(trainer.module())?;
            if !valid_loss.is_finite() {
                run.diverged_at_step = Some(cursor.step);
                break;
            }
            run.curve.push(CurvePoint {
                epoch: cursor.epoch,
                train_loss: nll / num_tokens as f64,
                valid_loss,
            });
            (nll, num_tokens) = (0.0, 0);
            let is_kept = match self.keep {
                Keep::Best => run.kept.is_none_or(|kept| valid_loss < kept.valid_loss),
                Keep::Epoch(epoch) => cursor.epoch == epoch,
            };
            if is_kept {
                run.kept = Some(KeptEpoch {
                    epoch: cursor.epoch,
                    valid_loss,
                });
                best.module = Some(trainer.module().clone());
            }
            if self.keep == Keep::Epoch(cursor.epoch) {
                break;
            }
        }
        bar.finish();
        Ok(Some(best))
    }

    fn valid_loss(&self, module: &AdapterModule) -> Result<f64, CliError> {
        let comparison = self.comparison;
        let scores = method::score(
            Some(module),
            self.config,
            comparison.prepared,
            &comparison.prepared.held_out,
            comparison
                .states
                .valid
                .hidden_states(comparison.prepared.model()),
            self.control,
            comparison.context,
        )?;
        Ok(scores.iter().collect::<ScoreSummary>().mean_nll())
    }

    pub(super) fn tell(&self, run: &TrainedRun) {
        let found = match run.kept {
            Some(kept) => format!(
                "validation loss {:.4} after epoch {}",
                kept.valid_loss, kept.epoch
            ),
            None => "diverged".to_owned(),
        };
        self.comparison.context.output.note(format_args!(
            "{} seed {}, learning rate {}: {found}, {:.0} s",
            self.name.method, self.name.seed.0, self.name.learning_rate, run.seconds
        ));
    }
}
