//! The Python of this machine, and an environment for scripts that compare us with other implementations.

use std::path::PathBuf;

use anyhow::Context as _;
use xshell::{Shell, cmd};

use crate::files;
use crate::workspace::Workspace;

/// `python3`, or `python` where that is its name.
pub(crate) fn find(shell: &Shell) -> PathBuf {
    let runs = |program: &&str| {
        let version = cmd!(shell, "{program} --version");
        version.quiet().ignore_stderr().read().is_ok()
    };
    ["python3", "python"]
        .iter()
        .find(|program| runs(program))
        .unwrap_or(&"python3")
        .into()
}

/// The interpreter of a virtual environment in the user's cache, with the packages that `xtask/python/REQUIREMENTS` lists.
pub(crate) fn environment(
    workspace: &Workspace,
    shell: &Shell,
    requirements: &str,
) -> anyhow::Result<PathBuf> {
    let requirements = workspace.root.join("xtask/python").join(requirements);
    let name = requirements.file_stem().context("a list has a name")?;
    let folder = files::user_cache()?.join("python").join(name);
    let python = if cfg!(windows) {
        folder.join("Scripts/python.exe")
    } else {
        folder.join("bin/python")
    };
    if !python.exists() {
        println!("making a Python environment in {}", folder.display());
        let installed = find(shell);
        cmd!(shell, "{installed} -m venv {folder}").quiet().run()?;
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
