//! Burn takes many minutes to build, so it must be built once.
//!
//! Cargo builds a crate again when the features of anything below it differ. Whatever one asks for (the
//! program, the whole workspace, the tests of one library) everything Burn stands on must therefore see the
//! same features. `burn-once` lines them up; this rule says when a new dependency has undone that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use xshell::{Shell, cmd};

use super::Finding;
use crate::workspace::Workspace;

/// Compares every selection that people build with the whole workspace.
pub(super) fn one_build_of_burn(workspace: &Workspace) -> anyhow::Result<Vec<Finding>> {
    let shell = workspace.shell()?;
    let whole = Tree::of(&shell, &["--workspace", "-e", "normal,build,dev"])?;

    let mut selections = vec![(
        "cargo build -p chameleon-cli".to_owned(),
        Tree::of(&shell, &["-p", "chameleon-cli", "-e", "normal,build"])?,
    )];
    for member in workspace.members.iter().filter(|member| member.publishable) {
        selections.push((
            format!("cargo test -p {}", member.name),
            Tree::of(&shell, &["-p", &member.name, "-e", "normal,build,dev"])?,
        ));
    }

    Ok(selections
        .iter()
        .filter_map(|(what, selected)| differences(what, selected, &whole))
        .map(|message| Finding::new(Path::new("xtask/burn-once/Cargo.toml"), 0, message))
        .collect())
}

/// What `cargo tree` shows: packages with the features they are built with, and their edges.
#[derive(Debug, Default)]
struct Tree {
    /// `name version` to its feature lists; host and target may differ.
    features: BTreeMap<String, BTreeSet<String>>,
    /// `name version` to the packages it needs.
    needs: BTreeMap<String, BTreeSet<String>>,
}

impl Tree {
    fn of(shell: &Shell, selection: &[&str]) -> anyhow::Result<Self> {
        let format = "|{p}|{f}";
        let text = cmd!(
            shell,
            "cargo tree --locked --prefix depth -f {format} {selection...}"
        )
        .quiet()
        .ignore_stderr()
        .read()
        .with_context(|| format!("cargo tree {} failed", selection.join(" ")))?;
        Ok(Self::parse(&text))
    }

    /// Lines read `depth|name version (where)|features`, marked ` (*)` when shown before.
    fn parse(text: &str) -> Self {
        let mut tree = Self::default();
        let mut path: Vec<String> = Vec::new();
        for line in text.lines() {
            let mut parts = line.splitn(3, '|');
            let (Some(depth), Some(package), Some(features)) =
                (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            let Ok(depth) = depth.parse::<usize>() else {
                continue;
            };
            let words: Vec<_> = package.split_whitespace().take(2).collect();
            let package = words.join(" ");
            path.truncate(depth);
            if let Some(parent) = path.last() {
                let needs = tree.needs.entry(parent.clone()).or_default();
                needs.insert(package.clone());
            }
            path.push(package.clone());
            let features = features.trim_end_matches("(*)").trim_end().to_owned();
            tree.features.entry(package).or_default().insert(features);
        }
        tree
    }

    /// Burn and everything it is built from.
    fn burn_and_below(&self) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let mut pending: Vec<&str> = self
            .features
            .keys()
            .map(String::as_str)
            .filter(|package| package.starts_with("burn "))
            .collect();
        while let Some(package) = pending.pop() {
            if found.insert(package)
                && let Some(needs) = self.needs.get(package)
            {
                pending.extend(needs.iter().map(String::as_str));
            }
        }
        found
    }
}

/// At most one message: the first package is the cause, or close to it.
fn differences(what: &str, selected: &Tree, whole: &Tree) -> Option<String> {
    let mut different = whole.burn_and_below().into_iter().filter_map(|package| {
        let here = selected.features.get(package)?;
        let there = &whole.features[package];
        (!here.is_subset(there)).then_some((package, here, there))
    });
    let (package, here, there) = different.next()?;
    let others = different.count();
    Some(format!(
        "`{what}` builds Burn again: {package} has features {here:?} there and {there:?} in the workspace; \
         so it is for {others} more packages"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_that_only_the_workspace_turns_on_is_found() {
        let whole = Tree::parse("0|x v0|\n1|burn v1|std\n2|half v2|default,std\n1|log v1|std\n");
        let alone = Tree::parse("0|x v0|\n1|burn v1|std\n2|half v2|std\n1|log v1|\n");
        let messages = differences("cargo test -p x", &alone, &whole);
        assert!(messages.unwrap().contains("half v2"));
        assert_eq!(differences("same", &whole, &whole), None);
    }

    #[test]
    fn repeated_lines_and_paths_are_read_like_the_first() {
        let tree = Tree::parse(
            "0|a v1 (/some/where)|x,y\n1|a v1 (/some/where)|x,y (*)\n1|b v2 (proc-macro)| (*)\n",
        );
        assert_eq!(tree.features.len(), 2);
        assert_eq!(tree.features["a v1"], ["x,y".to_owned()].into());
        assert_eq!(tree.features["b v2"], [String::new()].into());
    }
}
