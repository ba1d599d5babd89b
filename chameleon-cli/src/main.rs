//! The `chameleon` program: read the flags, run one command, answer with an exit code.

mod allocator;
mod args;
mod commands;
mod errors;
mod interrupt;
mod output;
mod report;
mod resolve;
#[cfg(feature = "serve")]
mod serve;

use std::process::ExitCode;

use errors::{CliError, ExitStatus};

fn main() -> ExitCode {
    allocator::keep_freed_memory();
    errors::install_panic_hook();
    match run() {
        Ok(status) => status.into(),
        Err(error) => errors::report(&error),
    }
}

fn run() -> Result<ExitStatus, CliError> {
    let cli = resolve::read_flags(std::env::args_os().collect())?;
    let run = resolve::resolve(cli)?;
    commands::run(run)
}
