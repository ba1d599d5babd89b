//! The programs of both sides: what has to be there before one starts, and how it is called.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use clap::Args;
use xshell::{Shell, cmd};

use super::workloads::Program;
use crate::python;
use crate::workspace::Workspace;

/// How programs are run.
#[derive(Debug, Args)]
pub(super) struct ProgramArgs {
    /// Threads of every side
    #[arg(long, default_value_t = 2)]
    pub(super) threads: usize,
    /// A Python that already has the packages, instead of an environment of our own
    #[arg(long)]
    python: Option<PathBuf>,
}

/// Where everything lies.
pub(super) struct Programs {
    ours: PathBuf,
    interpreter: PathBuf,
    scripts: PathBuf,
    inputs: PathBuf,
    threads: usize,
}

impl Programs {
    /// Builds our side and writes what both sides read.
    pub(super) fn prepare(
        workspace: &Workspace,
        shell: &Shell,
        args: &ProgramArgs,
    ) -> anyhow::Result<Self> {
        let interpreter = match &args.python {
            Some(interpreter) => interpreter.clone(),
            None => python::environment(workspace, shell, "requirements.txt")?,
        };
        cmd!(
            shell,
            "cargo build --locked --quiet -p chameleon-cli --example peers"
        )
        .run()?;
        let inputs = workspace.target_dir.join("peers");
        let scripts = workspace.root.join("xtask/python");
        cmd!(shell, "{interpreter} {scripts}/bench_inputs.py {inputs}")
            .quiet()
            .run()
            .context("cannot write the inputs of both sides")?;
        Ok(Self {
            ours: workspace.target_dir.join("debug/examples/peers"),
            interpreter,
            scripts,
            inputs,
            threads: args.threads,
        })
    }

    /// Our side with one of its workloads.
    pub(super) fn ours(&self, workload: &str) -> Command {
        let mut command = self.limited(&self.ours);
        command.arg(workload).arg(&self.inputs);
        command
    }

    pub(super) fn peer(&self, program: Program) -> Command {
        match program {
            Program::Ours(workload) => self.ours(workload),
            Program::Script(script, args) => {
                let mut command = self.limited(&self.interpreter);
                command
                    .arg(self.scripts.join(script))
                    .arg(&self.inputs)
                    .arg(self.threads.to_string())
                    .args(args);
                command
            }
        }
    }

    /// A command that uses no more threads than it should, whichever library counts them.
    fn limited(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for name in [
            "RAYON_NUM_THREADS",
            "OMP_NUM_THREADS",
            "MKL_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
        ] {
            command.env(name, self.threads.to_string());
        }
        command
    }
}
