//! The checked config of `chameleon reproduce`.

use std::path::PathBuf;

use chameleon_core::RunSeed;
use chameleon_models::{
    data::InstructionCondition,
    training::recipes::{PaperSettings, PublishedLoss},
};

use crate::args::{ConditionName, Experiment, LossName, RecipeName, ReproduceArgs};

use super::{
    Start,
    checks::{ConfigError, Expected, at_least_one, required, within},
    training::{each_once, or_default},
};

/// `chameleon reproduce`
#[derive(Debug)]
pub(crate) struct ReproduceConfig {
    pub(crate) experiment: Experiment,
    pub(crate) model: String,
    /// The hub's data if `None`.
    pub(crate) data: Option<PathBuf>,
    pub(crate) out: PathBuf,
    pub(crate) start: Start,
    /// At least one, each once.
    pub(crate) recipes: Vec<RecipeName>,
    pub(crate) loss: PublishedLoss,
    /// At least one, each once.
    pub(crate) seeds: Vec<RunSeed>,
    pub(crate) max_examples: Option<usize>,
    pub(crate) prefix: usize,
    pub(crate) condition: InstructionCondition,
    /// Answers that each method writes.
    pub(crate) num_answers: usize,
    pub(crate) settings: PaperSettings,
    pub(crate) cache_dir: Option<PathBuf>,
}

/// The model of the paper, on the hub.
const PAPER_MODEL: &str = "openai-community/gpt2";

const DEFAULT_RECIPES: [&str; 4] = ["as-published", "without-leak", "without-padding", "causal"];

pub(super) fn reproduce(
    args: ReproduceArgs,
    seed: RunSeed,
) -> Result<ReproduceConfig, ConfigError> {
    let paper = match args.experiment {
        Experiment::Wikitext => PaperSettings::wikitext(),
        Experiment::Alpaca => PaperSettings::alpaca(),
    };
    let seq_len = at_least_one("seq-len", args.seq_len.unwrap_or(paper.seq_len))?;
    let prefix = at_least_one("prefix", args.prefix.unwrap_or(32))?;
    if prefix >= seq_len {
        return Err(ConfigError::NothingToScore { prefix, seq_len });
    }
    if args.experiment == Experiment::Wikitext && args.answers.is_some() {
        return Err(ConfigError::NoAnswers);
    }
    let settings = PaperSettings {
        batch_size: at_least_one("batch-size", args.batch_size.unwrap_or(paper.batch_size))?,
        seq_len,
        num_epochs: at_least_one("epochs", args.epochs.unwrap_or(paper.num_epochs))?,
        rank: at_least_one("rank", args.rank.unwrap_or(paper.rank))?,
        alpha: within("alpha", args.alpha.unwrap_or(paper.alpha), Expected::Finite)?,
        learning_rate: within(
            "lr",
            args.lr.unwrap_or(paper.learning_rate),
            Expected::Positive,
        )?,
        dropout: within(
            "dropout",
            args.dropout.unwrap_or(paper.dropout),
            Expected::FractionOrZero,
        )?,
        ..paper
    };
    let recipes = or_default(
        each_once("recipes", args.recipes, ToString::to_string)?,
        || {
            DEFAULT_RECIPES
                .map(|name| name.parse().expect("the default recipes exist"))
                .into()
        },
    );
    Ok(ReproduceConfig {
        experiment: args.experiment,
        model: args.model.model.unwrap_or_else(|| PAPER_MODEL.to_owned()),
        data: args.data,
        out: required(args.out, "out", "the folder for the table")?,
        start: if args.resume {
            Start::Resume
        } else {
            Start::Fresh
        },
        recipes,
        loss: match args.loss {
            None | Some(LossName::Last) => PublishedLoss::Last,
            Some(LossName::Full) => PublishedLoss::Full,
        },
        seeds: or_default(each_once("seeds", args.seeds, ToString::to_string)?, || {
            vec![seed.0]
        })
        .into_iter()
        .map(RunSeed)
        .collect(),
        max_examples: args
            .max_examples
            .map(|count| at_least_one("max-examples", count))
            .transpose()?,
        prefix,
        condition: match args.condition {
            Some(ConditionName::Task) => InstructionCondition::Task,
            None | Some(ConditionName::TaskInput) => InstructionCondition::TaskAndInput,
        },
        num_answers: args.answers.unwrap_or(0),
        settings,
        cache_dir: args.cache_dir,
    })
}
