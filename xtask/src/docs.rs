//! `cargo xtask docs`: the API documentation of our crates, where a warning is an error.

use xshell::{Shell, cmd};

use crate::workspace::Workspace;

/// Builds the documentation and prints where it is.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    build(&workspace.shell()?)?;
    let index = workspace.target_dir.join("doc/chameleon_core/index.html");
    println!("documentation: {}", index.display());
    Ok(())
}

/// `--no-deps` needs only the metadata of dependencies, which clippy has already produced.
pub(crate) fn build(shell: &Shell) -> anyhow::Result<()> {
    Ok(cmd!(shell, "cargo doc --locked --workspace --no-deps")
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()?)
}
