//! The objective as published: one condition for each batch, every batch averaged on its own.

use burn::tensor::{Device, Tensor};
use chameleon_core::{FrozenWeight, HeadInput, RunSeed, linear_cross_entropy};
use chameleon_hypernet::{ConditionSource, ControlPlan};
use rand::seq::SliceRandom as _;

use super::data::{PublishedData, PublishedStates};
use crate::adapter::adaptation::{AdapterModule, layer_factors};
use crate::training::recipes::quirks::{Quirk, Quirks};
use crate::training::train::{BatchLoss, Objective};

/// The objective under a published recipe.
#[derive(Debug, Clone)]
pub struct PublishedObjective<'a> {
    /// The training rows.
    pub data: &'a PublishedData,
    /// Their states.
    pub states: PublishedStates<'a>,
    /// `[hidden, vocab]`, frozen.
    pub head_weight: FrozenWeight,
    /// Which condition a batch receives; planned for as many clusters as there are batches.
    pub control: ControlPlan,
    /// The active quirks.
    pub quirks: Quirks,
    /// Seed of the order of batches, if it changes.
    pub seed: RunSeed,
}

impl Objective for PublishedObjective<'_> {
    fn num_batches(&self) -> usize {
        self.data.plan.batches.len()
    }

    fn order(&self, epoch: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.num_batches()).collect();
        if !self.quirks.has(Quirk::FixedOrder) {
            order.shuffle(&mut self.seed.stream(&format!("epoch-{epoch}")));
        }
        order
    }

    fn device(&self) -> Device {
        self.head_weight.device()
    }

    /// # Panics
    ///
    /// When a layer is adapted and the states are cached.
    fn loss(&self, module: &AdapterModule, batch_idx: usize, step: usize) -> BatchLoss {
        let device = self.device();
        let condition = batch_condition(self.data, &self.control, batch_idx, step);
        let batch = &self.data.plan.batches[batch_idx];
        let mut groups = module
            .factor_producer()
            .groups(batch.cluster_idx, condition.autodiff());
        let layers = layer_factors(&groups, batch.rows.len());
        let hidden = self.states.of_batch(self.data, batch_idx, &layers, &device);
        let num_tokens = hidden.dims()[0];
        let input = HeadInput {
            hidden: hidden.autodiff(),
            weight: self.head_weight.clone(),
            factors: groups.pop().map(|group| group.head),
        };
        let targets = self.data.targets(batch_idx, &device);
        let loss = linear_cross_entropy(input, targets);
        BatchLoss {
            mean: f64::from(loss.row_losses.mean().into_scalar::<f32>()),
            objective: loss.mean_loss,
            num_tokens,
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
