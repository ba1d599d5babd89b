//! Training of an adapter, one step at a time, for any objective.

use std::time::Instant;

use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor};
use chameleon_core::RunSeed;
use serde::{Deserialize, Serialize};

use crate::adapter::adaptation::AdapterModule;
use crate::training::gradients::clip_to_norm;

/// An error of a training step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Loss or gradients are not finite; the step was not taken.
    #[error("the loss is not finite at step {step}")]
    Diverged {
        /// The step, counted from 1.
        step: usize,
    },
    /// A saved position does not lie in this training.
    #[error("{cursor:?} is not a position in a training of {num_steps} steps")]
    NoSuchPosition {
        /// The position.
        cursor: Cursor,
        /// Steps of the whole training.
        num_steps: usize,
    },
    /// The optimizer's state cannot be serialised or read.
    #[error("cannot handle the optimizer's state")]
    Optimizer(#[source] burn::store::RecordError),
}

/// Settings of the optimizer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainOptions {
    /// Passes over the data.
    pub num_epochs: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// The part of all steps in which the learning rate rises from zero, 0 to 1.
    pub warmup: f64,
    /// Decoupled weight decay of AdamW.
    pub weight_decay: f64,
    /// The largest norm of all gradients together.
    pub max_grad_norm: f64,
}

/// Position in a training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cursor {
    /// Finished epochs.
    pub epoch: usize,
    /// Finished batches of the current epoch.
    pub batch: usize,
    /// Finished steps over all epochs.
    pub step: usize,
}

/// One finished step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step, counted from 1.
    pub step: usize,
    /// The epoch it belongs to, counted from 0.
    pub epoch: usize,
    /// Mean negative log-likelihood of the batch before the step, nats per scored token.
    pub loss: f64,
    /// The learning rate used.
    pub learning_rate: f64,
    /// Norm of all gradients together, before clipping.
    pub grad_norm: f64,
    /// Scored tokens.
    pub num_tokens: usize,
    /// How long it took.
    pub seconds: f64,
}

/// The objective of a trainer: batches, and the loss of each.
pub trait Objective {
    /// Batches of an epoch.
    fn num_batches(&self) -> usize;

    /// The order of the batches in an epoch.
    fn order(&self, epoch: usize) -> Vec<usize>;

    /// The device on which the loss is computed.
    fn device(&self) -> Device;

    /// The loss of a batch, on the autodiff device. `step` counts over all epochs; controls draw by it.
    fn loss(&self, module: &AdapterModule, batch_idx: usize, step: usize) -> BatchLoss;
}

/// The loss of one batch.
#[derive(Debug)]
pub struct BatchLoss {
    /// Its backward pass gives the gradients of the mean loss.
    pub objective: Tensor<1>,
    /// Mean negative log-likelihood, nats per token.
    pub mean: f64,
    /// Scored tokens.
    pub num_tokens: usize,
}

/// The optimizer's schedule, for any objective.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Passes over the data.
    pub num_epochs: usize,
    /// The learning rate of each step.
    pub learning_rate: LearningRate,
    /// Decoupled weight decay of AdamW.
    pub weight_decay: f64,
    /// The largest norm of all gradients together.
    pub max_grad_norm: f64,
    /// Seed of dropout.
    pub seed: RunSeed,
}

/// The learning rate over the steps of a training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LearningRate {
    /// The same in every step.
    Constant(f64),
    /// Linear warm-up to `peak` over a part of all steps, then half a cosine down to zero.
    WarmupCosine {
        /// The highest value.
        peak: f64,
        /// The part of all steps in which it rises, 0 to 1.
        warmup: f64,
    },
}

impl LearningRate {
    fn at(self, step: usize, num_steps: usize) -> f64 {
        let (peak, warmup) = match self {
            Self::Constant(rate) => return rate,
            Self::WarmupCosine { peak, warmup } => (peak, warmup),
        };
        let warmup_steps = (warmup * num_steps as f64).ceil();
        let step = step as f64;
        if step < warmup_steps {
            return peak * (step + 1.0) / warmup_steps;
        }
        let remaining = (num_steps as f64 - warmup_steps).max(1.0);
        let progress = (step - warmup_steps) / remaining;
        peak * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
    }
}

impl TrainOptions {
    /// The schedule of a training with these options.
    pub fn schedule(&self, seed: RunSeed) -> Schedule {
        Schedule {
            num_epochs: self.num_epochs,
            learning_rate: LearningRate::WarmupCosine {
                peak: self.learning_rate,
                warmup: self.warmup,
            },
            weight_decay: self.weight_decay,
            max_grad_norm: self.max_grad_norm,
            seed,
        }
    }
}

/// An adapter in training.
pub struct Trainer<'a> {
    objective: Box<dyn Objective + 'a>,
    schedule: Schedule,
    module: AdapterModule,
    optimizer: ModuleOptimizer,
    cursor: Cursor,
    order: Vec<usize>,
}

impl std::fmt::Debug for Trainer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer")
            .field("schedule", &self.schedule)
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

impl<'a> Trainer<'a> {
    /// Starts before the first step.
    pub fn new(
        objective: Box<dyn Objective + 'a>,
        schedule: Schedule,
        module: AdapterModule,
    ) -> Self {
        Self {
            optimizer: adamw(schedule.weight_decay),
            order: objective.order(0),
            objective,
            schedule,
            module,
            cursor: Cursor::default(),
        }
    }

    /// Resumes another run.
    ///
    /// `module` and `optimizer_state` must be what that run held at `cursor`; then every later loss
    /// is bit for bit what it would have been without the interruption.
    ///
    /// # Errors
    ///
    /// When the optimizer's state cannot be read, or `cursor` is not a position of this training.
    pub fn resume(
        objective: Box<dyn Objective + 'a>,
        schedule: Schedule,
        module: AdapterModule,
        optimizer_state: Vec<u8>,
        cursor: Cursor,
    ) -> Result<Self, TrainError> {
        let num_batches = objective.num_batches();
        let num_steps = num_batches * schedule.num_epochs;
        let is_in_training = cursor.step <= num_steps
            && cursor.batch < num_batches
            && cursor
                .epoch
                .checked_mul(num_batches)
                .map(|steps| steps + cursor.batch)
                == Some(cursor.step);
        if !is_in_training {
            return Err(TrainError::NoSuchPosition { cursor, num_steps });
        }
        let bytes = burn::tensor::Bytes::from_bytes_vec(optimizer_state);
        let mut trainer = Self::new(objective, schedule, module);
        trainer.optimizer = trainer
            .optimizer
            .from_bytes(bytes)
            .map_err(TrainError::Optimizer)?;
        trainer.order = trainer.objective.order(cursor.epoch);
        trainer.cursor = cursor;
        Ok(trainer)
    }

    /// Steps of the whole training.
    pub fn num_steps(&self) -> usize {
        self.objective.num_batches() * self.schedule.num_epochs
    }

    /// Position in the training.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The module in its present state.
    pub fn module(&self) -> &AdapterModule {
        &self.module
    }

    /// The state of the optimizer, for [`resume`](Self::resume).
    ///
    /// # Errors
    ///
    /// When it cannot be serialised.
    pub fn optimizer_state(&self) -> Result<Vec<u8>, TrainError> {
        let bytes = self.optimizer.into_bytes().map_err(TrainError::Optimizer)?;
        Ok(bytes.to_vec())
    }

    /// Takes the next step, or returns `None` when all epochs are done.
    ///
    /// # Errors
    ///
    /// When the loss is not finite; the module is then unchanged.
    ///
    /// # Panics
    ///
    /// When a layer is adapted that is not run.
    pub fn next_step(&mut self) -> Result<Option<StepReport>, TrainError> {
        if self.cursor.epoch == self.schedule.num_epochs {
            return Ok(None);
        }
        let start = Instant::now();
        let Cursor { epoch, batch, step } = self.cursor;
        // Dropout draws from the device: seeding each step lets a resumed run draw the same.
        let seed = self.schedule.seed.derive(&format!("step-{step}"));
        self.objective.device().seed(seed.0);
        let loss = self.objective.loss(&self.module, self.order[batch], step);
        let mut grads = GradientsParams::from_grads(loss.objective.backward(), &self.module);
        let grad_norm = clip_to_norm(&self.module, &mut grads, self.schedule.max_grad_norm);
        if !(loss.mean.is_finite() && grad_norm.is_finite()) {
            return Err(TrainError::Diverged { step: step + 1 });
        }
        let learning_rate = self.schedule.learning_rate.at(step, self.num_steps());
        self.module = self
            .optimizer
            .step(learning_rate, self.module.clone(), grads);
        self.advance();
        Ok(Some(StepReport {
            step: step + 1,
            epoch,
            loss: loss.mean,
            learning_rate,
            grad_norm,
            num_tokens: loss.num_tokens,
            seconds: start.elapsed().as_secs_f64(),
        }))
    }

    fn advance(&mut self) {
        self.cursor.step += 1;
        self.cursor.batch += 1;
        if self.cursor.batch == self.order.len() {
            self.cursor.batch = 0;
            self.cursor.epoch += 1;
            self.order = self.objective.order(self.cursor.epoch);
        }
    }
}

/// `AdamW` with `PyTorch`'s other defaults.
fn adamw(weight_decay: f64) -> ModuleOptimizer {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "Burn takes the decay as f32"
    )]
    let weight_decay = weight_decay as f32;
    AdamWConfig::new()
        .with_epsilon(1e-8)
        .with_weight_decay(weight_decay)
        .init()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_then_falls_to_almost_nothing() {
        let schedule = LearningRate::WarmupCosine {
            peak: 2.0,
            warmup: 0.1,
        };
        let rates: Vec<f64> = (0..100).map(|step| schedule.at(step, 100)).collect();
        assert!((rates[0] - 0.2).abs() < 1e-12);
        assert!((rates[9] - 2.0).abs() < 1e-12);
        assert!(rates[10..].is_sorted_by(|left, right| left >= right));
        assert!(rates[99] < 0.001);
    }

    #[test]
    fn no_warmup_starts_at_the_top() {
        let schedule = LearningRate::WarmupCosine {
            peak: 1.0,
            warmup: 0.0,
        };
        assert!((schedule.at(0, 10) - 1.0).abs() < 1e-12);
    }
}
