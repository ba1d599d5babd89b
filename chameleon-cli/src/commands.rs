//! One file for each command, and what they share: the device, the interrupt and the output.

pub(crate) mod adapter;
mod batch;
mod cluster;
mod compare;
mod completions;
mod decoding;
mod eval;
mod generate;
mod info;
mod model;
pub(crate) mod observe;
mod remember;
mod reproduce;
mod score;
#[cfg(feature = "serve")]
mod serve;
pub(crate) mod texts;
mod train;

use burn::tensor::Device;

use crate::{
    errors::{CliError, ExitStatus},
    interrupt::Interrupt,
    output::Output,
    resolve::{Run, RunConfig, Settings},
};

/// What a command has at hand.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) output: Output,
    pub(crate) interrupt: Interrupt,
}

impl Context {
    /// Opens the device of the run.
    pub(crate) fn device(&self) -> Result<Device, CliError> {
        Ok(chameleon_core::device::open(self.settings.device)?)
    }
}

/// Runs one command.
pub(crate) fn run(run: Run) -> Result<ExitStatus, CliError> {
    let Run {
        settings,
        output,
        command,
    } = run;
    if let Some(threads) = settings.threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .map_err(|source| CliError::Threads { threads, source })?;
    }
    let context = Context {
        settings,
        output,
        interrupt: Interrupt::listen()?,
    };
    match command {
        RunConfig::Info(config) => info::run(&config, &context),
        RunConfig::Cluster(config) => cluster::run(&config, &context),
        RunConfig::Train(config) => train::run(&config, &context),
        RunConfig::Eval(config) => eval::run(&config, &context),
        RunConfig::Compare(config) => compare::run(&config, &context),
        RunConfig::Reproduce(config) => reproduce::run(&config, &context),
        RunConfig::Generate(config) => generate::run(&config, &context),
        RunConfig::Batch(config) => batch::run(&config, &context),
        RunConfig::Remember(config) => remember::remember(&config, &context),
        RunConfig::Forget(config) => remember::forget(&config, &context),
        #[cfg(feature = "serve")]
        RunConfig::Serve(config) => serve::run(&config, &context),
        RunConfig::Score(config) => score::run(&config, &context),
        RunConfig::Completions(shell) => completions::run(shell, &context),
    }
}
