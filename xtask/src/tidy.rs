//! `cargo xtask tidy`: rules of this project that no other tool checks.
//!
//! It is also an ordinary test, so `cargo test` alone keeps them. Rules about text are in [`text`], about words in
//! [`phrases`], about files that import each other in [`circles`], about manifests and crate edges in [`manifests`],
//! about Burn being built once in [`features`].

mod circles;
mod features;
mod imports;
mod manifests;
mod phrases;
mod text;
mod vocabulary;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::workspace::Workspace;

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    path: PathBuf,
    /// Counted from one; zero when the whole file is meant.
    line: usize,
    message: String,
}

impl Finding {
    fn new(path: &Path, line: usize, message: impl Into<String>) -> Self {
        Self {
            path: path.to_path_buf(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(formatter, "{}: {}", self.path.display(), self.message),
            line => write!(
                formatter,
                "{}:{line}: {}",
                self.path.display(),
                self.message
            ),
        }
    }
}

/// Prints every finding; any finding is a failure.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<()> {
    let findings = all_findings(workspace)?;
    if findings.is_empty() {
        println!("tidy");
        return Ok(());
    }
    for finding in &findings {
        println!("{finding}");
    }
    bail!("{} findings", findings.len())
}

fn all_findings(workspace: &Workspace) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for (path, contents) in text_files(workspace)? {
        findings.extend(text::check(&workspace.root, &path, &contents));
        findings.extend(phrases::check(&path, &contents));
        if path.ends_with("Cargo.toml") {
            findings.extend(manifests::inherits_from_the_root(&path, &contents)?);
        }
    }
    findings.extend(manifests::edges(workspace));
    findings.extend(features::one_build_of_burn(workspace)?);
    findings.extend(circles::findings(workspace)?);
    Ok(findings)
}

/// The files of the checkout with their contents; weights and other binary files are left out.
fn text_files(workspace: &Workspace) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let read = |path: PathBuf| {
        let contents = std::fs::read_to_string(workspace.root.join(&path)).ok()?;
        Some((path, contents))
    };
    Ok(workspace.files()?.into_iter().filter_map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_is_tidy() {
        let workspace = Workspace::locate().unwrap();
        let findings = all_findings(&workspace).unwrap();
        let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "\n{}", lines.join("\n"));
    }

    #[test]
    fn a_finding_reads_like_a_compiler_message() {
        let finding = Finding::new(Path::new("a/b.rs"), 3, "no module docs");
        assert_eq!(finding.to_string(), "a/b.rs:3: no module docs");
        let whole = Finding::new(Path::new("a/b.rs"), 0, "too long");
        assert_eq!(whole.to_string(), "a/b.rs: too long");
    }
}
