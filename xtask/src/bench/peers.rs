//! `cargo xtask bench peers`: us and other programs alternately, on the same weights and data, with as many threads.
//!
//! Each side is a process that sets itself up, prints that it is ready, and computes one round for every line it is
//! sent; the others wait meanwhile. Times are reported only if what they computed agrees.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::programs::{ProgramArgs, Programs};
use super::side::Side;
use super::table::{self, Outcome, Taken};
use super::workloads::{Peer, TOLERANCE, WORKLOADS, Work, Workload};
use crate::files;
use crate::workspace::Workspace;

/// Options of `bench peers`.
#[derive(Debug, Args)]
pub(crate) struct PeersArgs {
    /// Only these workloads; all by default
    #[arg(long, num_args = 1.., value_name = "NAME")]
    only: Vec<String>,
    /// Timed rounds of every side, after one that is not counted
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Also write everything that was measured
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    programs: ProgramArgs,
}

/// Between rounds of different sides, so that spinning threads of the other side have gone to sleep.
const PAUSE: Duration = Duration::from_millis(300);

/// Runs the selected workloads and prints a table.
pub(crate) fn run(workspace: &Workspace, args: &PeersArgs) -> anyhow::Result<()> {
    ensure!(args.rounds > 0, "--rounds 0 compares nothing");
    let workloads = selected(&args.only)?;
    let shell = workspace.shell()?;
    let programs = Programs::prepare(workspace, &shell, &args.programs)?;
    let rounds = format!("{} of every side, alternating", args.rounds);
    super::print_setup(&shell, &rounds, args.programs.threads);
    let mut outcomes = Vec::new();
    for workload in workloads {
        println!("\n== {}", workload.name);
        outcomes.push(compare(&programs, workload, args.rounds)?);
    }
    println!("\n{}", table::markdown(&outcomes));
    if let Some(path) = &args.json {
        let json = table::json(&outcomes, &super::machine(), &super::commit(&shell));
        files::write_atomically(path, serde_json::to_string_pretty(&json)?.as_bytes())?;
    }
    Ok(())
}

fn selected(only: &[String]) -> anyhow::Result<Vec<&'static Workload>> {
    if only.is_empty() {
        return Ok(WORKLOADS.iter().collect());
    }
    only.iter()
        .map(|name| {
            let found = WORKLOADS.iter().find(|workload| workload.name == name);
            found.with_context(|| {
                let names: Vec<_> = WORKLOADS.iter().map(|workload| workload.name).collect();
                format!("no workload `{name}`; there are: {}", names.join(", "))
            })
        })
        .collect()
}

fn compare(
    programs: &Programs,
    workload: &'static Workload,
    rounds: usize,
) -> anyhow::Result<Outcome> {
    let mut ours = Side::start("ours", &mut programs.ours(workload.name))?;
    println!("{:<28} {}", ours.name, ours.setup);
    let mut theirs = workload
        .peers
        .iter()
        .map(|peer| {
            let side = Side::start(peer.name, &mut programs.peer(peer.program))?;
            println!("{:<28} {}", side.name, side.setup);
            Ok(side)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    for _ in 0..=rounds {
        for side in std::iter::once(&mut ours).chain(&mut theirs) {
            std::thread::sleep(PAUSE);
            let round = side.round()?;
            println!(
                "{:<28} {:10.4} s  {:.6}",
                side.name, round.seconds, round.value
            );
        }
        agree(&ours, &theirs, workload.peers)?;
    }
    let outcome = Outcome {
        workload,
        ours: Taken::of(&ours),
        theirs: theirs.iter().map(Taken::of).collect(),
    };
    for side in std::iter::once(&mut ours).chain(&mut theirs) {
        side.finish()?;
    }
    Ok(outcome)
}

/// Whether the last round computed the same wherever it should.
fn agree(ours: &Side, theirs: &[Side], peers: &[Peer]) -> anyhow::Result<()> {
    let last = |side: &Side| side.rounds.last().map_or(f64::NAN, |round| round.value);
    let expected = last(ours);
    for (side, peer) in theirs.iter().zip(peers) {
        if peer.work == Work::Yardstick {
            continue;
        }
        let found = last(side);
        let close = (found - expected).abs() <= TOLERANCE * expected.abs().max(1.0);
        // Written so that a NaN does not pass.
        if !close {
            bail!(
                "{} computed {found}, ours {expected}: not the same work",
                side.name
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_workload_is_refused_with_those_that_exist() {
        assert_eq!(selected(&[]).unwrap().len(), WORKLOADS.len());
        let error = selected(&["no-such-work".to_owned()]).unwrap_err();
        assert!(error.to_string().contains(WORKLOADS[0].name), "{error}");
    }
}
