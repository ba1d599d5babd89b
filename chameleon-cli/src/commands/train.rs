//! `chameleon train`: one adapter, trained with checkpoints and written to a folder.

mod curve;
mod metrics;
mod watch;

use std::path::PathBuf;
use std::time::Instant;

use chameleon_hypernet::ConditionControl;
use chameleon_models::{
    Adapter, AdapterConfig, CausalLm as _, MemoryConfig, ScoreSummary, TokenScores, Trainee,
    Trainer, TrainingCheckpoint, TrainingState, adapter,
    training_state::{self, TrainingParts},
};
use serde::Serialize;

use self::{metrics::Metrics, watch::Watch};
use crate::{
    args::TrainMethod,
    commands::{
        Context, memory,
        method::{self, HeadMethod},
        prepare::{Prepared, Sources, prepare},
        states::{KnownStates, known_states},
    },
    errors::{CliError, ExitStatus},
    output::{Column, Page, Results, Table},
    resolve::{MemoryMaking, Start, TrainConfig},
};

pub(crate) fn run(config: &TrainConfig, context: &Context) -> Result<ExitStatus, CliError> {
    let start = Instant::now();
    watch::check(config.view, context)?;
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
    let memory_config = match config.memory {
        MemoryMaking::Made => {
            let memory = memory::config(&config.training, prepared.model().sizes())?;
            adapter::check_memory(&memory, &adapter_config)?;
            Some(memory)
        }
        MemoryMaking::NotMade => None,
    };
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
    let memory = match memory_config {
        None => None,
        Some(memory_config) => {
            let Some(report) = session.remember(memory_config)? else {
                context
                    .output
                    .note("stopped before the memory was made; --resume makes it");
                return Ok(ExitStatus::Interrupted);
            };
            Some(report)
        }
    };
    let report = session.report(start, memory)?;
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
            what: "an adapter",
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
        let mut watch = Watch::new(self.config, &self.trainer, self.context);
        loop {
            if self.context.interrupt.is_asked() {
                self.checkpoint()?;
                return Ok(ExitStatus::Interrupted);
            }
            let Some(report) = self.trainer.next_step()? else {
                return Ok(ExitStatus::Done);
            };
            watch.step(&report);
            self.metrics.write(&report)?;
            let cursor = self.trainer.cursor();
            if cursor.batch == 0 {
                watch.doing("scoring the validation texts");
                let nll = self.validate()?;
                self.checkpoint()?;
                watch.validated(cursor.step, nll);
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
    fn validate(&mut self) -> Result<f64, CliError> {
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
        Ok(nll)
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

    /// Makes the memory of the best epoch's adapter and writes it beside it, or answers `None` if the user asked to
    /// stop.
    fn remember(&self, config: MemoryConfig) -> Result<Option<MemoryReport>, CliError> {
        let Self {
            prepared, context, ..
        } = self;
        let device = context.device()?.autodiff();
        let identity = &prepared.loaded.identity;
        let adapter = Adapter::load(&self.config.out, prepared.model(), identity, &device)?;
        let scores = self.token_scores(Some(&adapter.trainee))?;
        let without = memory::summary(&scores).mean_nll();
        let training = &self.config.training;
        let Some(remembered) = memory::remember(prepared, training, config, scores, context)?
        else {
            return Ok(None);
        };
        let with = remembered.valid.mean_nll();
        context.output.note(format_args!(
            "memory: held-out loss {without:.4} without, {with:.4} with it"
        ));
        let description = remembered.memory.description.clone();
        adapter
            .with_memory(remembered.memory)
            .save(&self.config.out)?;
        Ok(Some(MemoryReport {
            layer_idx: description.config.layer_idx,
            num_entries: description.num_entries,
            num_bytes: description.num_bytes(),
            valid_perplexity: remembered.valid.perplexity(),
            words: memory::words(&description),
        }))
    }

    fn score(&self, trainee: Option<&Trainee>) -> Result<ScoreSummary, CliError> {
        Ok(memory::summary(&self.token_scores(trainee)?))
    }

    fn token_scores(&self, trainee: Option<&Trainee>) -> Result<Vec<TokenScores>, CliError> {
        method::score_tokens(
            trainee,
            self.adapter_config,
            self.prepared,
            &self.prepared.held_out,
            self.valid_states.hidden_states(self.prepared.model()),
            ConditionControl::None,
            self.context,
        )
    }

    fn report(
        &mut self,
        start: Instant,
        memory: Option<MemoryReport>,
    ) -> Result<TrainReport, CliError> {
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
            memory,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryReport>,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct MemoryReport {
    layer_idx: usize,
    num_entries: usize,
    num_bytes: usize,
    /// On the held-out texts, by which the gate was fitted.
    valid_perplexity: f64,
    #[serde(skip)]
    words: String,
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
        if let Some(memory) = &self.memory {
            row("and its memory", format!("{:.3}", memory.valid_perplexity));
            row("memory", memory.words.clone());
        }
        row("seconds", format!("{:.1}", self.seconds));
        page.table(&table);
    }
}
