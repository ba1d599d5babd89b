//! `cargo xtask bench growth`: how much longer work takes when one of its sizes grows.
//!
//! Our side alone, size after size, as `bench peers` runs it.

use std::fmt::Write as _;

use anyhow::ensure;
use clap::Args;

use super::programs::{ProgramArgs, Programs};
use super::side::Side;
use crate::workspace::Workspace;

/// Options of `bench growth`.
#[derive(Debug, Args)]
pub(crate) struct GrowthArgs {
    /// Timed rounds of every size, after one that is not counted
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[command(flatten)]
    programs: ProgramArgs,
}

/// One size that grows.
struct Axis {
    /// Its name, and what one round computes.
    about: &'static str,
    /// The workload of our side, which is given the size.
    workload: &'static str,
    sizes: &'static [u32],
}

const AXES: &[Axis] = &[
    Axis {
        about: "tokens, in rows of 512: scoring, SmolLM2-135M shapes",
        workload: "growth-tokens",
        sizes: &[512, 1024, 2048],
    },
    Axis {
        about: "vocabulary: loss at the head and its gradient, 1,024 rows",
        workload: "growth-vocabulary",
        sizes: &[12_288, 49_152],
    },
    Axis {
        about: "clusters: k-means, 36,718 x 768, 10 steps",
        workload: "growth-clusters",
        sizes: &[286, 1144],
    },
    Axis {
        about: "groups: 64 prompts decoded together, 16 tokens each, SmolLM2-135M shapes",
        workload: "growth-groups",
        sizes: &[1, 8, 64],
    },
];

/// Runs every size and prints a table.
pub(crate) fn run(workspace: &Workspace, args: &GrowthArgs) -> anyhow::Result<()> {
    ensure!(args.rounds > 0, "--rounds 0 measures nothing");
    let shell = workspace.shell()?;
    let programs = Programs::prepare(workspace, &shell, &args.programs)?;
    let rounds = format!("{} of every size", args.rounds);
    super::print_setup(&shell, &rounds, args.programs.threads);
    let mut grown = Vec::new();
    for axis in AXES {
        println!("\n== {}", axis.about);
        let mut seconds = Vec::new();
        for size in axis.sizes {
            let mut command = programs.ours(axis.workload);
            command.arg(size.to_string());
            let mut side = Side::start(axis.workload, &mut command)?;
            for _ in 0..=args.rounds {
                side.round()?;
            }
            println!("{size:>8} {:10.4} s", side.median_seconds());
            seconds.push(side.median_seconds());
            side.finish()?;
        }
        grown.push((axis, seconds));
    }
    println!("\n{}", markdown(&grown));
    Ok(())
}

fn markdown(grown: &[(&Axis, Vec<f64>)]) -> String {
    let mut text = String::from("| what grows | sizes | ms | exponents |\n|---|---|---|---|\n");
    for (axis, seconds) in grown {
        let sizes: Vec<f64> = axis.sizes.iter().map(|&size| f64::from(size)).collect();
        let sizes_shown: Vec<String> = sizes.iter().map(|size| format!("{size:.0}")).collect();
        let times: Vec<String> = seconds.iter().map(|s| format!("{:.1}", s * 1e3)).collect();
        let exponents: Vec<String> = exponents(&sizes, seconds)
            .iter()
            .map(|exponent| format!("{exponent:.2}"))
            .collect();
        writeln!(
            text,
            "| {} | {} | {} | {} |",
            axis.about,
            sizes_shown.join(", "),
            times.join(", "),
            exponents.join(", ")
        )
        .expect("writing to a string cannot fail");
    }
    text
}

/// From each size to the next: 1 where time grows as the size does, 0 where it stays.
fn exponents(sizes: &[f64], seconds: &[f64]) -> Vec<f64> {
    let ratios = |values: &[f64]| -> Vec<f64> {
        values
            .windows(2)
            .map(|pair| (pair[1] / pair[0]).ln())
            .collect()
    };
    ratios(seconds)
        .iter()
        .zip(ratios(sizes))
        .map(|(time, size)| time / size)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_square_has_the_exponent_two_and_a_constant_none() {
        let found = exponents(&[1.0, 2.0, 8.0], &[3.0, 12.0, 12.0]);
        assert!((found[0] - 2.0).abs() < 1e-12, "{found:?}");
        assert!(found[1].abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn a_row_shows_sizes_times_and_exponents() {
        let axis = Axis {
            about: "things",
            workload: "none",
            sizes: &[10, 40],
        };
        let table = markdown(&[(&axis, vec![0.5, 2.0])]);
        assert!(table.ends_with("| things | 10, 40 | 500.0, 2000.0 | 1.00 |\n"));
    }

    #[test]
    fn our_side_knows_every_axis_and_each_grows() {
        let workspace = Workspace::locate().unwrap();
        let ours = workspace.root.join("chameleon-cli/examples/peers/main.rs");
        let ours = std::fs::read_to_string(ours).unwrap();
        for axis in AXES {
            assert!(ours.contains(&format!("\"{}\" =>", axis.workload)));
            assert!(axis.sizes.is_sorted() && axis.sizes.len() > 1);
        }
    }
}
