//! Where the sources of the program's dependencies lie: cargo's registry folder.
//!
//! Only crates that the program is built from count: a fresh machine has no others.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use xshell::{Shell, cmd};

/// One unpacked crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CrateSource {
    /// `name-version`, the name of its folder.
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
}

/// The crates the program is built from, sorted by name.
pub(crate) fn of_the_program(shell: &Shell) -> anyhow::Result<Vec<CrateSource>> {
    let format = "{p}";
    let tree = cmd!(
        shell,
        "cargo tree --locked -p chameleon-cli -e normal,build --prefix none -f {format}"
    )
    .quiet()
    .ignore_stderr()
    .read()
    .context("cargo tree failed")?;
    let registries = registry_folders(&cargo_home()?);
    ensure!(
        !registries.is_empty(),
        "cargo's registry folder holds no sources; use --data with a text of your own"
    );
    Ok(locate(&names(&tree), &registries))
}

fn cargo_home() -> anyhow::Result<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| dirs::home_dir().map(|home| home.join(".cargo")))
        .context("neither CARGO_HOME nor a home folder is known")
}

/// One folder per registry, sorted.
fn registry_folders(cargo_home: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(cargo_home.join("registry").join("src")) else {
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

/// `name-version` of each line such as `serde v1.0.0`; crates of this workspace carry a path and are left out.
fn names(tree: &str) -> Vec<String> {
    let mut names: Vec<String> = tree
        .lines()
        .filter(|line| !line.contains('/') && !line.contains('\\'))
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next()?;
            let version = words.next()?.strip_prefix('v')?;
            Some(format!("{name}-{version}"))
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

fn locate(names: &[String], registries: &[PathBuf]) -> Vec<CrateSource> {
    names
        .iter()
        .filter_map(|name| {
            let dir = registries
                .iter()
                .map(|registry| registry.join(name))
                .find(|dir| dir.is_dir())?;
            Some(CrateSource {
                name: name.clone(),
                dir,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_lists_each_outside_crate_once() {
        let tree = "chameleon-cli v0.1.0 (/some/where)\nserde v1.0.2\nderive v2.0.0 (proc-macro)\nserde v1.0.2 (*)\n";
        assert_eq!(names(tree), ["derive-2.0.0", "serde-1.0.2"]);
    }

    #[test]
    fn crates_that_are_not_unpacked_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("registry/src/one/serde-1.0.2")).unwrap();
        let registries = registry_folders(dir.path());
        let names = ["other-1.0.0", "serde-1.0.2"].map(str::to_owned);
        let located = locate(&names, &registries);
        assert_eq!(located.len(), 1);
        assert!(located[0].dir.ends_with("one/serde-1.0.2"));
        assert!(registry_folders(&dir.path().join("nowhere")).is_empty());
    }
}
