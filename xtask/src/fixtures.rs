//! `cargo xtask fixtures`: would the committed answers come out the same today?
//!
//! Every `tests/fixtures/NAME/export.py` runs in a copy of its folder, under a Python environment that lies
//! outside the checkout, and the result is compared with what is committed. Nothing in the checkout changes;
//! to renew a fixture, run its export.py where it is.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use xshell::cmd;

use crate::workspace::Workspace;
use crate::{files, python};

/// Options of `fixtures`.
#[derive(Debug, Args)]
pub(crate) struct FixturesArgs {
    /// Only fixtures whose path contains this
    filter: Option<String>,
    /// A Python that already has the packages, instead of an environment of our own
    #[arg(long)]
    python: Option<PathBuf>,
}

/// Exports each fixture again and reports every difference.
pub(crate) fn run(workspace: &Workspace, args: &FixturesArgs) -> anyhow::Result<()> {
    let folders = selected(workspace, args.filter.as_deref())?;
    ensure!(!folders.is_empty(), "no fixture matches");
    let shell = workspace.shell()?;
    let interpreter = match &args.python {
        Some(interpreter) => interpreter.clone(),
        None => python::environment(workspace, &shell, "requirements.txt")?,
    };
    let compare = workspace.root.join("xtask/python/compare.py");

    let mut changed = Vec::new();
    for folder in folders {
        println!("{}", folder.display());
        let committed = workspace.root.join(&folder);
        let scratch = shell.create_temp_dir()?;
        let fresh = scratch
            .path()
            .join(folder.file_name().context("a fixture has a name")?);
        copy_folder(&committed, &fresh)?;
        let exported = {
            let _in_fixture = shell.push_dir(&fresh);
            cmd!(shell, "{interpreter} export.py").quiet().run()
        };
        let same = exported.is_ok()
            && cmd!(shell, "{interpreter} {compare} {committed} {fresh}")
                .quiet()
                .run()
                .is_ok();
        if !same {
            changed.push(folder.display().to_string());
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    bail!("fixtures that came out differently: {}", changed.join(", "))
}

fn selected(workspace: &Workspace, filter: Option<&str>) -> anyhow::Result<Vec<PathBuf>> {
    Ok(workspace
        .files()?
        .iter()
        .filter(|path| path.ends_with("export.py"))
        .filter_map(|path| path.parent().map(Path::to_path_buf))
        .filter(|folder| folder.to_string_lossy().contains("tests/fixtures/"))
        .filter(|folder| filter.is_none_or(|part| folder.to_string_lossy().contains(part)))
        .collect())
}

fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    for path in files::walk(from)? {
        let target = to.join(path.strip_prefix(from)?);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::copy(&path, &target).with_context(|| format!("cannot copy {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixtures_are_found_by_their_export() {
        let workspace = Workspace::locate().unwrap();
        let folders = selected(&workspace, None).unwrap();
        assert!(
            folders
                .iter()
                .all(|folder| workspace.root.join(folder).join("export.py").is_file())
        );
        assert!(
            selected(&workspace, Some("no fixture is called this"))
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_copied_fixture_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        std::fs::create_dir_all(from.join("inner")).unwrap();
        files::write_atomically(&from.join("inner/a"), b"1").unwrap();
        let to = dir.path().join("to");
        copy_folder(&from, &to).unwrap();
        assert_eq!(std::fs::read(to.join("inner/a")).unwrap(), b"1");
    }
}
