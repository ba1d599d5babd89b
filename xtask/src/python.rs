//! Python environments for scripts that compare us with other implementations, outside the checkout.

use std::path::PathBuf;

use anyhow::Context as _;
use xshell::{Shell, cmd};

use crate::workspace::Workspace;

/// The interpreter of a virtual environment in the user's cache, which has what `xtask/python/REQUIREMENTS` lists.
pub(crate) fn environment(
    workspace: &Workspace,
    shell: &Shell,
    requirements: &str,
) -> anyhow::Result<PathBuf> {
    let requirements = workspace.root.join("xtask/python").join(requirements);
    let cache = dirs::cache_dir().context("no cache folder for this user")?;
    let name = requirements.file_stem().context("a list has a name")?;
    let folder = cache.join("chameleon/python").join(name);
    let python = if cfg!(windows) {
        folder.join("Scripts/python.exe")
    } else {
        folder.join("bin/python")
    };
    if !python.exists() {
        println!("making a Python environment in {}", folder.display());
        cmd!(shell, "python3 -m venv {folder}").quiet().run()?;
    }
    cmd!(
        shell,
        "{python} -m pip install --quiet --disable-pip-version-check -r {requirements}"
    )
    .quiet()
    .run()
    .with_context(|| format!("cannot install what {} lists", requirements.display()))?;
    Ok(python)
}
