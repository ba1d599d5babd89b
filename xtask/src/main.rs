//! `cargo xtask`: everything a developer, the hosted checks or a first visitor runs on this workspace.
//!
//! One file per command. It depends on no Chameleon crate, so it builds in seconds and also runs when the workspace
//! does not compile.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "talking to the person at the terminal is this program's job"
)]

mod bench;
mod check;
mod docs;
mod files;
mod fixtures;
mod python;
mod quickstart;
mod real_model;
mod release;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Checks, fixtures, benches, releases and the quick start of the Chameleon workspace.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Format, spelling, lints, licences, docs and tests, the cheapest first
    Check(check::CheckArgs),
    /// Run every fixture's export.py again and report what changed
    Fixtures(fixtures::FixturesArgs),
    /// Run the benches and name the machine and commit they ran on
    Bench(bench::BenchArgs),
    /// Rules of this project that no other tool checks
    Tidy,
    /// From nothing to a trained adapter: fetch a small model, gather text, compare, train
    Quickstart(quickstart::QuickstartArgs),
    /// Compare greedy texts of a real model with those of transformers
    RealModel(real_model::RealModelArgs),
    /// Build the API documentation, warnings being errors
    Docs,
    /// Check that every crate could be published as it stands
    Release(release::ReleaseArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    match command {
        Command::Check(args) => check::run(&workspace, &args),
        Command::Fixtures(args) => fixtures::run(&workspace, &args),
        Command::Bench(args) => bench::run(&workspace, &args),
        Command::Tidy => tidy::run(&workspace),
        Command::Quickstart(args) => quickstart::run(&workspace, &args),
        Command::RealModel(args) => real_model::run(&workspace, &args),
        Command::Docs => docs::run(&workspace),
        Command::Release(args) => release::run(&workspace, &args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
