//! Flags of `chameleon reproduce`.

use std::path::PathBuf;

use chameleon_models::data::InstructionCondition;
use chameleon_models::training::recipes::{Experiment, PaperSettings, PublishedLoss, RecipeName};
use clap::Args;

use super::values::{
    at_least, experiment, finite, fraction_or_zero, instruction_condition, positive, published_loss,
};

/// The model of the paper, on the hub.
const PAPER_MODEL: &str = "openai-community/gpt2";

/// `chameleon reproduce`
#[derive(Debug, Args)]
pub(crate) struct ReproduceArgs {
    /// Which of the paper's experiments
    #[arg(value_name = "EXPERIMENT", value_parser = experiment())]
    pub(crate) experiment: Experiment,
    /// Model: a Hugging Face folder, a GGUF file, or a hub id
    #[arg(long, value_name = "PATH|GGUF|HUB_ID", default_value = PAPER_MODEL)]
    pub(crate) model: String,
    /// Local data instead of the hub's: for wikitext a folder with a train, a valid and a test file, for alpaca a
    /// file of records with instruction, input and output
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Folder the table, the curves and every finished run are written to
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Continue with the runs that are missing in --out
    #[arg(long)]
    pub(crate) resume: bool,
    /// `as-published`, `causal`, and `without-QUIRK[+QUIRK]`: as published with some of its quirks switched off
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "RECIPE,..",
        default_value = "as-published,without-leak,without-padding,causal"
    )]
    pub(crate) recipes: Vec<RecipeName>,
    /// Which tokens the published recipe scores
    #[arg(long, value_name = "LOSS", value_parser = published_loss(), default_value = "last")]
    pub(crate) loss: PublishedLoss,
    /// Seeds; each method is trained once with each; --seed if not given
    #[arg(long, value_delimiter = ',', value_name = "N,..")]
    pub(crate) seeds: Vec<u64>,
    /// Largest number of training rows, drawn with --seed; validation and test use a quarter as many each
    #[arg(long, value_name = "N", value_parser = at_least::<1>)]
    pub(crate) max_examples: Option<usize>,
    /// Tokens of a row of wikitext that `causal` and `without-leak` are conditioned on
    #[arg(long, value_name = "TOKENS", value_parser = at_least::<1>, default_value_t = 32)]
    pub(crate) prefix: usize,
    /// Part of a row of alpaca that `causal` and `without-leak` are conditioned on
    #[arg(long, value_name = "PART", value_parser = instruction_condition(), default_value = "task-and-input")]
    pub(crate) condition: InstructionCondition,
    /// Number of answers that each method generates and that are compared with the references
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) answers: usize,
    /// Largest number of rows in a batch; the number of groups is rows divided by this; the paper's if not given
    #[arg(long, value_name = "N", value_parser = at_least::<1>)]
    pub(crate) batch_size: Option<usize>,
    /// Tokens kept of each row; the paper's if not given
    #[arg(long, value_name = "TOKENS", value_parser = at_least::<1>)]
    pub(crate) seq_len: Option<usize>,
    /// Learning rate; the paper's if not given
    #[arg(long, value_name = "F", value_parser = positive)]
    pub(crate) lr: Option<f64>,
    /// Passes over the data
    #[arg(long, value_name = "N", value_parser = at_least::<1>, default_value_t = paper().num_epochs)]
    pub(crate) epochs: usize,
    /// LoRA rank
    #[arg(long, value_name = "N", value_parser = at_least::<1>, default_value_t = paper().rank)]
    pub(crate) rank: usize,
    /// The paper's alpha, which multiplies the factors directly
    #[arg(long, value_name = "F", value_parser = finite, default_value_t = paper().alpha)]
    pub(crate) alpha: f64,
    /// Dropout probability of the hypernetworks
    #[arg(long, value_name = "F", value_parser = fraction_or_zero, default_value_t = paper().dropout)]
    pub(crate) dropout: f64,
    /// Where hidden states of the frozen model are cached; the user's cache folder if not given
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
}

/// The settings that both experiments share.
fn paper() -> PaperSettings {
    PaperSettings::wikitext()
}
