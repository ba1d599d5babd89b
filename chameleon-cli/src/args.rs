//! The command line: commands and flags with their defaults, ranges and value names.
//!
//! clap checks each flag by itself. Rules between flags are checked by `resolve`.

mod data;
mod generate;
mod model;
mod remember;
mod reproduce;
mod score;
#[cfg(feature = "serve")]
mod serve;
mod training;
mod values;

use std::path::PathBuf;

use chameleon_cluster::Engine;
use chameleon_models::WeightStorage;
use clap::{Args, Parser, Subcommand};
use clap_verbosity_flag::{Verbosity, WarnLevel};

use values::{at_least, engine, weight_storage};

pub(crate) use data::{DataArgs, PromptArgs, SpanArgs};
pub(crate) use generate::{BatchArgs, DecodingArgs, GenerateArgs};
pub(crate) use model::{AdapterArg, MemoryArg, ModelArg};
pub(crate) use remember::{ForgetArgs, RememberArgs};
pub(crate) use reproduce::ReproduceArgs;
pub(crate) use score::ScoreArgs;
#[cfg(feature = "serve")]
pub(crate) use serve::{ServeArgs, ServeLimits};
pub(crate) use training::{
    AdapterShapeArgs, CompareArgs, EvalArgs, StepsArgs, Sweep, SweptSetting, TenantArgs, TrainArgs,
    TrainMethod, TrainingArgs,
};

/// One frozen language model and one small adapter that generates LoRA factors for each group of prompts.
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
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Device to compute on: a compiled-in backend, with an index if there are several, such as `wgpu:1`
    #[arg(long, global = true, value_name = "BACKEND[:INDEX]")]
    pub(crate) device: Option<String>,
    /// How the model's weights are stored in memory: as in the file, which is mapped (on flex), or dequantised
    #[arg(long, global = true, value_name = "HOW", value_parser = weight_storage(), default_value = "stored")]
    pub(crate) weights: WeightStorage,
    /// Seed of all random numbers of the run
    #[arg(long, global = true, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print the results as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Read flags from a TOML file, by their names; flags on the command line take precedence
    #[arg(long, global = true, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
    /// Do not use the network; hub models must be in the cache
    #[arg(long, global = true)]
    pub(crate) offline: bool,
    /// Number of threads to compute with; one for each core if not given
    #[arg(long, global = true, value_name = "N", value_parser = at_least::<1>)]
    pub(crate) threads: Option<usize>,
    #[command(flatten)]
    pub(crate) verbosity: Verbosity<WarnLevel>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show the compiled-in devices, and the contents of a model or an adapter
    Info(InfoArgs),
    /// Group the prompts of a data set and show the groups
    Cluster(ClusterArgs),
    /// Train an adapter and write it to a folder
    Train(TrainArgs),
    /// Measure the perplexity of a model or an adapter on texts
    Eval(EvalArgs),
    /// Train and score several methods on the same data and print a table
    Compare(CompareArgs),
    /// Repeat an experiment of the paper with its own recipe and with ours
    Reproduce(ReproduceArgs),
    /// Generate text from prompts, with each prompt adapted to its group
    Generate(GenerateArgs),
    /// Answer all prompts of a file, grouped over the whole file; resumes if interrupted
    Batch(BatchArgs),
    /// Add answered requests of a group to an adapter, which adapts to them at once
    Remember(RememberArgs),
    /// Remove answered requests of a group from an adapter
    Forget(ForgetArgs),
    /// Serve an OpenAI-compatible HTTP API, with each request adapted to its group
    #[cfg(feature = "serve")]
    Serve(ServeArgs),
    /// Score answers against reference answers: BLEU, ROUGE, METEOR
    Score(ScoreArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

/// `chameleon info`
#[derive(Debug, Args)]
#[command(after_help = format!("Families of models (`model_type`): {}", chameleon_models::Architecture::NAMES))]
pub(crate) struct InfoArgs {
    /// Model: a Hugging Face folder, a GGUF file, or a hub id such as `HuggingFaceTB/SmolLM2-135M`
    #[arg(long, value_name = "PATH|GGUF|HUB_ID")]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) adapter: AdapterArg,
}

/// `chameleon cluster`
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    /// Number of groups
    #[arg(long, value_name = "K", value_parser = at_least::<1>)]
    pub(crate) clusters: usize,
    /// Which k-means implementation runs; both must agree, `linfa` is the slower reference
    #[arg(long, value_name = "ENGINE", value_parser = engine(), default_value = "burn")]
    pub(crate) engine: Engine,
    /// Largest number of iterations of k-means
    #[arg(long, value_name = "N", value_parser = at_least::<1>, default_value_t = 50)]
    pub(crate) max_iterations: usize,
    /// Prompts shown for each group, nearest to its centroid first
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(crate) nearest: usize,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) span: SpanArgs,
    #[command(flatten)]
    pub(crate) prompts: PromptArgs,
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
