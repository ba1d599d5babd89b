//! `cargo xtask bench`: the divan benches, with the machine and the commit they ran on; `bench peers` runs us beside
//! other programs, `bench growth` at growing sizes.
//!
//! Benches run in the dev profile, which is optimised: another profile would build Burn once more.

mod growth;
mod peers;
mod programs;
mod side;
mod table;
mod workloads;

use clap::{Args, Subcommand};
use xshell::{Shell, cmd};

use crate::workspace::Workspace;

/// Options of `bench`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: Option<BenchCommand>,
    /// Handed to every bench: names to run, or divan's own flags
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    filter: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Run us and our peers alternately on the same weights and data, and compare times and memory
    Peers(peers::PeersArgs),
    /// Run our side at growing sizes, and show by which power its time grows
    Growth(growth::GrowthArgs),
}

/// Runs the benches of every member that has some, or the peers.
pub(crate) fn run(workspace: &Workspace, args: &BenchArgs) -> anyhow::Result<()> {
    match &args.command {
        Some(BenchCommand::Peers(args)) => return peers::run(workspace, args),
        Some(BenchCommand::Growth(args)) => return growth::run(workspace, args),
        None => {}
    }
    let shell = workspace.shell()?;
    println!("machine  {}", machine());
    println!("commit   {}", commit(&shell));
    let filter = &args.filter;
    let mut ran = 0;
    for member in &workspace.members {
        for bench in &member.benches {
            let package = &member.name;
            println!("\n== {package}: {bench}");
            cmd!(
                shell,
                "cargo bench --locked --profile dev -p {package} --bench {bench} -- {filter...}"
            )
            .run()?;
            ran += 1;
        }
    }
    if ran == 0 {
        println!("no member has a bench yet");
    }
    Ok(())
}

/// What every table of times begins with.
fn print_setup(shell: &Shell, rounds: &str, threads: usize) {
    println!("machine  {}", machine());
    println!("commit   {}", commit(shell));
    println!("rounds   {rounds}, after one that is not counted; {threads} threads");
}

/// The processor, how many of its threads we may use, and the system.
pub(crate) fn machine() -> String {
    let cpu_info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model_name(&cpu_info).unwrap_or("unknown processor");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{model}, {threads} threads, {} {}",
        std::env::consts::OS,
        std::env::consts::ARCH
    )
}

/// The commit in short, with a mark when the checkout differs from it.
fn commit(shell: &Shell) -> String {
    cmd!(shell, "git describe --always --dirty --abbrev=10")
        .quiet()
        .ignore_stderr()
        .read()
        .unwrap_or_else(|_| "not a git checkout".to_owned())
}

fn model_name(cpu_info: &str) -> Option<&str> {
    cpu_info
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .and_then(|rest| rest.split_once(':'))
        .map(|(_, name)| name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_from_cpuinfo() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t: a b\n";
        assert_eq!(model_name(text), Some("Some CPU @ 2 GHz"));
        assert_eq!(model_name("nothing here"), None);
    }
}
