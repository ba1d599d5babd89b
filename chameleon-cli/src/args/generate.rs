//! Flags of `chameleon generate` and `chameleon batch`.

use std::path::PathBuf;

use clap::Args;

use super::{AdapterArg, DataArgs, MemoryArg, ModelArg, WeightsArg};

/// `chameleon generate`
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    #[command(flatten)]
    pub(crate) weights: WeightsArg,
    #[command(flatten)]
    pub(crate) adapter: AdapterArg,
    #[command(flatten)]
    pub(crate) memory: MemoryArg,
    /// Prompts; without any, they are read from --file or from standard input, one a line
    #[arg(value_name = "PROMPT")]
    pub(crate) prompts: Vec<String>,
    /// File of prompts, one a line
    #[arg(long, value_name = "FILE", conflicts_with = "prompts")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) decoding: DecodingArgs,
    /// Prompts decoded together [default: 8]
    #[arg(long, value_name = "N")]
    pub(crate) batch_size: Option<usize>,
}

/// `chameleon batch`
#[derive(Debug, Args)]
pub(crate) struct BatchArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    #[command(flatten)]
    pub(crate) weights: WeightsArg,
    #[command(flatten)]
    pub(crate) adapter: AdapterArg,
    #[command(flatten)]
    pub(crate) memory: MemoryArg,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// File for the answers, one JSON object a line, in the order of the prompts
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) decoding: DecodingArgs,
    /// Prompts decoded together [default: 32]
    #[arg(long, value_name = "N")]
    pub(crate) batch_size: Option<usize>,
}

/// How answers are written.
#[derive(Debug, Args)]
pub(crate) struct DecodingArgs {
    /// Tokens written for each prompt at most [default: 64]
    #[arg(long, value_name = "N")]
    pub(crate) max_new_tokens: Option<usize>,
    /// Sharpness of sampling: below 1 safer, above 1 wilder [default: 0.8]
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f64>,
    /// Sample among the K likeliest tokens only
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<usize>,
    /// Sample among the likeliest tokens that together reach this probability
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f64>,
    /// Always take the likeliest token
    #[arg(long, conflicts_with_all = ["temperature", "top_k", "top_p"])]
    pub(crate) greedy: bool,
    /// Stop at this text, which is left out of the answer; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Wrap each prompt in the model's chat template
    #[arg(long)]
    pub(crate) chat: bool,
}
