//! What can be typed: commands and raw flags, nothing checked beyond the type of each value.
//!
//! Every flag that has a sensible place in a config file is optional here, so that `resolve` can tell a flag that
//! was given from one that was not. Owns no defaults that depend on other flags and touches no files.

mod data;
mod generate;
mod model;
mod reproduce;
mod score;
#[cfg(feature = "serve")]
mod serve;
mod training;

use std::path::PathBuf;

use chameleon_models::Representation;
use clap::{Args, Parser, Subcommand};
use clap_verbosity_flag::{Verbosity, WarnLevel};

pub(crate) use data::{ConditionPart, DataArgs};
pub(crate) use generate::{BatchArgs, DecodingArgs, GenerateArgs};
pub(crate) use model::{AdapterArg, MemoryArg, ModelArg, Weights, WeightsArg};
pub(crate) use reproduce::{ConditionName, Experiment, LossName, RecipeName, ReproduceArgs};
pub(crate) use score::ScoreArgs;
#[cfg(feature = "serve")]
pub(crate) use serve::{LimitArgs, ServeArgs};
pub(crate) use training::{
    CompareArgs, CompareMethod, EvalArgs, Sweep, SweptSetting, TrainArgs, TrainMethod, TrainingArgs,
};

/// One frozen language model, one small adapter, a fresh set of factors for every group of prompts.
#[derive(Debug, Parser)]
#[command(
    name = "chameleon",
    version,
    max_term_width = 100,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 ran but failed its check, 2 could not run."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct GlobalArgs {
    /// Where to compute: a compiled-in backend, with an index if there are several, such as `wgpu:1`
    #[arg(long, global = true, value_name = "BACKEND[:INDEX]")]
    pub(crate) device: Option<String>,
    /// Seed of every random choice of the run [default: 1]
    #[arg(long, global = true, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Print the results as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Read flags from a TOML file, by their names; a flag given here beats the file
    #[arg(long, global = true, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
    /// Never use the network; hub models must be in the cache already
    #[arg(long, global = true)]
    pub(crate) offline: bool,
    /// Threads for computing [default: all cores]
    #[arg(long, global = true, value_name = "N")]
    pub(crate) threads: Option<usize>,
    #[command(flatten)]
    pub(crate) verbosity: Verbosity<WarnLevel>,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the compiled-in devices, and what a model or an adapter holds
    Info(InfoArgs),
    /// Group the prompts of a data set and show what the groups are
    Cluster(ClusterArgs),
    /// Train an adapter and write it to a folder
    Train(TrainArgs),
    /// Measure the perplexity of a model or an adapter on a text
    Eval(EvalArgs),
    /// Train and score several methods on the same data and print the table
    Compare(CompareArgs),
    /// Repeat an experiment of the paper under its own recipe and under ours
    Reproduce(ReproduceArgs),
    /// Continue prompts with a model, adapted to the groups they fall in
    Generate(GenerateArgs),
    /// Answer all prompts of a file, grouped over the whole file; goes on where it was stopped
    Batch(BatchArgs),
    /// Answer many clients at once over HTTP, each adapted to the group it falls in
    #[cfg(feature = "serve")]
    Serve(ServeArgs),
    /// Compare answers with reference answers: BLEU, ROUGE, METEOR
    Score(ScoreArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// `chameleon info`
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    #[command(flatten)]
    pub(crate) adapter: AdapterArg,
}

/// `chameleon cluster`
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Number of groups
    #[arg(long, value_name = "K")]
    pub(crate) clusters: Option<usize>,
    /// Tokens at the start of each text that make its prompt [default: 32]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) prefix: Option<usize>,
    /// Tokens kept of each text [default: 128]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) seq_len: Option<usize>,
    #[command(flatten)]
    pub(crate) prompts: PromptArgs,
    /// Which k-means runs; both must agree, `linfa` is the slower reference
    #[arg(long, value_enum, value_name = "ENGINE")]
    pub(crate) engine: Option<EngineKind>,
    /// Rounds of k-means at most [default: 50]
    #[arg(long, value_name = "N")]
    pub(crate) max_iterations: Option<usize>,
    /// Prompts shown for each group, nearest first [default: 3]
    #[arg(long, value_name = "N")]
    pub(crate) nearest: Option<usize>,
}

/// How prompts become vectors, to be grouped and to be seen by the hypernetwork.
#[derive(Debug, Args)]
pub(crate) struct PromptArgs {
    /// What a prompt's vector is the mean of: token-embeddings, or hidden:N for states after N layers
    /// [default: token-embeddings]
    #[arg(long, value_name = "KIND")]
    pub(crate) representation: Option<Representation>,
    /// Give every number of these vectors mean 0 and spread 1 over the training prompts
    #[arg(long)]
    pub(crate) standardise: bool,
}

/// The k-means that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum EngineKind {
    /// Matrix products on the chosen device
    Burn,
    /// linfa on the processor
    Linfa,
}

/// `chameleon completions`
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Shell to complete for
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}
