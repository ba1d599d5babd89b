//! The runs of a comparison on disk: what is finished is not done again.
//!
//! ```text
//! OUT/runs/METHOD-seed-S-lr-L/
//!   adapter_config.json, adapter.safetensors   the epoch that was kept, unless another rate was chosen
//!   run.json                                   the course of the training
//!   scores.json                                what it scored on the test, of chosen runs
//! ```
//!
//! Each file carries a key: a fingerprint of all settings, the model and the texts it depends on. A run with another
//! key is of another comparison, which is refused and never written over.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chameleon_core::RunSeed;
use chameleon_hypernet::MemoryGate;
use chameleon_models::{ExampleScore, TokenScores, atomic_file};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{args::CompareMethod, errors::CliError};

/// One training that belongs to a comparison.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RunName {
    pub(super) method: &'static str,
    pub(super) seed: RunSeed,
    pub(super) learning_rate: f64,
}

impl RunName {
    pub(super) fn of(method: CompareMethod, seed: RunSeed, learning_rate: f64) -> Self {
        Self {
            method: method.name(),
            seed,
            learning_rate,
        }
    }
}

/// `run.json`: a finished training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrainedRun {
    key: String,
    pub(crate) seed: RunSeed,
    pub(crate) learning_rate: f64,
    pub(crate) num_trainable_params: usize,
    /// The epoch that was kept; none if the training diverged before the end of the first.
    pub(crate) kept: Option<KeptEpoch>,
    /// Every epoch, in order.
    pub(crate) curve: Vec<CurvePoint>,
    /// The step at which the loss was no longer a number.
    pub(crate) diverged_at_step: Option<usize>,
    pub(crate) seconds: f64,
    pub(crate) peak_memory_bytes: Option<u64>,
}

/// The epoch whose adapter counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeptEpoch {
    /// Counted from 1.
    pub(crate) epoch: usize,
    /// Nats per token on the validation texts.
    pub(crate) valid_loss: f64,
}

/// One epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct CurvePoint {
    /// Counted from 1.
    pub(crate) epoch: usize,
    /// Nats per token, while it trained.
    pub(crate) train_loss: f64,
    /// Nats per token afterwards.
    pub(crate) valid_loss: f64,
}

/// `scores.json`: what a run scored on the test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ScoredRun {
    key: String,
    pub(crate) scores: Vec<ExampleScore>,
    /// Nats of every scored token of every example, to three digits: for looking at, not for sums.
    pub(crate) token_nlls: Vec<Vec<f32>>,
    /// How the memory's part is decided, if there is one.
    #[serde(default)]
    pub(crate) gate: Option<MemoryGate>,
    pub(crate) seconds: f64,
}

impl TrainedRun {
    pub(super) fn new(key: String, name: RunName, num_trainable_params: usize) -> Self {
        Self {
            key,
            seed: name.seed,
            learning_rate: name.learning_rate,
            num_trainable_params,
            kept: None,
            curve: Vec::new(),
            diverged_at_step: None,
            seconds: 0.0,
            peak_memory_bytes: None,
        }
    }
}

impl ScoredRun {
    pub(super) fn new(key: String, scores: Vec<TokenScores>, seconds: f64) -> Self {
        let rounded = |nll: f32| (nll * 1000.0).round() / 1000.0;
        Self {
            key,
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

/// A folder of runs.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
}

impl Store {
    /// The runs in `out`.
    pub(super) fn of(out: &Path) -> Self {
        Self {
            folder: out.join("runs"),
        }
    }

    /// Whether there is a run, finished or not.
    pub(super) fn exists(&self) -> bool {
        self.folder.exists()
    }

    /// Where the adapter of a run lies.
    pub(super) fn adapter_folder(&self, name: RunName) -> PathBuf {
        self.folder.join(format!(
            "{}-seed-{}-lr-{}",
            name.method, name.seed.0, name.learning_rate
        ))
    }

    /// A finished training, if it is there.
    ///
    /// # Errors
    ///
    /// When it is one of another comparison.
    pub(super) fn trained(&self, name: RunName, key: &str) -> Result<Option<TrainedRun>, CliError> {
        let path = self.adapter_folder(name).join("run.json");
        let found: Option<TrainedRun> = read(&path)?;
        check(found, &path, |run| run.key == key)
    }

    /// Writes a finished training; `save` puts its adapter into the folder.
    pub(super) fn keep_trained(
        &self,
        name: RunName,
        run: &TrainedRun,
        save: impl FnOnce(&Path) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        fs::create_dir_all(&self.folder)
            .map_err(CliError::file("make the folder", &self.folder))?;
        atomic_file::write_folder(&self.adapter_folder(name), |folder| {
            save(folder)?;
            write(&folder.join("run.json"), run)
        })
    }

    /// Whether the adapter of a finished training is still there.
    pub(super) fn has_adapter(&self, name: RunName) -> bool {
        let folder = self.adapter_folder(name);
        ADAPTER_FILES.iter().all(|file| folder.join(file).exists())
    }

    /// Deletes the adapter of a training that was not chosen; the record of its course stays.
    pub(super) fn drop_adapter(&self, name: RunName) -> Result<(), CliError> {
        let folder = self.adapter_folder(name);
        for file in ADAPTER_FILES {
            let path = folder.join(file);
            deleted(&path, fs::remove_file(&path))?;
        }
        Ok(())
    }

    /// Deletes everything of a training, which will be done again.
    pub(super) fn forget(&self, name: RunName) -> Result<(), CliError> {
        let folder = self.adapter_folder(name);
        deleted(&folder, fs::remove_dir_all(&folder))
    }

    /// What a run scored on the test, if that is there.
    ///
    /// # Errors
    ///
    /// When it is one of another comparison.
    pub(super) fn scored(
        &self,
        place: &ScorePlace,
        key: &str,
    ) -> Result<Option<ScoredRun>, CliError> {
        let path = self.score_path(place);
        let found: Option<ScoredRun> = read(&path)?;
        check(found, &path, |run| run.key == key)
    }

    pub(super) fn keep_scored(&self, place: &ScorePlace, run: &ScoredRun) -> Result<(), CliError> {
        let path = self.score_path(place);
        let folder = path.parent().expect("a file in a folder");
        fs::create_dir_all(folder).map_err(CliError::file("make the folder", folder))?;
        write(&path, run)
    }

    fn score_path(&self, place: &ScorePlace) -> PathBuf {
        let folder = match place.run {
            Some(name) => self.adapter_folder(name),
            None => self.folder.join("frozen"),
        };
        let memory = place
            .memory
            .map_or_else(String::new, |name| format!("-{name}"));
        let group_size = place
            .group_size
            .map_or_else(String::new, |size| format!("-group-size-{size}"));
        folder.join(format!("scores{memory}{group_size}.json"))
    }
}

/// What an adapter folder holds of the adapter itself; the weights go first, so that a folder with the other file
/// alone is never taken for an adapter.
const ADAPTER_FILES: [&str; 2] = ["adapter.safetensors", "adapter_config.json"];

/// What is not there counts as deleted.
fn deleted(path: &Path, result: io::Result<()>) -> Result<(), CliError> {
    match result {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(CliError::file("delete", path)(source))
        }
        _ => Ok(()),
    }
}

/// Which scores are meant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ScorePlace {
    /// `None` for the frozen model.
    pub(super) run: Option<RunName>,
    /// The method that put a memory beside the adapter, if one did.
    pub(super) memory: Option<&'static str>,
    /// Texts that shared a condition, where that is not the batch size.
    pub(super) group_size: Option<usize>,
}

fn check<T>(
    found: Option<T>,
    path: &Path,
    is_ours: impl FnOnce(&T) -> bool,
) -> Result<Option<T>, CliError> {
    match found {
        Some(run) if !is_ours(&run) => Err(CliError::OtherRun {
            path: path.parent().unwrap_or(path).to_owned(),
        }),
        found => Ok(found),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, CliError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(CliError::file("read", path)(source));
        }
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| CliError::RunRecord {
            path: path.to_owned(),
            source,
        })
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), CliError> {
    let json = serde_json::to_vec(value).expect("a run is plain data");
    Ok(atomic_file::write(path, &json)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: RunName = RunName {
        method: "core",
        seed: RunSeed(1),
        learning_rate: 5e-4,
    };

    fn run(key: &str) -> TrainedRun {
        TrainedRun::new(key.to_owned(), NAME, 7)
    }

    #[test]
    fn a_finished_run_is_found_by_its_key_and_another_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of(folder.path());
        assert!(!store.exists());
        assert_eq!(store.trained(NAME, "a").unwrap(), None);
        store.keep_trained(NAME, &run("a"), |_| Ok(())).unwrap();
        assert!(store.exists());
        assert_eq!(store.trained(NAME, "a").unwrap(), Some(run("a")));
        assert!(matches!(
            store.trained(NAME, "b"),
            Err(CliError::OtherRun { .. })
        ));
    }

    #[test]
    fn a_dropped_adapter_leaves_the_record_and_a_forgotten_run_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of(folder.path());
        let save = |folder: &Path| {
            for file in ADAPTER_FILES {
                atomic_file::write(&folder.join(file), b"x")?;
            }
            Ok(())
        };
        store.keep_trained(NAME, &run("a"), save).unwrap();
        assert!(store.has_adapter(NAME));
        store.drop_adapter(NAME).unwrap();
        store.drop_adapter(NAME).unwrap();
        assert!(!store.has_adapter(NAME));
        assert_eq!(store.trained(NAME, "a").unwrap(), Some(run("a")));
        store.forget(NAME).unwrap();
        store.forget(NAME).unwrap();
        assert_eq!(store.trained(NAME, "a").unwrap(), None);
    }

    #[test]
    fn a_spoilt_record_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of(folder.path());
        store.keep_trained(NAME, &run("a"), |_| Ok(())).unwrap();
        let path = store.adapter_folder(NAME).join("run.json");
        atomic_file::write(&path, b"{\"key\":\"a\"").unwrap();
        let error = store.trained(NAME, "a").unwrap_err();
        assert!(error.to_string().contains("run.json"), "{error}");
    }
}
