//! The workspace as cargo describes it: members, their dependencies, their folders.
//!
//! Read from `cargo metadata --no-deps`, which needs no network and no lock.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use xshell::{Shell, cmd};

/// The checkout and its members.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target_dir: PathBuf,
    pub(crate) members: Vec<Member>,
}

/// One package of the workspace.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) dir: PathBuf,
    pub(crate) publishable: bool,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) benches: Vec<String>,
    /// The files that library, programs, examples and benches begin with.
    pub(crate) crate_roots: Vec<PathBuf>,
}

/// One declared dependency of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) section: Section,
}

/// Where a dependency is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Normal,
    Dev,
    Build,
}

impl Workspace {
    /// Finds the workspace this program was built from.
    pub(crate) fn locate() -> anyhow::Result<Self> {
        let manifest_dir = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest_dir
            .parent()
            .context("xtask has no parent folder")?
            .to_path_buf();
        ensure!(
            root.join("Cargo.toml").is_file(),
            "no workspace at {}",
            root.display()
        );
        let shell = Shell::new()?;
        shell.change_dir(&root);
        let text = cmd!(shell, "cargo metadata --no-deps --format-version 1")
            .quiet()
            .ignore_stderr()
            .read()
            .context("cargo metadata failed")?;
        Self::from_metadata(root, &serde_json::from_str(&text)?)
    }

    fn from_metadata(root: PathBuf, metadata: &Value) -> anyhow::Result<Self> {
        let members = array(metadata, "packages")?
            .iter()
            .map(member_from)
            .collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self {
            root,
            target_dir: PathBuf::from(string(metadata, "target_directory")?),
            members,
        })
    }

    /// A shell that starts in the root of the checkout.
    pub(crate) fn shell(&self) -> anyhow::Result<Shell> {
        let shell = Shell::new()?;
        shell.change_dir(&self.root);
        Ok(shell)
    }

    /// Tracked and not-yet-ignored files, relative to the root, sorted.
    pub(crate) fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let shell = self.shell()?;
        let listed = cmd!(
            shell,
            "git ls-files --cached --others --exclude-standard -z"
        )
        .quiet()
        .ignore_stderr()
        .read();
        let mut files: Vec<PathBuf> = match listed {
            Ok(text) => text
                .split('\0')
                .filter(|name| !name.is_empty())
                .map(PathBuf::from)
                .filter(|path| self.root.join(path).is_file())
                .collect(),
            // A source archive has no git: take all files, less what is built.
            Err(_) => crate::files::walk(&self.root)?
                .into_iter()
                .filter_map(|path| path.strip_prefix(&self.root).map(Path::to_path_buf).ok())
                .filter(|path| !path.starts_with("target") && !path.starts_with(".git"))
                .collect(),
        };
        files.sort();
        files.dedup();
        Ok(files)
    }
}

fn member_from(package: &Value) -> anyhow::Result<Member> {
    let manifest = PathBuf::from(string(package, "manifest_path")?);
    let dependencies = array(package, "dependencies")?
        .iter()
        .map(|dependency| {
            Ok(Dependency {
                name: string(dependency, "name")?,
                section: match dependency["kind"].as_str() {
                    Some("dev") => Section::Dev,
                    Some("build") => Section::Build,
                    _ => Section::Normal,
                },
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let targets = array(package, "targets")?;
    let benches = targets
        .iter()
        .filter(|target| target["kind"][0] == "bench")
        .map(|target| string(target, "name"))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let crate_roots = targets
        .iter()
        .filter(|target| target["kind"][0] != "test")
        .map(|target| string(target, "src_path").map(PathBuf::from))
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Member {
        name: string(package, "name")?,
        version: string(package, "version")?,
        dir: manifest
            .parent()
            .context("a manifest has no folder")?
            .to_path_buf(),
        publishable: package["publish"].is_null(),
        dependencies,
        benches,
        crate_roots,
    })
}

fn string(value: &Value, key: &str) -> anyhow::Result<String> {
    value[key]
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("cargo metadata has no string `{key}`"))
}

fn array<'a>(value: &'a Value, key: &str) -> anyhow::Result<&'a Vec<Value>> {
    value[key]
        .as_array()
        .with_context(|| format!("cargo metadata has no list `{key}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_workspace_is_found_with_its_members() {
        let workspace = Workspace::locate().unwrap();
        let names: Vec<_> = workspace.members.iter().map(|m| m.name.as_str()).collect();
        for name in ["chameleon-core", "chameleon-cli", "xtask"] {
            assert!(names.contains(&name), "{name} is not among {names:?}");
        }
        let xtask = workspace
            .members
            .iter()
            .find(|m| m.name == "xtask")
            .unwrap();
        assert!(!xtask.publishable);
        assert!(xtask.dependencies.contains(&Dependency {
            name: "tempfile".to_owned(),
            section: Section::Dev
        }));
    }

    #[test]
    fn listed_files_exist_and_leave_out_build_products() {
        let workspace = Workspace::locate().unwrap();
        let files = workspace.files().unwrap();
        assert!(files.contains(&PathBuf::from("Cargo.toml")));
        assert!(files.iter().all(|path| !path.starts_with("target")));
    }
}
