//! Finished runs of a reproduction, as values.

use std::collections::HashMap;

use chameleon_core::RunSeed;
use serde::{Deserialize, Serialize};

use crate::training::experiment::{Interval, PairedSequence, paired_interval};
use crate::training::fit::EpochRecord;
use crate::training::method::Method;

use super::answers::TextScores;

/// One method under one recipe with one seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The recipe.
    pub recipe: String,
    /// The method.
    pub method: Method,
    /// The seed.
    pub seed: u64,
    /// Sizes of the recipe's data.
    pub facts: Facts,
    /// Number of trainable parameters.
    pub num_trainable_params: usize,
    /// One entry for each epoch; none for the frozen model.
    pub curve: Vec<EpochRecord>,
    /// Counted from 1.
    pub chosen_epoch: Option<usize>,
    /// Nats per token on the validation rows, at the chosen epoch.
    pub valid_loss: f64,
    /// Nats per token on the test rows, if the recipe has any.
    pub test_loss: Option<f64>,
    /// The units of the paired difference: batches as published, test examples under `causal`.
    pub units: Vec<Unit>,
    /// Of generated answers, if requested.
    pub text: Option<TextScores>,
    /// Wall-clock time.
    pub seconds: f64,
    /// Its peak memory, if the system reports it.
    #[serde(default)]
    pub peak_memory_bytes: Option<u64>,
}

impl Run {
    /// A run without results.
    pub(super) fn new(recipe: &str, method: Method, seed: RunSeed, facts: Facts) -> Self {
        Self {
            recipe: recipe.to_owned(),
            method,
            seed: seed.0,
            facts,
            num_trainable_params: 0,
            curve: Vec::new(),
            chosen_epoch: None,
            valid_loss: f64::NAN,
            test_loss: None,
            units: Vec::new(),
            text: None,
            seconds: 0.0,
            peak_memory_bytes: None,
        }
    }
}

/// A part of the scored rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Negative log-likelihood, in nats.
    pub nll: f64,
    /// Scored tokens.
    pub num_tokens: usize,
    /// Units of one document are resampled together.
    pub document_idx: usize,
}

/// Sizes of a recipe's data.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Training rows.
    pub num_train_rows: usize,
    /// Validation rows.
    pub num_valid_rows: usize,
    /// Test rows.
    pub num_test_rows: usize,
    /// Clusters.
    pub num_clusters: usize,
    /// Batches of an epoch.
    pub num_train_batches: usize,
    /// Scored tokens of the validation rows.
    pub num_scored: usize,
    /// How many of them are padding.
    pub num_scored_padding: usize,
    /// How many of them are the most common token.
    pub num_commonest: usize,
}

/// The number of occurrences of the most common token.
pub(super) fn count_commonest<'a>(ids: impl Iterator<Item = &'a u32>) -> usize {
    let mut counts = HashMap::<u32, usize>::new();
    for &id in ids {
        *counts.entry(id).or_default() += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

impl Run {
    /// The reported loss: of the test rows if there are any, otherwise of the validation rows.
    pub(super) fn loss(&self) -> f64 {
        self.test_loss.unwrap_or(self.valid_loss)
    }
}

/// The runs of one method among those of one recipe.
pub(super) fn of_method<'a>(runs: &[&'a Run], method: Method) -> Vec<&'a Run> {
    runs.iter()
        .filter(|run| run.method == method)
        .copied()
        .collect()
}

/// The loss of one method minus that of another, paired by unit; runs are paired by seed, and a deterministic method
/// has one run for all seeds.
pub(super) fn difference(runs: &[&Run], others: &[&Run], seed: RunSeed) -> Option<Interval> {
    let last = |runs: &[&Run]| runs.len().checked_sub(1);
    let (last_run, last_other) = (last(runs)?, last(others)?);
    let pairs: Vec<(&Run, &Run)> = (0..=last_run.max(last_other))
        .map(|idx| (runs[idx.min(last_run)], others[idx.min(last_other)]))
        .collect();
    let sequences: Vec<PairedSequence> = runs[0]
        .units
        .iter()
        .enumerate()
        .map(|(unit_idx, unit)| PairedSequence {
            differences: pairs
                .iter()
                .map(|(run, other)| run.units[unit_idx].nll - other.units[unit_idx].nll)
                .collect(),
            num_tokens: unit.num_tokens,
            unit_idx: unit.document_idx,
        })
        .collect();
    Some(paired_interval(&sequences, seed))
}

#[cfg(test)]
pub(super) fn test_run(recipe: &str, method: Method, seed: u64, nlls: &[f64]) -> Run {
    let units: Vec<Unit> = nlls
        .iter()
        .enumerate()
        .map(|(document_idx, &nll)| Unit {
            nll,
            num_tokens: 1,
            document_idx,
        })
        .collect();
    let loss = nlls.iter().sum::<f64>() / nlls.len() as f64;
    Run {
        recipe: recipe.to_owned(),
        method,
        seed,
        facts: Facts {
            num_train_rows: 8,
            num_valid_rows: 4,
            num_test_rows: 0,
            num_clusters: 2,
            num_train_batches: 2,
            num_scored: 4,
            num_scored_padding: 3,
            num_commonest: 4,
        },
        num_trainable_params: 10,
        curve: vec![EpochRecord {
            epoch: 1,
            train_loss: loss,
            valid_loss: loss,
        }],
        chosen_epoch: Some(1),
        valid_loss: loss,
        test_loss: None,
        units,
        text: None,
        seconds: 1.0,
        peak_memory_bytes: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_run_is_paired_with_every_seed_of_the_other() {
        let frozen = test_run("causal", Method::FROZEN, 1, &[4.0, 6.0]);
        let lora = [
            test_run("causal", Method::LORA, 1, &[3.0, 5.0]),
            test_run("causal", Method::LORA, 2, &[2.0, 4.0]),
        ];
        let lora: Vec<&Run> = lora.iter().collect();
        let interval = difference(&lora, &[&frozen], RunSeed(1)).unwrap();
        assert!((interval.mean + 1.5).abs() < 1e-12, "{interval:?}");
        assert!(difference(&lora, &[], RunSeed(1)).is_none());
    }
}
