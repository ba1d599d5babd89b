//! `chameleon completions`: a completion script for a shell.

use clap::CommandFactory;

use crate::{
    args::Cli,
    commands::Context,
    errors::{CliError, ExitStatus},
};

pub(crate) fn run(shell: clap_complete::Shell, context: &Context) -> Result<ExitStatus, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "chameleon", &mut script);
    context.output.text(&String::from_utf8_lossy(&script))?;
    Ok(ExitStatus::Done)
}
