//! Training steps as published: a constant learning rate, one condition for each batch, no clipping.

use std::time::Instant;

use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;
use chameleon_core::{ChunkRows, HeadInput, RunSeed, linear_cross_entropy};
use chameleon_hypernet::{ConditionSource, ControlPlan};
use rand::seq::SliceRandom as _;
use serde::{Deserialize, Serialize};

use super::data::{PublishedData, PublishedStates};
use crate::adapter::adaptation::{Trainee, layer_factors};
use crate::training::gradients::clip_to_norm;
use crate::training::recipes::quirks::{Quirk, Quirks};
use crate::training::train::{Cursor, StepReport, TrainError, adamw};

/// How the optimizer runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PublishedOptions {
    /// Passes over the data.
    pub num_epochs: usize,
    /// The learning rate, the same in every step.
    pub learning_rate: f64,
    /// Decoupled weight decay of `AdamW`.
    pub weight_decay: f64,
}

/// What stays fixed while an adapter trains.
#[derive(Debug, Clone)]
pub struct PublishedSetup<'a> {
    /// The training rows.
    pub data: &'a PublishedData,
    /// Their states.
    pub states: PublishedStates<'a>,
    /// `[hidden, vocab]`, frozen.
    pub head_weight: Tensor<2>,
    /// Whose condition a batch is given; planned for as many clusters as there are batches.
    pub control: ControlPlan,
    /// What is unusual.
    pub quirks: Quirks,
    /// How the optimizer runs.
    pub options: PublishedOptions,
    /// Seed of dropout, and of the order of batches where it changes.
    pub seed: RunSeed,
}

/// An adapter in training.
pub struct PublishedTrainer<'a> {
    setup: PublishedSetup<'a>,
    trainee: Trainee,
    optimizer: ModuleOptimizer,
    cursor: Cursor,
    order: Vec<usize>,
}

impl std::fmt::Debug for PublishedTrainer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishedTrainer")
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

impl<'a> PublishedTrainer<'a> {
    /// Starts before the first step.
    pub fn new(setup: PublishedSetup<'a>, trainee: Trainee) -> Self {
        Self {
            optimizer: adamw(setup.options.weight_decay),
            order: batch_order(&setup, 0),
            cursor: Cursor::default(),
            trainee,
            setup,
        }
    }

    /// Steps of the whole training.
    pub fn num_steps(&self) -> usize {
        self.order.len() * self.setup.options.num_epochs
    }

    /// Where training stands.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// What has been trained so far.
    pub fn trainee(&self) -> &Trainee {
        &self.trainee
    }

    /// Takes the next step, or answers `None` when all epochs are done.
    ///
    /// # Errors
    ///
    /// When the loss is no longer finite; then nothing was changed.
    ///
    /// # Panics
    ///
    /// When a layer is adapted and the states are cached.
    pub fn next_step(&mut self) -> Result<Option<StepReport>, TrainError> {
        if self.cursor.epoch == self.setup.options.num_epochs {
            return Ok(None);
        }
        let start = Instant::now();
        let Cursor { epoch, batch, step } = self.cursor;
        let batch_idx = self.order[batch];
        let setup = &self.setup;
        let device = setup.head_weight.device();
        // Dropout draws from the device.
        device.seed(setup.seed.derive(&format!("step-{step}")).0);
        let condition = batch_condition(setup.data, &setup.control, batch_idx, step);
        let cluster_idx = setup.data.plan.batches[batch_idx].cluster_idx;
        let mut groups = self
            .trainee
            .factor_writer()
            .groups(cluster_idx, condition.autodiff());
        let num_rows = setup.data.plan.batches[batch_idx].rows.len();
        let layers = layer_factors(&groups, num_rows);
        let hidden = setup
            .states
            .of_batch(setup.data, batch_idx, &layers, &device);
        let num_tokens = hidden.dims()[0];
        let input = HeadInput {
            hidden: hidden.autodiff(),
            weight: setup.head_weight.clone(),
            factors: groups.pop().map(|group| group.head),
        };
        let targets = setup.data.targets(batch_idx, &device);
        let loss = linear_cross_entropy(input, targets, ChunkRows::default());
        let mean = f64::from(loss.row_losses.mean().into_scalar::<f32>());
        let mut grads = GradientsParams::from_grads(loss.objective.backward(), &self.trainee);
        let grad_norm = clip_to_norm(&self.trainee, &mut grads, f64::INFINITY);
        if !(mean.is_finite() && grad_norm.is_finite()) {
            return Err(TrainError::Diverged { step: step + 1 });
        }
        let learning_rate = setup.options.learning_rate;
        self.trainee = self
            .optimizer
            .step(learning_rate, self.trainee.clone(), grads);
        self.advance();
        Ok(Some(StepReport {
            step: step + 1,
            epoch,
            loss: mean,
            learning_rate,
            grad_norm,
            num_tokens,
            seconds: start.elapsed().as_secs_f64(),
        }))
    }

    fn advance(&mut self) {
        self.cursor.step += 1;
        self.cursor.batch += 1;
        if self.cursor.batch == self.order.len() {
            self.cursor.batch = 0;
            self.cursor.epoch += 1;
            self.order = batch_order(&self.setup, self.cursor.epoch);
        }
    }
}

/// The condition of a batch, `[1, hidden]`: its own mean, or under a control another one.
pub(super) fn batch_condition(
    data: &PublishedData,
    control: &ControlPlan,
    batch_idx: usize,
    draw_idx: usize,
) -> Tensor<2> {
    let row = |batch_idx: usize| data.conditions.clone().slice([batch_idx..=batch_idx]);
    match control.source(batch_idx, draw_idx) {
        ConditionSource::Own => row(batch_idx),
        ConditionSource::Centroid(other_idx) => row(other_idx),
        ConditionSource::MeanCentroid => data.conditions.clone().mean_dim(0),
    }
}

fn batch_order(setup: &PublishedSetup<'_>, epoch: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..setup.data.plan.batches.len()).collect();
    if !setup.quirks.has(Quirk::FixedOrder) {
        order.shuffle(&mut setup.seed.stream(&format!("epoch-{epoch}")));
    }
    order
}
