//! `chameleon train`: one adapter, trained with checkpoints and written to a folder.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use chameleon_hypernet::ConditionControl;
use chameleon_models::{
    AdapterConfig, ScoreSummary, Trainee, Trainer, TrainingCheckpoint, TrainingState, adapter,
    atomic_file,
    training_state::{self, TrainingParts},
};
use serde::Serialize;

use crate::{
    args::TrainMethod,
    commands::{
        Context,
        method::{self, HeadMethod, StepBar},
        prepare::{Prepared, Sources, prepare},
        states::{KnownStates, known_states},
    },
    errors::{CliError, ExitStatus},
    output::{Column, Page, Results, Table},
    resolve::{Start, TrainConfig},
};

pub(crate) fn run(config: &TrainConfig, context: &Context) -> Result<ExitStatus, CliError> {
    let start = Instant::now();
    check_folder(config)?;
    let prepared = prepare(
        &Sources {
            model: &config.model,
            data: &config.data,
            held_out: &config.valid,
            training: &config.training,
        },
        context,
    )?;
    let head = match config.method {
        TrainMethod::Lora => HeadMethod::Lora,
        TrainMethod::Dense => HeadMethod::Dense,
        TrainMethod::Core => HeadMethod::Core,
    };
    let adapter_config =
        method::adapter_config(head, &config.training, &prepared, context.settings.seed)?;
    let found = match config.start {
        Start::Fresh => None,
        Start::Resume => Some(last_checkpoint(
            config,
            &adapter_config,
            &prepared,
            context,
        )?),
    };
    let known = |part| {
        let cache_dir = config.training.cache_dir.as_ref();
        known_states(&prepared, part, &config.training, context, || {
            prepared.hidden_states(part, "hidden states", cache_dir, context)
        })
    };
    let (Some(train_states), Some(valid_states)) =
        (known(&prepared.train)?, known(&prepared.held_out)?)
    else {
        return Ok(ExitStatus::Interrupted);
    };
    let states = train_states.hidden_states(prepared.model());
    let setup = method::setup(&adapter_config, &prepared, states, ConditionControl::None)?;
    let (trainer, best) = match found {
        None => {
            let trainee = method::untrained(&adapter_config, &prepared, context)?;
            (Trainer::new(setup, trainee), None)
        }
        Some(found) => {
            let (cursor, best) = (found.state.cursor, found.state.best_valid_nll);
            let trainee = found.adapter.trainee;
            let trainer = Trainer::resume(setup, trainee, found.optimizer_state, cursor)?;
            (trainer, best)
        }
    };
    let mut session = Session {
        metrics: Metrics::open(&config.out, trainer.cursor().step)?,
        config,
        adapter_config: &adapter_config,
        prepared: &prepared,
        valid_states: &valid_states,
        best,
        saved_step: (config.start == Start::Resume).then(|| trainer.cursor().step),
        run_fingerprint: prepared.run_fingerprint(&adapter_config),
        trainer,
        context,
    };
    if session.run()? == ExitStatus::Interrupted {
        context.output.note(format_args!(
            "stopped after step {}; go on with --resume",
            session.trainer.cursor().step
        ));
        return Ok(ExitStatus::Interrupted);
    }
    let report = session.report(start)?;
    training_state::remove(&config.out)?;
    context.output.results(&report)?;
    Ok(ExitStatus::Done)
}

/// Nothing that exists is written over without being asked to.
fn check_folder(config: &TrainConfig) -> Result<(), CliError> {
    let has_adapter =
        config.out.join("adapter_config.json").exists() || training_state::exists(&config.out);
    if config.start == Start::Fresh && has_adapter {
        return Err(CliError::FolderTaken {
            path: config.out.clone(),
        });
    }
    Ok(())
}

fn last_checkpoint(
    config: &TrainConfig,
    adapter_config: &AdapterConfig,
    prepared: &Prepared,
    context: &Context,
) -> Result<TrainingCheckpoint, CliError> {
    let device = context.device()?.autodiff();
    let identity = &prepared.loaded.identity;
    let found = training_state::load(&config.out, prepared.model(), identity, &device)?
        .ok_or_else(|| CliError::NothingToResume {
            path: config.out.clone(),
        })?;
    if found.state.run_fingerprint == prepared.run_fingerprint(adapter_config) {
        Ok(found)
    } else {
        Err(CliError::OtherRun {
            path: config.out.clone(),
        })
    }
}

struct Session<'a> {
    config: &'a TrainConfig,
    adapter_config: &'a AdapterConfig,
    prepared: &'a Prepared,
    valid_states: &'a KnownStates,
    trainer: Trainer<'a>,
    metrics: Metrics,
    /// Nats per token of the best epoch so far.
    best: Option<f64>,
    /// The step of the newest training state on disk.
    saved_step: Option<usize>,
    run_fingerprint: String,
    context: &'a Context,
}

impl Session<'_> {
    fn run(&mut self) -> Result<ExitStatus, CliError> {
        let mut bar = StepBar::new("training", &self.trainer, self.context);
        loop {
            if self.context.interrupt.is_asked() {
                self.checkpoint()?;
                bar.finish();
                return Ok(ExitStatus::Interrupted);
            }
            let Some(report) = self.trainer.next_step()? else {
                bar.finish();
                return Ok(ExitStatus::Done);
            };
            bar.step(&report);
            self.metrics.write(&report)?;
            let cursor = self.trainer.cursor();
            if cursor.batch == 0 {
                self.validate()?;
                self.checkpoint()?;
            } else if self
                .config
                .checkpoint_every
                .is_some_and(|steps| cursor.step.is_multiple_of(steps))
            {
                self.checkpoint()?;
            }
        }
    }

    /// After each epoch: the best one on the held-out texts is what the folder keeps.
    fn validate(&mut self) -> Result<(), CliError> {
        let summary = self.score(Some(self.trainer.trainee()))?;
        let nll = summary.mean_nll();
        let cursor = self.trainer.cursor();
        self.metrics.write(&Validation {
            step: cursor.step,
            epoch: cursor.epoch - 1,
            valid_loss: nll,
            valid_perplexity: summary.perplexity(),
        })?;
        self.context.output.note(format_args!(
            "epoch {}: held-out loss {nll:.4}, perplexity {:.3}",
            cursor.epoch,
            summary.perplexity()
        ));
        if self.best.is_none_or(|best| nll < best) {
            self.best = Some(nll);
            let trainee = self.trainer.trainee();
            let centroids = &self.prepared.centroids;
            adapter::save(&self.config.out, self.adapter_config, trainee, centroids)?;
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), CliError> {
        self.metrics.flush()?;
        let cursor = self.trainer.cursor();
        if self.saved_step == Some(cursor.step) {
            return Ok(());
        }
        training_state::save(
            &self.config.out,
            TrainingParts {
                config: self.adapter_config,
                trainee: self.trainer.trainee(),
                centroids: &self.prepared.centroids,
                optimizer_state: &self.trainer.optimizer_state()?,
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

    fn score(&self, trainee: Option<&Trainee>) -> Result<ScoreSummary, CliError> {
        let scores = method::score(
            trainee,
            self.adapter_config,
            self.prepared,
            &self.prepared.held_out,
            self.valid_states.hidden_states(self.prepared.model()),
            ConditionControl::None,
            self.context,
        )?;
        Ok(scores.iter().collect())
    }

    fn report(&mut self, start: Instant) -> Result<TrainReport, CliError> {
        self.metrics.flush()?;
        let base = match self.valid_states {
            KnownStates::Final(_) => Some(self.score(None)?.perplexity()),
            KnownStates::Entering { .. } | KnownStates::Nothing => None,
        };
        Ok(TrainReport {
            out: self.config.out.clone(),
            num_trainable_params: self.trainer.trainee().num_trainable_params(),
            num_steps: self.trainer.num_steps(),
            num_train_examples: self.prepared.train.data.examples.len(),
            num_valid_examples: self.prepared.held_out.data.examples.len(),
            base_perplexity: base,
            valid_perplexity: self.best.map_or(f64::NAN, f64::exp),
            seconds: start.elapsed().as_secs_f64(),
        })
    }
}

#[derive(Debug, Serialize)]
struct Validation {
    step: usize,
    epoch: usize,
    valid_loss: f64,
    valid_perplexity: f64,
}

/// `metrics.jsonl`: one object for each step and each validation.
struct Metrics {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Metrics {
    /// Opens the file; lines of steps after `last_step` belong to a run that was killed and are dropped.
    fn open(folder: &Path, last_step: usize) -> Result<Self, CliError> {
        let path = folder.join("metrics.jsonl");
        let failed = |source| CliError::Metrics {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(folder).map_err(failed)?;
        let kept = match fs::read_to_string(&path) {
            Ok(text) => kept_lines(&text, last_step),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(failed(source)),
        };
        atomic_file::write(&path, kept.as_bytes())?;
        let file = OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(failed)?;
        Ok(Self {
            file: BufWriter::new(file),
            path,
        })
    }

    fn write(&mut self, value: &impl Serialize) -> Result<(), CliError> {
        let line = serde_json::to_string(value).expect("metrics are plain data");
        writeln!(self.file, "{line}").map_err(|source| self.failed(source))
    }

    fn flush(&mut self) -> Result<(), CliError> {
        self.file.flush().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> CliError {
        CliError::Metrics {
            path: self.path.clone(),
            source,
        }
    }
}

fn kept_lines(text: &str, last_step: usize) -> String {
    #[derive(serde::Deserialize)]
    struct Step {
        step: usize,
    }
    text.lines()
        .filter(|line| serde_json::from_str::<Step>(line).is_ok_and(|line| line.step <= last_step))
        .flat_map(|line| [line, "\n"])
        .collect()
}

#[derive(Debug, Serialize)]
struct TrainReport {
    out: PathBuf,
    num_trainable_params: usize,
    num_steps: usize,
    num_train_examples: usize,
    num_valid_examples: usize,
    /// Of the frozen model on the held-out texts, where its hidden states were at hand.
    base_perplexity: Option<f64>,
    /// Of the best epoch on the held-out texts.
    valid_perplexity: f64,
    seconds: f64,
}

impl Results for TrainReport {
    fn write_text(&self, page: &mut Page) {
        let mut table = Table::new([Column::text(""), Column::text("")]);
        let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
        row("adapter", self.out.display().to_string());
        row("trained numbers", self.num_trainable_params.to_string());
        row(
            "examples",
            format!(
                "{}, {} held out",
                self.num_train_examples, self.num_valid_examples
            ),
        );
        row("steps", self.num_steps.to_string());
        if let Some(base) = self.base_perplexity {
            row("perplexity without", format!("{base:.3}"));
        }
        row("perplexity with", format!("{:.3}", self.valid_perplexity));
        row("seconds", format!("{:.1}", self.seconds));
        page.table(&table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_killed_run_are_dropped() {
        let text = "{\"step\":1,\"loss\":2.0}\n{\"step\":2,\"loss\":1.5}\n{\"step\":3,\"lo";
        assert_eq!(kept_lines(text, 1), "{\"step\":1,\"loss\":2.0}\n");
        assert_eq!(kept_lines(text, 9).lines().count(), 2);
    }
}
