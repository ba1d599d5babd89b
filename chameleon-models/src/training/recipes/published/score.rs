//! Validation loss as published: a mean over batches.

use chameleon_core::{FrozenWeight, HeadInput, perplexity, score_rows};
use chameleon_hypernet::ControlPlan;
use serde::{Deserialize, Serialize};

use super::data::{PublishedData, PublishedStates};
use super::train::batch_condition;
use crate::adapter::adaptation::{AdapterModule, layer_factors};
use crate::training::recipes::quirks::{Quirk, Quirks};

/// The loss of one batch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BatchScore {
    /// Negative log-likelihood of its scored tokens, in nats.
    pub nll: f64,
    /// Its scored tokens.
    pub num_tokens: usize,
}

/// The losses of all batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PublishedScore {
    /// In the order of the plan.
    pub batches: Vec<BatchScore>,
    /// Nats per token, averaged according to the quirks.
    pub loss: f64,
}

impl PublishedScore {
    /// `exp` of the loss.
    pub fn perplexity(&self) -> f64 {
        perplexity(self.loss)
    }
}

/// Scores rows.
#[derive(Debug, Clone)]
pub struct PublishedScorer<'a> {
    /// The adapter, off the autodiff device; `None` scores the frozen model.
    pub module: Option<&'a AdapterModule>,
    /// The states of the rows.
    pub states: PublishedStates<'a>,
    /// `[hidden, vocab]`, frozen.
    pub head_weight: FrozenWeight,
    /// Which condition a batch receives; planned for as many clusters as there are batches.
    pub control: ControlPlan,
    /// The active quirks.
    pub quirks: &'a Quirks,
}

impl PublishedScorer<'_> {
    /// Scores every batch.
    ///
    /// # Panics
    ///
    /// When a layer is adapted and the states are cached, or a cluster has no expert.
    pub fn score(&self, data: &PublishedData) -> PublishedScore {
        let device = self.head_weight.device();
        let producer = self.module.map(AdapterModule::factor_producer);
        let batches = (0..data.plan.batches.len())
            .map(|batch_idx| {
                let batch = &data.plan.batches[batch_idx];
                let mut groups = producer.as_ref().map_or_else(Vec::new, |producer| {
                    let condition = batch_condition(data, &self.control, batch_idx, batch_idx);
                    producer.groups(batch.cluster_idx, condition)
                });
                let layers = layer_factors(&groups, batch.rows.len());
                let hidden = self.states.of_batch(data, batch_idx, &layers, &device);
                let factors = groups.pop().map(|group| group.head);
                let num_tokens = hidden.dims()[0];
                let input = HeadInput {
                    hidden,
                    weight: self.head_weight.clone(),
                    factors,
                };
                let targets = data.targets(batch_idx, &device);
                let losses = score_rows(input, targets);
                let nll = losses.into_data().iter::<f32>().map(f64::from).sum();
                BatchScore { nll, num_tokens }
            })
            .collect::<Vec<_>>();
        let loss = mean_loss(&batches, self.quirks);
        PublishedScore { batches, loss }
    }
}

fn mean_loss(batches: &[BatchScore], quirks: &Quirks) -> f64 {
    if quirks.has(Quirk::EqualBatches) {
        let means = batches
            .iter()
            .map(|batch| batch.nll / batch.num_tokens as f64);
        return means.sum::<f64>() / batches.len() as f64;
    }
    let nll: f64 = batches.iter().map(|batch| batch.nll).sum();
    let num_tokens: usize = batches.iter().map(|batch| batch.num_tokens).sum();
    nll / num_tokens as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_published_a_small_batch_weighs_as_much_as_a_large_one() {
        let batch = |nll, num_tokens| BatchScore { nll, num_tokens };
        let batches = [batch(9.0, 9), batch(3.0, 1)];
        let published = Quirks::published();
        assert!((mean_loss(&batches, &published) - 2.0).abs() < 1e-12);
        let by_token = published.without(&[Quirk::EqualBatches]);
        assert!((mean_loss(&batches, &by_token) - 1.2).abs() < 1e-12);
    }
}
