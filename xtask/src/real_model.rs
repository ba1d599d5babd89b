//! `cargo xtask real-model`: greedy texts of a real model against those of transformers.
//!
//! The test needs files that are too large for the repository, so it is ignored elsewhere.

use std::path::PathBuf;

use clap::Args;
use xshell::cmd;

use crate::workspace::Workspace;

/// Options of `real-model`.
#[derive(Debug, Args)]
pub(crate) struct RealModelArgs {
    /// A GGUF file of a Llama model, such as SmolLM2-135M
    model: PathBuf,
    /// A JSON file with `prompts` and `continuations`, lists of token ids that transformers decoded greedily from the
    /// same dequantised weights
    greedy: PathBuf,
}

/// Runs the test on these files.
pub(crate) fn run(workspace: &Workspace, args: &RealModelArgs) -> anyhow::Result<()> {
    let shell = workspace.shell()?;
    // The test runs in the folder of its crate.
    shell.set_var("CHAMELEON_TEST_GGUF", std::path::absolute(&args.model)?);
    shell.set_var("CHAMELEON_TEST_GREEDY", std::path::absolute(&args.greedy)?);
    cmd!(
        shell,
        "cargo test --locked -p chameleon-models --test it -- --ignored real_model"
    )
    .run()?;
    Ok(())
}
