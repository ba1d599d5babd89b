//! A comparison of several methods on the same texts; every training and every scoring runs once and is stored.
//!
//! Every method tries the same learning rates with the first seed and keeps its best epoch on the validation texts.
//! The chosen settings are trained with all seeds and scored once on the test texts.
//!
//! ```text
//! OUT/runs/METHOD-seed-S-lr-L/
//!   adapter_config.json, adapter.safetensors   the epoch that was kept, unless another rate was chosen
//!   run.json                                   the curve of the training
//!   scores.json                                the scores on the test texts, of chosen runs
//! ```

use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

use chameleon_core::RunSeed;
use chameleon_hypernet::ConditionControl;

use crate::adapter::adaptation::AdapterModule;
use crate::adapter::group_memory::MemoryConfig;
use crate::adapter::{self, Adapter, AdapterConfig};
use crate::training::error::TrainingError;
use crate::training::eval::ScoreSummary;
use crate::training::fit::{Conditions, NoHooks, Selection, fit};
use crate::training::known_states::KnownStates;
use crate::training::method::{Head, MemoryControl, Method};
use crate::training::new_adapter::{autodiff_device, untrained};
use crate::training::observer::Observer;
use crate::training::prepare::{Split, json};
use crate::training::states::HiddenStates;

use super::config::ComparisonConfig;
use super::memories::{ScoredTexts, SplitScores};
use super::peak_memory;
use super::runs::{ADAPTER_FILES, MethodRuns, RunName, ScoredRun, TrainedRun, best};
use super::store::RunStore;
use super::texts::ComparisonTexts;

/// The shared state of the runs of a comparison.
pub struct Comparison<'a> {
    /// Its settings.
    pub config: &'a ComparisonConfig,
    /// The texts.
    pub texts: &'a ComparisonTexts,
    /// The test texts in the batches in which they are scored.
    pub test: &'a Split,
    /// Number of test texts that share a condition, if it differs from the batch size.
    pub group_size: Option<usize>,
    /// The store of the runs.
    pub store: RunStore,
    /// Receives progress and can interrupt.
    pub observer: &'a dyn Observer,
}

impl fmt::Debug for Comparison<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Comparison")
            .field("config", self.config)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Comparison<'_> {
    /// Rejects a folder whose runs belong to another comparison, before the long work starts.
    ///
    /// # Errors
    ///
    /// When the store has a run of another comparison.
    pub fn check_store(&self) -> Result<(), TrainingError> {
        for &method in &self.config.methods {
            if method.head == Head::Frozen {
                continue;
            }
            for &learning_rate in &self.config.learning_rates {
                let name = RunName::new(method, self.config.seeds[0], learning_rate);
                let config = self.adapter_config(name)?;
                let key = self.key(&config, name.method.control, Selection::BestEpoch);
                self.store.find::<TrainedRun>(&name.record(), &key)?;
            }
        }
        Ok(())
    }

    /// Trains and scores the missing runs of every method.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written, every training of a method diverges, or the observer interrupts; then
    /// the same call continues it.
    pub fn run(&self) -> Result<Vec<MethodRuns>, TrainingError> {
        let methods = self.config.methods.iter();
        methods.map(|&method| self.method(method)).collect()
    }

    /// Trials, choice, all seeds, test.
    fn method(&self, method: Method) -> Result<MethodRuns, TrainingError> {
        if method.head == Head::Frozen {
            return Ok(MethodRuns {
                method,
                trials: Vec::new(),
                chosen: Vec::new(),
                scored: vec![self.frozen()?],
            });
        }
        let seed = self.config.seeds[0];
        let mut trials = Vec::new();
        for &learning_rate in &self.config.learning_rates {
            let name = RunName::new(method, seed, learning_rate);
            trials.push(self.training(name, Selection::BestEpoch)?);
        }
        let diverged = |seed: RunSeed| TrainingError::AllDiverged {
            method: method.to_string(),
            seed: seed.0,
        };
        let (best, kept) = best(&trials).ok_or_else(|| diverged(seed))?;
        let learning_rate = best.learning_rate;
        let best_name = RunName::new(method, seed, learning_rate);
        if !self.has_adapter(best_name) {
            // Its adapter was deleted when a learning rate that is no longer requested had a lower loss.
            self.store.forget(&best_name.to_string())?;
            self.training(best_name, Selection::BestEpoch)?;
        }
        for trial in &trials {
            let name = RunName::new(method, seed, trial.learning_rate);
            if name != best_name {
                for file in ADAPTER_FILES {
                    self.store.drop_file(&format!("{name}/{file}"))?;
                }
            }
        }
        let mut runs = MethodRuns {
            method,
            chosen: vec![best.clone()],
            scored: Vec::new(),
            trials,
        };
        for &seed in &self.config.seeds[1..] {
            let name = RunName::new(method, seed, learning_rate);
            let run = self.training(name, Selection::Epoch(kept.epoch))?;
            if run.kept.is_none() {
                return Err(diverged(seed));
            }
            runs.chosen.push(run);
        }
        for run in &runs.chosen {
            if self.observer.is_interrupted() {
                return Err(TrainingError::Interrupted);
            }
            let name = RunName::new(method, run.seed, run.learning_rate);
            runs.scored.push(match method.memory {
                None => self.test_score(name)?,
                Some(control) => self.memory_score(name, method, control)?,
            });
        }
        let summary: ScoreSummary = runs.scored.iter().flat_map(|run| &run.scores).collect();
        self.observer.note(&format!(
            "{method}: learning rate {learning_rate}, epoch {}: test perplexity {:.3}",
            kept.epoch,
            summary.perplexity(),
        ));
        Ok(runs)
    }

    /// One training, read from disk if it is stored.
    fn training(&self, name: RunName, selection: Selection) -> Result<TrainedRun, TrainingError> {
        let config = self.adapter_config(name)?;
        let control = name.method.control;
        let key = self.key(&config, control, selection);
        if let Some(run) = self.store.find(&name.record(), &key)? {
            return Ok(run);
        }
        peak_memory::forget();
        let start = Instant::now();
        let data = &self.texts.data;
        let module = untrained(&config, data)?;
        let num_trainable_params = module.num_trainable_params();
        let conditions = Conditions {
            config: &config,
            control,
        };
        let states = self.texts.states.train.hidden_states(data.model());
        let trainer = data.setup(conditions, states)?.trainer(module)?;
        let validate = |module: &AdapterModule| {
            let states = self.texts.states.valid.hidden_states(data.model());
            let scores =
                data.score(Some(module), conditions, &data.valid, states, self.observer)?;
            Ok(ScoreSummary::of_tokens(&scores).mean_nll())
        };
        let label = name.method.to_string();
        let fitted = fit(
            &label,
            trainer,
            selection,
            validate,
            &mut NoHooks,
            self.observer,
        )?;
        let run = TrainedRun {
            seed: name.seed,
            learning_rate: name.learning_rate,
            num_trainable_params,
            kept: fitted.kept,
            curve: fitted.curve,
            diverged_at_step: fitted.diverged_at_step,
            seconds: start.elapsed().as_secs_f64(),
            peak_memory_bytes: peak_memory::bytes(),
        };
        let folder = name.to_string();
        self.store
            .keep_folder(&folder, "run.json", &key, &run, |folder| {
                if let Some(module) = &fitted.module {
                    adapter::save(folder, &config, module, &data.centroids)?;
                }
                Ok(())
            })?;
        self.note_training(name, &run);
        Ok(run)
    }

    fn note_training(&self, name: RunName, run: &TrainedRun) {
        let found = match run.kept {
            Some(kept) => format!(
                "validation loss {:.4} after epoch {}",
                kept.valid_loss, kept.epoch
            ),
            None => "diverged".to_owned(),
        };
        self.observer.note(&format!(
            "{} seed {}, learning rate {}: {found}, {:.0} s",
            name.method, name.seed.0, name.learning_rate, run.seconds
        ));
    }

    /// Scores the adapter of a finished training on the test texts, once.
    fn test_score(&self, name: RunName) -> Result<ScoredRun, TrainingError> {
        let config = self.adapter_config(name)?;
        let control = name.method.control;
        let place = self.score_place(&name.to_string(), None);
        let key = self.score_key(&config, control, None);
        if let Some(run) = self.store.find(&place, &key)? {
            return Ok(run);
        }
        let module = self.load_module(name)?;
        let conditions = Conditions {
            config: &config,
            control,
        };
        self.scored(&place, &key, Some(&module), conditions)
    }

    /// Scores the adapter of a finished training together with a memory, once.
    fn memory_score(
        &self,
        name: RunName,
        method: Method,
        memory: MemoryControl,
    ) -> Result<ScoredRun, TrainingError> {
        let memories = self.texts.memories.as_ref();
        let memories = memories.expect("built when a method uses memories");
        let config = self.adapter_config(name)?;
        let control = name.method.control;
        let place = self.score_place(&name.to_string(), Some(method));
        let key = self.score_key(&config, control, Some((&memories.config, memory)));
        if let Some(run) = self.store.find(&place, &key)? {
            return Ok(run);
        }
        let start = Instant::now();
        let module = self.load_module(name)?;
        let data = &self.texts.data;
        let conditions = Conditions {
            config: &config,
            control,
        };
        let score = |split, states: &KnownStates| {
            let states = states.hidden_states(data.model());
            data.score(Some(&module), conditions, split, states, self.observer)
        };
        let scores = SplitScores {
            valid: score(&data.valid, &self.texts.states.valid)?,
            test: score(self.test, &self.texts.states.test)?,
        };
        let texts = ScoredTexts {
            data,
            test: self.test,
            group_size: self.group_size,
        };
        let (gate, scores) = memories.mix(memory, texts, scores, self.observer);
        let mut run = ScoredRun::new(scores, start.elapsed().as_secs_f64());
        run.gate = Some(gate);
        self.store.keep(&place, &key, &run)?;
        Ok(run)
    }

    fn load_module(&self, name: RunName) -> Result<AdapterModule, TrainingError> {
        let data = &self.texts.data;
        let device = autodiff_device(data.model());
        let folder = self.store.path(&name.to_string());
        let adapter = Adapter::load(&folder, data.model(), &data.loaded.identity, &device)?;
        Ok(adapter.module)
    }

    fn has_adapter(&self, name: RunName) -> bool {
        let folder: PathBuf = self.store.path(&name.to_string());
        ADAPTER_FILES.iter().all(|file| folder.join(file).exists())
    }

    fn frozen(&self) -> Result<ScoredRun, TrainingError> {
        let seed = self.config.seeds[0];
        let name = RunName::new(Method::FROZEN, seed, self.config.learning_rates[0]);
        let config = self.adapter_config(name)?;
        let place = self.score_place("frozen", None);
        let key = self.texts.data.fingerprint(b"frozen", &[self.test]);
        if let Some(run) = self.store.find(&place, &key)? {
            return Ok(run);
        }
        let conditions = Conditions {
            config: &config,
            control: ConditionControl::None,
        };
        self.scored(&place, &key, None, conditions)
    }

    fn scored(
        &self,
        place: &str,
        key: &str,
        module: Option<&AdapterModule>,
        conditions: Conditions<'_>,
    ) -> Result<ScoredRun, TrainingError> {
        let start = Instant::now();
        let ComparisonTexts { data, states, .. } = self.texts;
        let states = match module {
            Some(_) => states.test.hidden_states(data.model()),
            None => HiddenStates::Cached(&states.frozen_test),
        };
        let scores = data.score(module, conditions, self.test, states, self.observer)?;
        let run = ScoredRun::new(scores, start.elapsed().as_secs_f64());
        self.store.keep(place, key, &run)?;
        Ok(run)
    }

    fn adapter_config(&self, name: RunName) -> Result<AdapterConfig, TrainingError> {
        let mut training = self.config.training.clone();
        training.optimizer.learning_rate = name.learning_rate;
        training.adapter_config(name.method.head, &self.texts.data, name.seed)
    }

    /// The path of the scores in the store; those with a memory are named after its method.
    fn score_place(&self, run: &str, memory: Option<Method>) -> String {
        let memory = memory.map_or_else(String::new, |method| format!("-{method}"));
        let group_size = self
            .group_size
            .map_or_else(String::new, |size| format!("-group-size-{size}"));
        format!("{run}/scores{memory}{group_size}.json")
    }

    /// The fingerprint of all inputs of a training.
    fn key(
        &self,
        config: &AdapterConfig,
        control: ConditionControl,
        selection: Selection,
    ) -> String {
        let last_epoch = match selection {
            Selection::BestEpoch | Selection::LastEpoch => None,
            Selection::Epoch(epoch) => Some(epoch),
        };
        let settings = (env!("CARGO_PKG_VERSION"), config, control, last_epoch);
        let data = &self.texts.data;
        data.fingerprint(&json(&settings), &[&data.train, &data.valid])
    }

    /// The fingerprint of all inputs of a training's test scores.
    fn score_key(
        &self,
        config: &AdapterConfig,
        control: ConditionControl,
        memory: Option<(&MemoryConfig, MemoryControl)>,
    ) -> String {
        let settings = (env!("CARGO_PKG_VERSION"), config, control, memory);
        let data = &self.texts.data;
        data.fingerprint(&json(&settings), &[&data.train, &data.valid, self.test])
    }
}
