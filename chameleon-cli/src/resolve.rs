//! From flags and a config file to one checked config per command.
//!
//! Rules between flags are checked here, so that everything that can be refused without opening a model or a data set
//! is refused before a command starts. What is wrong with one flag alone, clap has refused in `args`.

mod cluster;
mod compare;
mod config_file;
mod data;
mod generate;
mod remember;
mod reproduce;
#[cfg(feature = "serve")]
mod serve;
mod training;

use chameleon_core::{RunSeed, device::DeviceSpec};
use chameleon_models::WeightStorage;

use crate::{
    args::{Cli, Command, ForgetArgs, GlobalArgs, InfoArgs, ScoreArgs},
    errors::CliError,
    output::{Format, Output},
};

#[cfg(feature = "serve")]
pub(crate) use crate::args::ServeLimits;
pub(crate) use cluster::ClusterConfig;
pub(crate) use compare::CompareConfig;
pub(crate) use config_file::read_flags;
pub(crate) use data::MemoryUse;
pub(crate) use generate::{BatchConfig, DecodingConfig, GenerateConfig, PromptSource, Template};
pub(crate) use remember::{RememberConfig, RowGroup};
pub(crate) use reproduce::ReproduceConfig;
#[cfg(feature = "serve")]
pub(crate) use serve::{PromptLog, ServeConfig};
pub(crate) use training::{EvalConfig, TrainConfig, TrainView};

/// A command with everything it needs, checked.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) settings: Settings,
    pub(crate) output: Output,
    pub(crate) command: RunConfig,
}

/// Options shared by all commands.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) device: DeviceSpec,
    pub(crate) weights: WeightStorage,
    pub(crate) seed: RunSeed,
    pub(crate) network: Network,
    /// Threads for computing; as many as there are cores if `None`.
    pub(crate) threads: Option<usize>,
}

/// Whether the network may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Allowed,
    Forbidden,
}

/// The checked config of one command.
#[derive(Debug)]
pub(crate) enum RunConfig {
    Info(InfoArgs),
    Cluster(ClusterConfig),
    Train(Box<TrainConfig>),
    Eval(EvalConfig),
    Compare(Box<CompareConfig>),
    Reproduce(ReproduceConfig),
    Generate(GenerateConfig),
    Batch(BatchConfig),
    Remember(RememberConfig),
    Forget(ForgetArgs),
    #[cfg(feature = "serve")]
    Serve(ServeConfig),
    Score(ScoreArgs),
    Completions(clap_complete::Shell),
}

/// Checks the flags of a command.
pub(crate) fn resolve(cli: Cli) -> Result<Run, CliError> {
    let output = output(&cli.global);
    let settings = settings(&cli.global)?;
    let command = match cli.command {
        Command::Info(args) => RunConfig::Info(args),
        Command::Cluster(args) => RunConfig::Cluster(cluster::cluster(args)?),
        Command::Train(args) => RunConfig::Train(Box::new(training::train(args)?)),
        Command::Eval(args) => RunConfig::Eval(training::eval(args)?),
        Command::Compare(args) => {
            RunConfig::Compare(Box::new(compare::compare(args, settings.seed)?))
        }
        Command::Reproduce(args) => {
            RunConfig::Reproduce(reproduce::reproduce(args, settings.seed)?)
        }
        Command::Generate(args) => RunConfig::Generate(generate::generate(args)?),
        Command::Batch(args) => RunConfig::Batch(generate::batch(args)?),
        Command::Remember(args) => RunConfig::Remember(remember::remember(args)),
        Command::Forget(args) => RunConfig::Forget(args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => RunConfig::Serve(serve::serve(args)?),
        Command::Score(args) => RunConfig::Score(args),
        Command::Completions(args) => RunConfig::Completions(args.shell),
    };
    Ok(Run {
        settings,
        output,
        command,
    })
}

fn output(global: &GlobalArgs) -> Output {
    let format = if global.json {
        Format::Json
    } else {
        Format::Text
    };
    Output::new(format, global.verbosity)
}

fn settings(global: &GlobalArgs) -> Result<Settings, CliError> {
    let device = match &global.device {
        Some(device) => device.parse()?,
        None => DeviceSpec::preferred()?,
    };
    let network = if global.offline {
        Network::Forbidden
    } else {
        Network::Allowed
    };
    Ok(Settings {
        device,
        weights: global.weights,
        seed: RunSeed(global.seed),
        network,
        threads: global.threads,
    })
}

#[cfg(test)]
mod tests;
