//! `cargo xtask check`: what has to hold before a change lands, the cheapest first, the tests last.
//!
//! Tools outside the Rust distribution may be missing; their step is then skipped, and the skipped steps are
//! named right before the tests, whose own summary is the last thing printed.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use xshell::{Shell, cmd};

use crate::tidy;
use crate::workspace::Workspace;

/// Options of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Fail when a tool is missing instead of skipping its step
    #[arg(long)]
    strict: bool,
}

/// Runs all steps; the first that fails ends the run.
pub(crate) fn run(workspace: &Workspace, args: &CheckArgs) -> anyhow::Result<()> {
    let shell = workspace.shell()?;
    let mut progress = Progress::default();

    for step in STEPS {
        let missing = step.needs.filter(|tool| !tool.is_installed(&shell));
        match missing {
            Some(tool) if args.strict => {
                anyhow::bail!(
                    "step `{}` needs {} ({})",
                    step.name,
                    tool.name,
                    tool.install
                )
            }
            Some(tool) => progress.skip(step, tool),
            None => progress.time(step.name, || (step.run)(workspace, &shell))?,
        }
    }
    progress.report_before_tests();
    test(&shell)
}

/// One line of work with the tool it needs, if cargo alone is not enough.
struct Step {
    name: &'static str,
    needs: Option<Tool>,
    run: fn(&Workspace, &Shell) -> anyhow::Result<()>,
}

/// A program that may be missing, and how one gets it.
#[derive(Clone, Copy)]
struct Tool {
    name: &'static str,
    probe: (&'static str, &'static [&'static str]),
    install: &'static str,
}

impl Tool {
    fn is_installed(&self, shell: &Shell) -> bool {
        let (program, arguments) = self.probe;
        cmd!(shell, "{program} {arguments...}")
            .quiet()
            .ignore_stderr()
            .read()
            .is_ok()
    }
}

const NEXTEST: Tool = Tool {
    name: "nextest",
    probe: ("cargo", &["nextest", "--version"]),
    install: "cargo install cargo-nextest --locked",
};

const STEPS: &[Step] = &[
    Step {
        name: "fmt",
        needs: Some(Tool {
            name: "rustfmt",
            probe: ("cargo", &["fmt", "--version"]),
            install: "rustup component add rustfmt",
        }),
        run: |_, shell| Ok(cmd!(shell, "cargo fmt --all --check").run()?),
    },
    Step {
        name: "typos",
        needs: Some(Tool {
            name: "typos",
            probe: ("typos", &["--version"]),
            install: "cargo install typos-cli --locked",
        }),
        run: |_, shell| Ok(cmd!(shell, "typos").run()?),
    },
    Step {
        name: "tidy",
        needs: None,
        run: |workspace, _| tidy::run(workspace),
    },
    Step {
        name: "deny",
        needs: Some(Tool {
            name: "cargo-deny",
            probe: ("cargo", &["deny", "--version"]),
            install: "cargo install cargo-deny --locked",
        }),
        run: |_, shell| Ok(cmd!(shell, "cargo deny check bans licenses sources").run()?),
    },
    Step {
        name: "clippy",
        needs: Some(Tool {
            name: "clippy",
            probe: ("cargo", &["clippy", "--version"]),
            install: "rustup component add clippy",
        }),
        // `-D warnings` goes to our crates only: as RUSTFLAGS it would build every dependency anew.
        run: |_, shell| {
            Ok(cmd!(
                shell,
                "cargo clippy --locked --workspace --all-targets -- -D warnings"
            )
            .run()?)
        },
    },
    Step {
        name: "doc",
        needs: None,
        run: |_, shell| crate::docs::build(shell),
    },
    Step {
        name: "doctests",
        needs: None,
        run: |_, shell| Ok(cmd!(shell, "cargo test --locked --workspace --doc").run()?),
    },
];

/// Every test of the workspace, with nextest where it is installed.
///
/// Property tests draw the same cases each time, so that two checks of one commit agree; a plain `cargo test`
/// draws new ones, and that is where new counterexamples come from.
fn test(shell: &Shell) -> anyhow::Result<()> {
    announce("tests");
    let _seed = shell.push_env("PROPTEST_RNG_SEED", "2502");
    let tested = if NEXTEST.is_installed(shell) {
        cmd!(
            shell,
            "cargo nextest run --locked --workspace --no-fail-fast"
        )
        .run()
    } else {
        // Doctests ran before.
        cmd!(
            shell,
            "cargo test --locked --workspace --tests --no-fail-fast"
        )
        .run()
    };
    tested.context("step `tests` failed")
}

/// What was done and what was not.
#[derive(Default)]
struct Progress {
    done: Vec<(&'static str, Duration)>,
    skipped: Vec<String>,
}

impl Progress {
    fn time(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        announce(name);
        let start = Instant::now();
        work().with_context(|| format!("step `{name}` failed"))?;
        self.done.push((name, start.elapsed()));
        Ok(())
    }

    fn skip(&mut self, step: &Step, tool: Tool) {
        announce(step.name);
        println!("skipped, {} is not installed", tool.name);
        self.skipped.push(format!(
            "  {:<10} needs {} ({})",
            step.name, tool.name, tool.install
        ));
    }

    fn report_before_tests(&self) {
        println!();
        for (name, duration) in &self.done {
            println!("passed {name} in {:.0} s", duration.as_secs_f64());
        }
        if !self.skipped.is_empty() {
            println!("SKIPPED, so not checked here:");
            for line in &self.skipped {
                println!("{line}");
            }
        }
    }
}

fn announce(name: &str) {
    println!("\n== {name}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_does_not_exist_is_reported_as_missing() {
        let tool = Tool {
            name: "nothing",
            probe: ("no-such-program-anywhere", &["--version"]),
            install: "",
        };
        assert!(!tool.is_installed(&Shell::new().unwrap()));
    }

    #[test]
    fn the_first_failing_step_names_itself() {
        let mut progress = Progress::default();
        let error = progress
            .time("fmt", || anyhow::bail!("not formatted"))
            .unwrap_err();
        assert_eq!(format!("{error:#}"), "step `fmt` failed: not formatted");
        assert!(progress.done.is_empty());
    }

    #[test]
    fn cheap_steps_come_before_those_that_compile() {
        let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        let place = |name| names.iter().position(|other| *other == name).unwrap();
        assert!(place("fmt") < place("clippy"));
        assert!(place("tidy") < place("clippy"));
        assert!(place("clippy") < place("doctests"));
    }
}
