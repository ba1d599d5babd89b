//! Training an adapter: one step at a time, so that the caller owns progress, checkpoints and the
//! right to stop.

use std::time::Instant;

use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;
use chameleon_core::{
    BatchPlan, ChunkRows, HeadInput, LoraFactors, PlannedBatch, RunSeed, linear_cross_entropy,
};
use chameleon_hypernet::{Condition, ControlPlan, PromptGroup};
use serde::{Deserialize, Serialize};

use crate::adapter::adaptation::{Trainee, layer_factors};
use crate::data::Example;
use crate::training::gradients::clip_to_norm;
use crate::training::grouped_examples::{GroupedExamples, scored_targets};
use crate::training::states::HiddenStates;

/// Why training cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// Loss or gradients are no longer numbers; the step was not taken.
    #[error("the loss is not finite at step {step}")]
    Diverged {
        /// The step, counted from 1.
        step: usize,
    },
    /// A saved position does not lie in this training.
    #[error("{cursor:?} is no position in a training of {num_steps} steps")]
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

/// How the optimizer runs.
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

impl TrainOptions {
    /// Linear warm-up, then half a cosine down to zero.
    pub fn learning_rate_at(&self, step: usize, num_steps: usize) -> f64 {
        let warmup_steps = (self.warmup * num_steps as f64).ceil();
        let step = step as f64;
        if step < warmup_steps {
            return self.learning_rate * (step + 1.0) / warmup_steps;
        }
        let remaining = (num_steps as f64 - warmup_steps).max(1.0);
        let progress = (step - warmup_steps) / remaining;
        self.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
    }
}

/// What stays fixed while an adapter trains.
#[derive(Debug, Clone)]
pub struct TrainSetup<'a> {
    /// The training data.
    pub data: &'a GroupedExamples,
    /// Its hidden states.
    pub hidden_states: HiddenStates<'a>,
    /// `[hidden, vocab]`, frozen.
    pub head_weight: Tensor<2>,
    /// `[clusters, hidden]`
    pub centroids: Tensor<2>,
    /// How a group becomes a condition.
    pub condition: Condition,
    /// Whose condition a group is given.
    pub control: ControlPlan,
    /// How the optimizer runs.
    pub options: TrainOptions,
    /// Seed of the order of batches and of dropout.
    pub seed: RunSeed,
}

/// Where training stands.
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

/// An adapter in training.
pub struct Trainer<'a> {
    setup: TrainSetup<'a>,
    trainee: Trainee,
    optimizer: ModuleOptimizer,
    cursor: Cursor,
    epoch_plan: BatchPlan,
}

impl std::fmt::Debug for Trainer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer")
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}

impl<'a> Trainer<'a> {
    /// Starts before the first step.
    pub fn new(mut setup: TrainSetup<'a>, trainee: Trainee) -> Self {
        setup.head_weight = laid_out(setup.head_weight, &trainee);
        let optimizer = adamw(setup.options.weight_decay);
        let epoch_plan = epoch_plan(&setup, 0);
        Self {
            setup,
            trainee,
            optimizer,
            cursor: Cursor::default(),
            epoch_plan,
        }
    }

    /// Continues where another run stopped.
    ///
    /// `trainee` and `optimizer_state` must be what that run held at `cursor`; then every later loss
    /// is bit for bit what it would have been without the interruption.
    ///
    /// # Errors
    ///
    /// When the optimizer's state cannot be read, or `cursor` is no position of this training.
    pub fn resume(
        mut setup: TrainSetup<'a>,
        trainee: Trainee,
        optimizer_state: Vec<u8>,
        cursor: Cursor,
    ) -> Result<Self, TrainError> {
        let num_batches = setup.data.plan.batches.len();
        let num_steps = num_batches * setup.options.num_epochs;
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
        let optimizer = adamw(setup.options.weight_decay)
            .from_bytes(bytes)
            .map_err(TrainError::Optimizer)?;
        let epoch_plan = epoch_plan(&setup, cursor.epoch);
        setup.head_weight = laid_out(setup.head_weight, &trainee);
        Ok(Self {
            setup,
            trainee,
            optimizer,
            cursor,
            epoch_plan,
        })
    }

    /// Steps of the whole training.
    pub fn num_steps(&self) -> usize {
        self.setup.data.plan.batches.len() * self.setup.options.num_epochs
    }

    /// Where training stands.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// What has been trained so far.
    pub fn trainee(&self) -> &Trainee {
        &self.trainee
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

    /// Takes the next step, or answers `None` when all epochs are done.
    ///
    /// # Errors
    ///
    /// When the loss is no longer finite; then nothing was changed.
    ///
    /// # Panics
    ///
    /// When a layer is adapted that the states do not pass through.
    pub fn next_step(&mut self) -> Result<Option<StepReport>, TrainError> {
        if self.cursor.epoch == self.setup.options.num_epochs {
            return Ok(None);
        }
        let start = Instant::now();
        let step = self.cursor.step;
        let epoch = self.cursor.epoch;
        let batch = &self.epoch_plan.batches[self.cursor.batch];
        // Dropout draws from the device: seeding each step lets a resumed run draw the same.
        let device = self.setup.head_weight.device();
        device.seed(self.setup.seed.derive(&format!("step-{step}")).0);
        let loss = self.batch_loss(batch);
        let mut grads = GradientsParams::from_grads(loss.objective.backward(), &self.trainee);
        let max_norm = self.setup.options.max_grad_norm;
        let grad_norm = clip_to_norm(&self.trainee, &mut grads, max_norm);
        if !(loss.mean.is_finite() && grad_norm.is_finite()) {
            return Err(TrainError::Diverged { step: step + 1 });
        }
        let learning_rate = self.setup.options.learning_rate_at(step, self.num_steps());
        self.trainee = self
            .optimizer
            .step(learning_rate, self.trainee.clone(), grads);
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
        if self.cursor.batch == self.epoch_plan.batches.len() {
            self.cursor.batch = 0;
            self.cursor.epoch += 1;
            self.epoch_plan = epoch_plan(&self.setup, self.cursor.epoch);
        }
    }

    fn batch_loss(&self, batch: &PlannedBatch) -> BatchLoss {
        let setup = &self.setup;
        let examples: Vec<&Example> = batch
            .rows
            .iter()
            .map(|&row| &setup.data.examples[row])
            .collect();
        let conditions = batch_conditions(
            setup.data,
            batch,
            &setup.centroids,
            setup.condition,
            &setup.control,
            self.cursor.step,
        );
        let groups = self
            .trainee
            .factor_writer()
            .groups(batch.cluster_idx, conditions.autodiff());
        let hidden = setup
            .hidden_states
            .of_batch(
                &batch.rows,
                &examples,
                &layer_factors(&groups, examples.len()),
                &setup.head_weight.device(),
            )
            .autodiff();
        let factors = groups.into_iter().map(|group| group.head).collect();
        let num_tokens = hidden.dims()[0];
        let mut objective = None;
        let mut sum = 0.0;
        for segment in segments(&examples, factors) {
            let rows = segment.rows.clone();
            let input = HeadInput {
                hidden: hidden.clone().slice([rows.clone()]),
                weight: setup.head_weight.clone(),
                factors: Some(segment.factors),
            };
            let targets = scored_targets(&examples[segment.examples], &setup.head_weight.device());
            let loss = linear_cross_entropy(input, targets, ChunkRows::default());
            let share = rows.len() as f64 / num_tokens as f64;
            sum += f64::from(loss.row_losses.sum().into_scalar::<f32>());
            let part = loss.objective * share;
            objective = Some(match objective {
                Some(total) => total + part,
                None => part,
            });
        }
        BatchLoss {
            objective: objective.expect("a planned batch has at least one row"),
            mean: sum / num_tokens as f64,
            num_tokens,
        }
    }
}

struct BatchLoss {
    objective: Tensor<1>,
    mean: f64,
    num_tokens: usize,
}

/// The conditions of one batch: one row, or one for each example.
pub(crate) fn batch_conditions(
    data: &GroupedExamples,
    batch: &PlannedBatch,
    centroids: &Tensor<2>,
    condition: Condition,
    control: &ControlPlan,
    batch_idx: usize,
) -> Tensor<2> {
    let device = data.prompt_embeddings.device();
    let rows: Vec<i64> = batch.rows.iter().map(|&row| row as i64).collect();
    let rows = Tensor::from_data(
        burn::tensor::TensorData::new(rows, [batch.rows.len()]),
        &device,
    );
    let group = PromptGroup {
        prompt_embeddings: data.prompt_embeddings.clone().select(0, rows),
        centroids: centroids.clone(),
        cluster_idx: batch.cluster_idx,
    };
    control.conditions(condition, group, batch_idx)
}

/// Examples of a batch that share a pair of factors, and the rows that are theirs.
pub(crate) struct Segment {
    pub(crate) examples: std::ops::Range<usize>,
    pub(crate) rows: std::ops::Range<usize>,
    pub(crate) factors: LoraFactors,
}

/// One segment for the whole batch, or one for each example.
pub(crate) fn segments(examples: &[&Example], factors: Vec<LoraFactors>) -> Vec<Segment> {
    let num_rows = |examples: &[&Example]| -> usize {
        examples
            .iter()
            .map(|example| example.sequence.scored().len())
            .sum()
    };
    let per_segment = examples.len() / factors.len();
    assert_eq!(
        per_segment * factors.len(),
        examples.len(),
        "factors for one group or for each example"
    );
    let mut first_row = 0;
    factors
        .into_iter()
        .enumerate()
        .map(|(segment_idx, factors)| {
            let examples_range = segment_idx * per_segment..(segment_idx + 1) * per_segment;
            let end = first_row + num_rows(&examples[examples_range.clone()]);
            let rows = std::mem::replace(&mut first_row, end)..end;
            Segment {
                examples: examples_range,
                rows,
                factors,
            }
        })
        .collect()
}

/// `AdamW` with `PyTorch`'s other defaults.
pub(crate) fn adamw(weight_decay: f64) -> ModuleOptimizer {
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

/// The head's weight with the tokens of each row side by side. A tied head is a turned view of the embedding, which
/// products would turn anew in every step; where layers train as well, their gradient reads it the other way.
fn laid_out(weight: Tensor<2>, trainee: &Trainee) -> Tensor<2> {
    if trainee.layers.is_some() {
        return weight;
    }
    let [hidden, vocab] = weight.dims();
    weight.reshape([hidden * vocab]).reshape([hidden, vocab])
}

fn epoch_plan(setup: &TrainSetup<'_>, epoch: usize) -> BatchPlan {
    let mut rng = setup.seed.stream(&format!("epoch-{epoch}"));
    setup.data.plan.shuffled(&mut rng)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_then_falls_to_almost_nothing() {
        let options = TrainOptions {
            num_epochs: 1,
            learning_rate: 2.0,
            warmup: 0.1,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
        };
        let rates: Vec<f64> = (0..100)
            .map(|step| options.learning_rate_at(step, 100))
            .collect();
        assert!((rates[0] - 0.2).abs() < 1e-12);
        assert!((rates[9] - 2.0).abs() < 1e-12);
        assert!(rates[10..].is_sorted_by(|left, right| left >= right));
        assert!(rates[99] < 0.001);
    }

    #[test]
    fn no_warmup_starts_at_the_top() {
        let options = TrainOptions {
            num_epochs: 1,
            learning_rate: 1.0,
            warmup: 0.0,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
        };
        assert!((options.learning_rate_at(0, 10) - 1.0).abs() < 1e-12);
    }
}
