//! Finished runs: values, files in the results folder, and the order in which they are taken up again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use chameleon_core::RunSeed;
use chameleon_hypernet::ConditionControl;
use chameleon_models::{
    Interval, PairedSequence, files::atomic_file, files::fingerprint::Fingerprint, paired_interval,
};
use serde::{Deserialize, Serialize};

use crate::{errors::CliError, resolve::Start};

use super::answers::TextScores;

/// What is trained and scored under a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Method {
    /// The model as it is.
    Frozen,
    /// Plain LoRA on the head.
    Lora,
    /// The paper's hypernetwork.
    Dense,
    /// The same, given the conditions of other batches.
    DenseShuffled,
    /// Our hypernetwork.
    Core,
    /// The same, given the conditions of other batches.
    CoreShuffled,
}

impl Method {
    /// Its name in tables and files.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::Lora => "lora",
            Self::Dense => "dense",
            Self::DenseShuffled => "dense-shuffled",
            Self::Core => "core",
            Self::CoreShuffled => "core-shuffled",
        }
    }

    /// Whose conditions it is given.
    pub(super) fn control(self) -> ConditionControl {
        match self {
            Self::DenseShuffled | Self::CoreShuffled => ConditionControl::Redrawn,
            Self::Frozen | Self::Lora | Self::Dense | Self::Core => ConditionControl::None,
        }
    }

    /// The same method with wrong conditions, for methods that have conditions.
    pub(super) fn shuffled(self) -> Option<Self> {
        match self {
            Self::Dense => Some(Self::DenseShuffled),
            Self::Core => Some(Self::CoreShuffled),
            _ => None,
        }
    }
}

/// One method under one recipe with one seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) recipe: String,
    pub(super) method: Method,
    pub(super) seed: u64,
    pub(super) facts: Facts,
    pub(super) num_trainable_params: usize,
    /// One entry for each epoch; none for the frozen model.
    pub(super) curve: Vec<Epoch>,
    /// Counted from 1.
    pub(super) chosen_epoch: Option<usize>,
    /// Nats per token on the validation rows, at the chosen epoch.
    pub(super) valid_loss: f64,
    /// Nats per token on the test rows, where the recipe has some.
    pub(super) test_loss: Option<f64>,
    /// What the paired difference is taken of: batches as published, test examples under `causal`.
    pub(super) units: Vec<Unit>,
    /// Of generated answers, where some were asked for.
    pub(super) text: Option<TextScores>,
    pub(super) seconds: f64,
    /// The most memory it needed, where the system tells.
    #[serde(default)]
    pub(super) peak_memory_bytes: Option<u64>,
}

impl Run {
    /// A run of which nothing is known yet but what it is.
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

/// One epoch of a learning curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Epoch {
    /// Counted from 1.
    #[serde(rename = "epoch")]
    pub(super) number: usize,
    /// Mean over the batches of the epoch, each before its step.
    pub(super) train_loss: f64,
    pub(super) valid_loss: f64,
}

/// A part of the scored rows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Unit {
    pub(super) nll: f64,
    pub(super) num_tokens: usize,
    /// Units of one document are resampled together.
    pub(super) document_idx: usize,
}

/// What a recipe makes of the data.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "every count starts with `num_`")]
pub(super) struct Facts {
    pub(super) num_train_rows: usize,
    pub(super) num_valid_rows: usize,
    pub(super) num_test_rows: usize,
    pub(super) num_clusters: usize,
    pub(super) num_train_batches: usize,
    /// Scored tokens of the validation rows.
    pub(super) num_scored: usize,
    /// How many of them are padding.
    pub(super) num_scored_padding: usize,
    /// How many of them are the commonest token.
    pub(super) num_commonest: usize,
}

/// How often the commonest of some tokens occurs.
pub(super) fn count_commonest<'a>(ids: impl Iterator<Item = &'a u32>) -> usize {
    let mut counts = HashMap::<u32, usize>::new();
    for &id in ids {
        *counts.entry(id).or_default() += 1;
    }
    counts.into_values().max().unwrap_or(0)
}

impl Run {
    /// The loss that counts: of the test rows where there are some.
    pub(super) fn loss(&self) -> f64 {
        self.test_loss.unwrap_or(self.valid_loss)
    }
}

/// What one method lost less what another lost, paired by unit; runs are paired by seed, and a method without
/// randomness has one run for all seeds.
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

/// The runs of a results folder.
pub(super) struct RunStore {
    folder: PathBuf,
}

/// Ties finished runs to the settings and data they were made with.
const SETTINGS: &str = "settings.sha256";

impl RunStore {
    /// Opens the folder of a new reproduction, or of one that goes on.
    pub(super) fn open(out: &Path, start: Start, settings: Fingerprint) -> Result<Self, CliError> {
        let folder = out.join("runs");
        let path = folder.join(SETTINGS);
        let found = std::fs::read_to_string(&path).ok();
        match (&found, start) {
            (Some(_), Start::Fresh) => {
                return Err(CliError::ResultsTaken {
                    path: out.to_owned(),
                });
            }
            (Some(found), Start::Resume) if *found != settings.to_string() => {
                return Err(CliError::OtherRun {
                    path: out.to_owned(),
                });
            }
            _ => {}
        }
        std::fs::create_dir_all(&folder).map_err(|source| CliError::Folder {
            path: folder.clone(),
            source,
        })?;
        atomic_file::write(&path, settings.to_string().as_bytes())?;
        Ok(Self { folder })
    }

    /// A run that was finished earlier. A file that cannot be read is as good as none.
    pub(super) fn find(&self, recipe: &str, method: Method, seed: RunSeed) -> Option<Run> {
        let bytes = std::fs::read(self.path(recipe, method, seed.0)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Keeps a finished run.
    pub(super) fn save(&self, run: &Run) -> Result<(), CliError> {
        let json = serde_json::to_vec(run).expect("a run is plain data");
        let path = self.path(&run.recipe, run.method, run.seed);
        Ok(atomic_file::write(&path, &json)?)
    }

    fn path(&self, recipe: &str, method: Method, seed: u64) -> PathBuf {
        self.folder
            .join(format!("{recipe}-{}-seed-{seed}.json", method.name()))
    }
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
        curve: vec![Epoch {
            number: 1,
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
        let frozen = test_run("causal", Method::Frozen, 1, &[4.0, 6.0]);
        let lora = [
            test_run("causal", Method::Lora, 1, &[3.0, 5.0]),
            test_run("causal", Method::Lora, 2, &[2.0, 4.0]),
        ];
        let lora: Vec<&Run> = lora.iter().collect();
        let interval = difference(&lora, &[&frozen], RunSeed(1)).unwrap();
        assert!((interval.mean + 1.5).abs() < 1e-12, "{interval:?}");
        assert!(difference(&lora, &[], RunSeed(1)).is_none());
    }

    #[test]
    fn finished_runs_are_found_again_under_the_same_settings_only() {
        let folder = tempfile::tempdir().unwrap();
        let settings = |text: &str| {
            Fingerprint::builder()
                .part("settings", text.as_bytes())
                .finish()
        };
        let store = RunStore::open(folder.path(), Start::Fresh, settings("a")).unwrap();
        let run = test_run("as-published", Method::Dense, 3, &[1.0, 2.5]);
        store.save(&run).unwrap();
        assert!(RunStore::open(folder.path(), Start::Fresh, settings("a")).is_err());
        assert!(RunStore::open(folder.path(), Start::Resume, settings("b")).is_err());
        let store = RunStore::open(folder.path(), Start::Resume, settings("a")).unwrap();
        assert_eq!(
            store.find("as-published", Method::Dense, RunSeed(3)),
            Some(run)
        );
        assert_eq!(store.find("as-published", Method::Dense, RunSeed(4)), None);
    }
}
