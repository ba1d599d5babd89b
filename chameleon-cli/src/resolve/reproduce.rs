//! The checked config of `chameleon reproduce`.

use std::path::PathBuf;

use chameleon_core::RunSeed;
use chameleon_models::data::InstructionCondition;
use chameleon_models::training::recipes::{Experiment, PaperSettings, PublishedLoss, RecipeName};
use chameleon_models::training::{SpanConfig, Start};

use super::{
    data::{checked_span, hidden_states_folder},
    training::{each_once, seeds, start},
};
use crate::{args::ReproduceArgs, errors::FlagError};

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
    pub(crate) cache_dir: PathBuf,
}

pub(super) fn reproduce(args: ReproduceArgs, seed: RunSeed) -> Result<ReproduceConfig, FlagError> {
    let paper = match args.experiment {
        Experiment::Wikitext => PaperSettings::wikitext(),
        Experiment::Alpaca => PaperSettings::alpaca(),
    };
    let SpanConfig {
        prefix, seq_len, ..
    } = checked_span(args.prefix, args.seq_len.unwrap_or(paper.seq_len))?;
    if args.experiment == Experiment::Wikitext && args.answers > 0 {
        return Err(FlagError::NoAnswers);
    }
    Ok(ReproduceConfig {
        experiment: args.experiment,
        model: args.model,
        data: args.data,
        out: args.out,
        start: start(args.resume),
        recipes: each_once("recipes", args.recipes, ToString::to_string)?,
        loss: args.loss,
        seeds: seeds(args.seeds, 1, seed)?,
        max_examples: args.max_examples,
        prefix,
        condition: args.condition,
        num_answers: args.answers,
        settings: PaperSettings {
            batch_size: args.batch_size.unwrap_or(paper.batch_size),
            seq_len,
            num_epochs: args.epochs,
            rank: args.rank,
            alpha: args.alpha,
            learning_rate: args.lr.unwrap_or(paper.learning_rate),
            dropout: args.dropout,
            ..paper
        },
        cache_dir: hidden_states_folder(args.cache_dir)?,
    })
}
