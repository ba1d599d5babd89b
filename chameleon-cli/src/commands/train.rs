//! `chameleon train`: trains one adapter with checkpoints and writes it to a folder.

mod curve;
mod watch;

use chameleon_models::training::{TrainingData, TrainingReport, TrainingRun, TrainingSources};

use self::watch::CurveObserver;
use crate::{
    commands::{Context, adapter::memory_size, observe::unless_interrupted},
    errors::{CliError, ExitStatus},
    output::{Column, Page, Results, Table},
    resolve::{TrainConfig, TrainView},
};

pub(crate) fn run(config: &TrainConfig, context: &Context) -> Result<ExitStatus, CliError> {
    // Refused before the long work starts.
    if config.view == TrainView::Curve && !context.output.draws_bars() {
        return Err(CliError::NoTerminal);
    }
    let training = TrainingRun {
        head: config.head,
        config: &config.training,
        memory: config.memory,
        out: &config.out,
        start: config.start,
        checkpoint_every: config.checkpoint_every,
        seed: context.settings.seed,
    };
    training.check_folder()?;
    let loaded = context.load_model(&config.model)?;
    let sources = TrainingSources {
        train: &config.data,
        valid: &config.valid,
        test: None,
    };
    let seed = context.settings.seed;
    let data = TrainingData::prepare(loaded, &sources, &config.training, seed, context)?;
    let result = match config.view {
        TrainView::Bar => training.run(&data, context),
        TrainView::Curve => training.run(&data, &CurveObserver(context)),
    };
    let Some(report) = unless_interrupted(result)? else {
        context.output.note("stopped; continue with --resume");
        return Ok(ExitStatus::Interrupted);
    };
    context.output.results(&report)?;
    Ok(ExitStatus::Done)
}

impl Results for TrainingReport {
    fn write_text(&self, page: &mut Page) {
        let mut table = Table::new([Column::text(""), Column::text("")]);
        let mut row = |name: &str, value: String| table.row([name.to_owned(), value]);
        row("adapter", self.out.display().to_string());
        row(
            "trainable parameters",
            self.num_trainable_params.to_string(),
        );
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
            row(
                "memory",
                memory_size(&memory.description.config, memory.num_entries),
            );
        }
        row("seconds", format!("{:.1}", self.seconds));
        page.table(&table);
    }
}
