//! The stored results of a comparison's runs, and their names.

use std::fmt;

use chameleon_core::RunSeed;
use chameleon_hypernet::memory::MemoryGate;
use serde::{Deserialize, Serialize};

use crate::training::eval::{ExampleScore, TokenScores};
use crate::training::fit::{EpochRecord, KeptEpoch};
use crate::training::method::Method;

/// `run.json`: a finished training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainedRun {
    /// The seed.
    pub seed: RunSeed,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Number of trainable parameters.
    pub num_trainable_params: usize,
    /// The epoch that was kept; `None` if the training diverged before the end of the first.
    pub kept: Option<KeptEpoch>,
    /// Every epoch, in order.
    pub curve: Vec<EpochRecord>,
    /// The step at which the loss was not finite.
    pub diverged_at_step: Option<usize>,
    /// Wall-clock time.
    pub seconds: f64,
    /// Peak memory of the process during the run, if the system reports it.
    pub peak_memory_bytes: Option<u64>,
}

/// `scores.json`: the scores of a run on the test texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredRun {
    /// Of each example.
    pub scores: Vec<ExampleScore>,
    /// Nats of every scored token of every example, rounded to three digits: for display, not for sums.
    pub token_nlls: Vec<Vec<f32>>,
    /// The gate of the memory, if there is one.
    #[serde(default)]
    pub gate: Option<MemoryGate>,
    /// Wall-clock time.
    pub seconds: f64,
}

impl ScoredRun {
    pub(super) fn new(scores: Vec<TokenScores>, seconds: f64) -> Self {
        let rounded = |nll: f32| (nll * 1000.0).round() / 1000.0;
        Self {
            token_nlls: scores
                .iter()
                .map(|score| score.token_nlls.iter().copied().map(rounded).collect())
                .collect(),
            scores: scores.into_iter().map(|score| score.total).collect(),
            gate: None,
            seconds,
        }
    }
}

/// All runs of one method.
#[derive(Debug)]
pub struct MethodRuns {
    /// The method.
    pub method: Method,
    /// Of the first seed, one for each learning rate.
    pub trials: Vec<TrainedRun>,
    /// With the chosen learning rate, one for each seed; none for the frozen model.
    pub chosen: Vec<TrainedRun>,
    /// One for each seed; one for the frozen model.
    pub scored: Vec<ScoredRun>,
}

/// One training that belongs to a comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RunName {
    pub(super) method: Method,
    pub(super) seed: RunSeed,
    pub(super) learning_rate: f64,
}

impl fmt::Display for RunName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, seed, learning_rate) = (self.method, self.seed.0, self.learning_rate);
        write!(f, "{method}-seed-{seed}-lr-{learning_rate}")
    }
}

impl RunName {
    /// The training of a method; a memory has that of its adapter.
    pub(super) fn new(method: Method, seed: RunSeed, learning_rate: f64) -> Self {
        Self {
            method: method.adapter(),
            seed,
            learning_rate,
        }
    }

    pub(super) fn record(self) -> String {
        format!("{self}/run.json")
    }
}

/// The files of an adapter in its folder; the weights are deleted first, so that the configuration alone is never
/// mistaken for an adapter.
pub(super) const ADAPTER_FILES: [&str; 2] = ["adapter.safetensors", "adapter_config.json"];

/// The trial with the lowest validation loss.
pub(super) fn best(trials: &[TrainedRun]) -> Option<(&TrainedRun, KeptEpoch)> {
    trials
        .iter()
        .filter_map(|trial| Some((trial, trial.kept?)))
        .min_by(|(_, left), (_, right)| left.valid_loss.total_cmp(&right.valid_loss))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_validation_loss_is_chosen_and_diverged_trials_are_not() {
        let trial = |learning_rate, valid_loss: Option<f64>| TrainedRun {
            seed: RunSeed(1),
            learning_rate,
            num_trainable_params: 1,
            kept: valid_loss.map(|valid_loss| KeptEpoch {
                epoch: 1,
                valid_loss,
            }),
            curve: Vec::new(),
            diverged_at_step: None,
            seconds: 0.0,
            peak_memory_bytes: None,
        };
        let trials = [
            trial(0.1, Some(2.0)),
            trial(0.2, Some(1.5)),
            trial(0.4, None),
        ];
        let (chosen, _) = best(&trials).unwrap();
        assert!((chosen.learning_rate - 0.2).abs() < 1e-12);
        assert!(best(&[trial(0.4, None)]).is_none());
    }
}
