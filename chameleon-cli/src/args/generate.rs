//! Flags of `chameleon generate` and `chameleon batch`.

use std::path::PathBuf;

use clap::{Args, builder::NonEmptyStringValueParser};

use super::{
    data::DataArgs,
    model::{AdapterArg, MemoryArg, ModelArg},
    values::{at_least, probability, temperature},
};

/// `chameleon generate`
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    #[command(flatten)]
    pub(crate) adapter: AdapterArg,
    #[command(flatten)]
    pub(crate) memory: MemoryArg,
    /// Group whose exemplars apply, such as a customer; see `chameleon remember`
    #[arg(long, value_name = "KEY", requires = "adapter")]
    pub(crate) group: Option<String>,
    /// Prompts; without any, they are read from --file or from standard input, one per line
    #[arg(value_name = "PROMPT")]
    pub(crate) prompts: Vec<String>,
    /// File of prompts, one per line
    #[arg(long, value_name = "FILE", conflicts_with = "prompts")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) decoding: DecodingArgs,
    /// Largest number of prompts decoded together
    #[arg(long, value_name = "N", value_parser = at_least::<1>, default_value_t = 8)]
    pub(crate) batch_size: usize,
}

/// `chameleon batch`
#[derive(Debug, Args)]
pub(crate) struct BatchArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    #[command(flatten)]
    pub(crate) adapter: AdapterArg,
    #[command(flatten)]
    pub(crate) memory: MemoryArg,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// File for the answers, one JSON object per line, in the order of the prompts
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) decoding: DecodingArgs,
    /// Largest number of prompts decoded together
    #[arg(long, value_name = "N", value_parser = at_least::<1>, default_value_t = 32)]
    pub(crate) batch_size: usize,
}

/// How answers are decoded.
#[derive(Debug, Args)]
#[command(next_help_heading = "Decoding")]
pub(crate) struct DecodingArgs {
    /// Largest number of tokens generated for each prompt
    #[arg(long, value_name = "N", value_parser = at_least::<1>, default_value_t = 64)]
    pub(crate) max_new_tokens: usize,
    /// Sampling temperature; lower is more predictable
    #[arg(long, value_name = "T", value_parser = temperature, default_value_t = 0.8)]
    pub(crate) temperature: f32,
    /// Sample from the K most likely tokens only
    #[arg(long, value_name = "K", value_parser = at_least::<1>)]
    pub(crate) top_k: Option<usize>,
    /// Sample from the most likely tokens that together reach probability P (nucleus sampling)
    #[arg(long, value_name = "P", value_parser = probability)]
    pub(crate) top_p: Option<f32>,
    /// Always take the most likely token
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p"])]
    pub(crate) greedy: bool,
    /// Stop at this text, which is left out of the answer; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) stop: Vec<String>,
    /// Format each prompt with the model's chat template
    #[arg(long)]
    pub(crate) chat: bool,
}
