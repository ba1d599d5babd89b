//! Training of one adapter into a folder, with checkpoints for resumption.

use std::path::{Path, PathBuf};
use std::time::Instant;

use chameleon_core::RunSeed;
use chameleon_hypernet::ConditionControl;
use serde::Serialize;

use crate::adapter::adaptation::AdapterModule;
use crate::adapter::group_memory::MemoryConfig;
use crate::adapter::{self, Adapter, AdapterConfig, CONFIG_FILE, MemoryDescription};
use crate::families::causal_lm::CausalLm;
use crate::training::config::TrainingConfig;
use crate::training::error::TrainingError;
use crate::training::eval::{ScoreSummary, TokenScores};
use crate::training::exemplar_scores::score_with_exemplars;
use crate::training::fit::{Conditions, EpochRecord, FitHooks, Selection, fit};
use crate::training::known_states::KnownStates;
use crate::training::method::Head;
use crate::training::metrics_file::MetricsFile;
use crate::training::new_adapter::{autodiff_device, untrained};
use crate::training::observer::Observer;
use crate::training::prepare::TrainingData;
use crate::training::train::{StepReport, TrainError, Trainer};
use crate::training::training_state::{self, TrainingCheckpoint, TrainingParts, TrainingState};

/// Whether a training is new or resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// New, in an empty folder.
    Fresh,
    /// Resumed from the state in the folder.
    Resume,
}

/// Whether a training builds a memory of the adapter's groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryStage {
    /// A memory is built after the last step.
    Build,
    /// The adapter has no memory.
    Skip,
}

/// The training of one adapter into a folder.
#[derive(Debug, Clone)]
pub struct TrainingRun<'a> {
    /// The adaptation of the head.
    pub head: Head,
    /// The other settings of the adapter and its training.
    pub config: &'a TrainingConfig,
    /// Whether a memory is built at the end.
    pub memory: MemoryStage,
    /// The adapter's folder.
    pub out: &'a Path,
    /// Whether it is new or resumed.
    pub start: Start,
    /// Number of steps between checkpoints, in addition to those after each epoch.
    pub checkpoint_every: Option<usize>,
    /// Seed of the initial weights, the order of batches and dropout.
    pub seed: RunSeed,
}

/// The result of a training.
#[derive(Debug, Serialize)]
pub struct TrainingReport {
    /// The adapter's folder.
    pub out: PathBuf,
    /// Number of trainable parameters.
    pub num_trainable_params: usize,
    /// Optimizer steps.
    pub num_steps: usize,
    /// Training examples.
    pub num_train_examples: usize,
    /// Validation examples.
    pub num_valid_examples: usize,
    /// Of the frozen model on the validation texts, if its hidden states are cached.
    pub base_perplexity: Option<f64>,
    /// Of the best epoch on the validation texts.
    pub valid_perplexity: f64,
    /// The groups' memories.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryReport>,
    /// Wall-clock time of this call.
    pub seconds: f64,
}

/// Size and score of the memory of a training.
#[derive(Debug, Serialize)]
pub struct MemoryReport {
    /// The layer whose input states are the keys.
    pub layer_idx: usize,
    /// Entries of all groups together.
    pub num_entries: usize,
    /// Bytes of keys and tokens.
    pub num_bytes: usize,
    /// On the validation texts, by which the gate was fitted.
    pub valid_perplexity: f64,
    /// The whole description.
    #[serde(skip)]
    pub description: MemoryDescription,
}

impl TrainingRun<'_> {
    /// Rejects a folder that holds an adapter, unless the training is resumed.
    ///
    /// # Errors
    ///
    /// When the folder holds an adapter.
    pub fn check_folder(&self) -> Result<(), TrainingError> {
        let has_adapter = self.out.join(CONFIG_FILE).exists() || training_state::exists(self.out);
        if self.start == Start::Fresh && has_adapter {
            return Err(TrainingError::Exists {
                path: self.out.to_owned(),
                what: "an adapter",
            });
        }
        Ok(())
    }

    /// Trains to the last epoch. After each epoch the folder holds the best adapter so far, and a checkpoint.
    ///
    /// # Errors
    ///
    /// When the folder is not empty or cannot be written, the adapter does not fit the model, a checkpoint is missing
    /// or belongs to other settings, the loss diverges, or the observer interrupts; then [`Start::Resume`] continues.
    pub fn run(
        &self,
        data: &TrainingData,
        observer: &dyn Observer,
    ) -> Result<TrainingReport, TrainingError> {
        let start = Instant::now();
        self.check_folder()?;
        let config = self.config.adapter_config(self.head, data, self.seed)?;
        let memory_config = match self.memory {
            MemoryStage::Skip => None,
            MemoryStage::Build => {
                let memory = self.config.memory.config(data.model().sizes())?;
                adapter::check_memory(&memory, &config)?;
                Some(memory)
            }
        };
        let found = match self.start {
            Start::Fresh => None,
            Start::Resume => Some(self.checkpoint(&config, data)?),
        };
        let train_states = data.known_states(&data.train, self.config, observer)?;
        let valid_states = data.known_states(&data.valid, self.config, observer)?;
        let conditions = Conditions {
            config: &config,
            control: ConditionControl::None,
        };
        let setup = data.setup(conditions, train_states.hidden_states(data.model()))?;
        let (trainer, best) = match found {
            None => (setup.trainer(untrained(&config, data)?)?, None),
            Some(found) => {
                let TrainingState {
                    cursor,
                    best_valid_nll,
                    ..
                } = found.state;
                let module = found.adapter.module;
                let trainer = setup.resume(module, found.optimizer_state, cursor)?;
                (trainer, best_valid_nll)
            }
        };
        let num_steps = trainer.num_steps();
        let num_trainable_params = trainer.module().num_trainable_params();
        let score = |module: Option<&AdapterModule>| {
            let states = valid_states.hidden_states(data.model());
            match (config.exemplars, module) {
                (Some(how), Some(module)) => {
                    let scores = score_with_exemplars(
                        module,
                        data.model(),
                        &data.valid.data,
                        states,
                        how,
                        observer,
                    )?;
                    Ok(scores.into_iter().map(|score| score.tokens).collect())
                }
                _ => data.score(module, conditions, &data.valid, states, observer),
            }
        };
        let mut folder = Folder {
            run: self,
            config: &config,
            data,
            metrics: MetricsFile::open(self.out, trainer.cursor().step)?,
            best,
            saved_step: (self.start == Start::Resume).then(|| trainer.cursor().step),
            run_fingerprint: data.run_fingerprint(&config),
            observer,
        };
        let fitted = fit(
            "training",
            trainer,
            Selection::BestEpoch,
            |module| Ok(ScoreSummary::of_tokens(&score(Some(module))?).mean_nll()),
            &mut folder,
            observer,
        )?;
        if let Some(step) = fitted.diverged_at_step {
            return Err(TrainError::Diverged { step }.into());
        }
        folder.metrics.flush()?;
        let memory = memory_config
            .map(|memory_config| self.make_memory(memory_config, data, score, observer))
            .transpose()?;
        let base_perplexity = match valid_states {
            KnownStates::Final(_) => Some(ScoreSummary::of_tokens(&score(None)?).perplexity()),
            KnownStates::Entering { .. } | KnownStates::Nothing => None,
        };
        training_state::remove(self.out)?;
        Ok(TrainingReport {
            out: self.out.to_owned(),
            num_trainable_params,
            num_steps,
            num_train_examples: data.train.data.examples.len(),
            num_valid_examples: data.valid.data.examples.len(),
            base_perplexity,
            valid_perplexity: folder.best.map_or(f64::NAN, f64::exp),
            memory,
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    fn checkpoint(
        &self,
        config: &AdapterConfig,
        data: &TrainingData,
    ) -> Result<TrainingCheckpoint, TrainingError> {
        let device = autodiff_device(data.model());
        let identity = &data.loaded.identity;
        let path = || self.out.to_owned();
        let found = training_state::load(self.out, data.model(), identity, &device)?
            .ok_or_else(|| TrainingError::NothingToResume { path: path() })?;
        if found.state.run_fingerprint == data.run_fingerprint(config) {
            Ok(found)
        } else {
            Err(TrainingError::OtherRun { path: path() })
        }
    }

    /// Builds the memory of the best epoch's adapter and writes it to the adapter's folder.
    fn make_memory(
        &self,
        config: MemoryConfig,
        data: &TrainingData,
        score: impl Fn(Option<&AdapterModule>) -> Result<Vec<TokenScores>, TrainingError>,
        observer: &dyn Observer,
    ) -> Result<MemoryReport, TrainingError> {
        let device = autodiff_device(data.model());
        let identity = &data.loaded.identity;
        let adapter = Adapter::load(self.out, data.model(), identity, &device)?;
        let scores = score(Some(&adapter.module))?;
        let without = ScoreSummary::of_tokens(&scores).mean_nll();
        let seed = self.seed.derive("memory");
        let cache_dir = &self.config.cache_dir;
        let fitted = data.fit_memory(config, scores, cache_dir, seed, observer)?;
        observer.note(&format!(
            "memory: validation loss {without:.4} without, {:.4} with it",
            fitted.valid.mean_nll()
        ));
        let description = fitted.memory.description.clone();
        adapter.with_memory(fitted.memory).save(self.out)?;
        Ok(MemoryReport {
            layer_idx: description.config.layer_idx,
            num_entries: description.num_entries,
            num_bytes: description.num_bytes(),
            valid_perplexity: fitted.valid.perplexity(),
            description,
        })
    }
}

/// Writes the files of a training to its folder.
struct Folder<'a> {
    run: &'a TrainingRun<'a>,
    config: &'a AdapterConfig,
    data: &'a TrainingData,
    metrics: MetricsFile,
    /// Nats per token of the best epoch so far.
    best: Option<f64>,
    /// The step of the newest training state on disk.
    saved_step: Option<usize>,
    run_fingerprint: String,
    observer: &'a dyn Observer,
}

impl FitHooks for Folder<'_> {
    fn stepped(&mut self, trainer: &Trainer<'_>, report: &StepReport) -> Result<(), TrainingError> {
        self.metrics.write(report)?;
        let every = self.run.checkpoint_every;
        if every.is_some_and(|steps| report.step.is_multiple_of(steps)) {
            self.save_checkpoint(trainer)?;
        }
        Ok(())
    }

    fn validated(
        &mut self,
        trainer: &Trainer<'_>,
        report: &StepReport,
        record: &EpochRecord,
    ) -> Result<(), TrainingError> {
        let (loss, perplexity) = (record.valid_loss, record.valid_loss.exp());
        self.metrics.write(report)?;
        self.metrics.write(&Validation {
            step: report.step,
            epoch: report.epoch,
            valid_loss: loss,
            valid_perplexity: perplexity,
        })?;
        self.observer.note(&format!(
            "epoch {}: validation loss {loss:.4}, perplexity {perplexity:.3}",
            record.epoch
        ));
        if self.best.is_none_or(|best| loss < best) {
            self.best = Some(loss);
            let centroids = &self.data.centroids;
            adapter::save(self.run.out, self.config, trainer.module(), centroids)?;
        }
        self.save_checkpoint(trainer)
    }

    fn interrupted(&mut self, trainer: &Trainer<'_>) -> Result<(), TrainingError> {
        self.save_checkpoint(trainer)?;
        self.observer.note(&format!(
            "stopped after step {}, which is saved",
            trainer.cursor().step
        ));
        Ok(())
    }
}

impl Folder<'_> {
    fn save_checkpoint(&mut self, trainer: &Trainer<'_>) -> Result<(), TrainingError> {
        self.metrics.flush()?;
        let cursor = trainer.cursor();
        if self.saved_step == Some(cursor.step) {
            return Ok(());
        }
        training_state::save(
            self.run.out,
            TrainingParts {
                config: self.config,
                module: trainer.module(),
                centroids: &self.data.centroids,
                optimizer_state: &trainer.optimizer_state()?,
                state: &TrainingState {
                    cursor,
                    run_fingerprint: self.run_fingerprint.clone(),
                    best_valid_nll: self.best,
                },
            },
        )?;
        self.saved_step = Some(cursor.step);
        Ok(())
    }
}

#[derive(Serialize)]
struct Validation {
    step: usize,
    epoch: usize,
    valid_loss: f64,
    valid_perplexity: f64,
}
