//! The objective of the recipe `causal`: the scored tokens of a batch, given the condition of its group.

use burn::tensor::{Device, Tensor};
use chameleon_cluster::PlannedBatch;
use chameleon_core::{FrozenWeight, HeadInput, LoraFactors, linear_cross_entropy};
use chameleon_hypernet::{Condition, ControlPlan, PromptGroup};
use rand::seq::SliceRandom as _;

use crate::adapter::adaptation::{AdapterModule, layer_factors};
use crate::data::Example;
use crate::training::grouped_examples::{GroupedExamples, scored_targets};
use crate::training::setup::TrainSetup;
use crate::training::train::{BatchLoss, Objective};

/// Scored tokens of a batch, given the condition of its group.
pub(crate) struct CausalObjective<'a>(TrainSetup<'a>);

impl<'a> CausalObjective<'a> {
    pub(crate) fn new(mut setup: TrainSetup<'a>, module: &AdapterModule) -> Self {
        if module.layers.is_none() {
            setup.head.weight = row_major(setup.head.weight);
        }
        Self(setup)
    }
}

impl Objective for CausalObjective<'_> {
    fn num_batches(&self) -> usize {
        self.0.data.plan.batches.len()
    }

    fn order(&self, epoch: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.num_batches()).collect();
        order.shuffle(&mut self.0.seed.stream(&format!("epoch-{epoch}")));
        order
    }

    fn device(&self) -> Device {
        self.0.head.weight.device()
    }

    fn loss(&self, module: &AdapterModule, batch_idx: usize, step: usize) -> BatchLoss {
        let setup = &self.0;
        let batch = &setup.data.plan.batches[batch_idx];
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
            step,
        );
        let groups = module
            .factor_producer()
            .groups(batch.cluster_idx, conditions.autodiff());
        let hidden = setup
            .hidden_states
            .of_batch(
                &batch.rows,
                &examples,
                &layer_factors(&groups, examples.len()),
                &setup.head.weight.device(),
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
                head: setup.head.clone(),
                factors: Some(segment.factors),
            };
            let targets = scored_targets(&examples[segment.examples], &setup.head.weight.device());
            let loss = linear_cross_entropy(input, targets);
            let share = rows.len() as f64 / num_tokens as f64;
            sum += f64::from(loss.row_losses.sum().into_scalar::<f32>());
            let part = loss.mean_loss * share;
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

/// Examples of a batch that share a pair of factors, and the range of their rows.
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

/// The weight of a head in row-major order. A tied head is a transposed view of the embedding, which every step would
/// transpose again; when layers train as well, their gradient reads it in the other order.
fn row_major(weight: FrozenWeight) -> FrozenWeight {
    match weight {
        FrozenWeight::Dense(weight) => {
            let [hidden, vocab] = weight.dims();
            let values = weight.reshape([hidden * vocab]);
            values.reshape([hidden, vocab]).into()
        }
        stored @ FrozenWeight::Stored { .. } => stored,
    }
}
