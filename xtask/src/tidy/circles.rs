//! No two files of a crate import each other, directly or around others.
//!
//! A file imports another when its code names something that is defined there, by a `use` or by a path. A module that
//! hands a name on (`pub use`) is passed through: whoever names `crate::Engine` imports the file that defines the engine and
//! not `lib.rs`; the module itself imports what it hands on. What a file takes from the modules around it
//! (`use super::Style`, where the parent defines `Style`) is no import, as a module and the files below it are one idea
//! with an inside. Code for tests does not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path as FilePath, PathBuf};

use anyhow::Context as _;

use super::Finding;
use super::imports::{Names, Path, Source};
use crate::workspace::Workspace;

/// Imports followed from name to name, at most; only a name that stands for itself has more.
const MAX_STEPS: usize = 8;

/// Every circle of the workspace.
pub(super) fn findings(workspace: &Workspace) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for root in workspace
        .members
        .iter()
        .flat_map(|member| &member.crate_roots)
    {
        let read = |path: &FilePath| std::fs::read_to_string(path).ok();
        let circles = Modules::read(root, &read)?.circles();
        findings.extend(circles.iter().map(|circle| circle.finding(&workspace.root)));
    }
    Ok(findings)
}

/// The modules of one crate and the files that they are in.
#[derive(Debug, Default)]
struct Modules {
    files: Vec<File>,
    /// A module, by its path from the root of the crate, and the index of its file.
    by_path: BTreeMap<Names, usize>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    /// The module that the whole file is.
    module: Names,
    source: Source,
}

/// Names that one file takes from another, by the indices of both.
type Edges = BTreeMap<(usize, usize), BTreeSet<String>>;

/// Files that reach each other.
#[derive(Debug)]
struct Circle {
    first: PathBuf,
    num_files: usize,
    /// From, to, names.
    edges: Vec<(PathBuf, PathBuf, Vec<String>)>,
}

impl Modules {
    /// Reads the file `root` of a crate and every module that it declares.
    fn read(
        root: &FilePath,
        contents: &impl Fn(&FilePath) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let mut modules = Self::default();
        let parent = |path: &FilePath| path.parent().unwrap_or(FilePath::new("")).to_path_buf();
        // Each with the folder of its modules.
        let mut pending = vec![(root.to_path_buf(), Names::new(), parent(root))];
        while let Some((path, module, folder)) = pending.pop() {
            let text =
                contents(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let source = Source::read(&text).with_context(|| path.display().to_string())?;
            for names in &source.files {
                let below = folder.join(names.iter().collect::<PathBuf>());
                let candidates = [below.with_extension("rs"), below.join("mod.rs")];
                let file = candidates
                    .into_iter()
                    .find(|path| contents(path).is_some())
                    .with_context(|| format!("no file for {}", below.display()))?;
                pending.push((file, joined(&module, names), below));
            }
            let file_idx = modules.files.len();
            for names in &source.inline {
                modules.by_path.insert(joined(&module, names), file_idx);
            }
            modules.by_path.insert(module.clone(), file_idx);
            modules.files.push(File {
                path,
                module,
                source,
            });
        }
        Ok(modules)
    }

    fn circles(&self) -> Vec<Circle> {
        let edges = self.edges();
        let reached: Vec<BTreeSet<usize>> = (0..self.files.len())
            .map(|from| reached_from(from, &edges))
            .collect();
        let mut circles: Vec<Circle> = (0..self.files.len())
            .map(|file| {
                let members = reached[file].iter().copied();
                members
                    .filter(|&other| reached[other].contains(&file))
                    .collect()
            })
            .collect::<BTreeSet<BTreeSet<usize>>>()
            .into_iter()
            .filter(|members| !members.is_empty())
            .map(|members| self.circle(&members, &edges))
            .collect();
        circles.sort_by(|a, b| a.first.cmp(&b.first));
        circles
    }

    fn circle(&self, members: &BTreeSet<usize>, edges: &Edges) -> Circle {
        let mut inner: Vec<_> = edges
            .iter()
            .filter(|((from, to), _)| members.contains(from) && members.contains(to))
            .map(|((from, to), names)| {
                let path = |file_idx: &usize| self.files[*file_idx].path.clone();
                (path(from), path(to), names.iter().cloned().collect())
            })
            .collect();
        inner.sort();
        Circle {
            first: inner[0].0.clone(),
            num_files: members.len(),
            edges: inner,
        }
    }

    fn edges(&self) -> Edges {
        let mut edges = Edges::new();
        for (from, file) in self.files.iter().enumerate() {
            for path in &file.source.paths {
                let scope = joined(&file.module, &path.scope);
                if let Some((to, name)) = self.target(from, &scope, path) {
                    edges.entry((from, to)).or_default().insert(name);
                }
            }
        }
        edges
    }

    /// The file that `path` leads to and what is named there; `None` for other crates and the modules around `from`.
    fn target(&self, from: usize, scope: &[String], path: &Path) -> Option<(usize, String)> {
        let mut full = self.absolute(scope, &path.names, MAX_STEPS)?;
        for _ in 0..MAX_STEPS {
            let (module, file) = (0..=full.len())
                .rev()
                .map(|length| &full[..length])
                .find_map(|module| self.by_path.get(module).map(|file| (module, *file)))?;
            let rest = &full[module.len()..];
            if let Some(import) = rest.first().and_then(|name| self.import(module, name)) {
                let mut next = self.absolute(module, import, MAX_STEPS)?;
                next.extend_from_slice(&rest[1..]);
                full = next;
                continue;
            }
            let is_around = self.files[from]
                .module
                .starts_with(&self.files[file].module);
            let name = rest.first().or(module.last())?;
            return (!is_around).then(|| (file, name.clone()));
        }
        None
    }

    /// What `name` stands for in `module`, if it was imported there.
    fn import(&self, module: &[String], name: &str) -> Option<&[String]> {
        let file = &self.files[*self.by_path.get(module)?];
        let scope = &module[file.module.len()..];
        file.source
            .imports
            .iter()
            .find(|import| import.name.as_deref() == Some(name) && import.path.scope == scope)
            .map(|import| import.path.names.as_slice())
    }

    /// `names`, written in the module `scope`, from the root of the crate; `None` when they are another crate's.
    fn absolute(&self, scope: &[String], names: &[String], steps: usize) -> Option<Names> {
        let (first, rest) = names.split_first()?;
        let start = match first.as_str() {
            "crate" => Names::new(),
            "self" => scope.to_vec(),
            "super" => scope.split_last()?.1.to_vec(),
            _ => {
                let child = joined(scope, std::slice::from_ref(first));
                if self.by_path.contains_key(&child) {
                    child
                } else {
                    let import = self.import(scope, first)?;
                    self.absolute(scope, import, steps.checked_sub(1)?)?
                }
            }
        };
        match rest.first().map(String::as_str) {
            Some("super") => self.absolute(&start, rest, steps),
            _ => Some(joined(&start, rest)),
        }
    }
}

impl Circle {
    fn finding(&self, root: &FilePath) -> Finding {
        let relative = |path: &FilePath| {
            path.strip_prefix(root)
                .unwrap_or(path)
                .display()
                .to_string()
        };
        let mut message = format!("{} files import each other in a circle", self.num_files);
        for (from, to, names) in &self.edges {
            write!(
                message,
                "\n    {} -> {}: {}",
                relative(from),
                relative(to),
                names.join(", ")
            )
            .expect("writing to a string cannot fail");
        }
        let first = self.first.strip_prefix(root).unwrap_or(&self.first);
        Finding::new(first, 0, message)
    }
}

fn joined(module: &[String], names: &[String]) -> Names {
    [module, names].concat()
}

/// Every file that can be reached over at least one edge.
fn reached_from(from: usize, edges: &Edges) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut pending = vec![from];
    while let Some(file) = pending.pop() {
        for (_, to) in edges
            .range((file, 0)..=(file, usize::MAX))
            .map(|(edge, _)| *edge)
        {
            if reached.insert(to) {
                pending.push(to);
            }
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each circle as its edges, one a line.
    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let files: BTreeMap<&FilePath, &str> = files
            .iter()
            .map(|(path, contents)| (FilePath::new(*path), *contents))
            .collect();
        let read = |path: &FilePath| files.get(path).map(|contents| (*contents).to_owned());
        Modules::read(FilePath::new("lib.rs"), &read)
            .unwrap()
            .circles()
            .iter()
            .map(|circle| {
                let message = circle.finding(FilePath::new("")).message;
                let edges: Vec<_> = message.lines().skip(1).map(str::trim).collect();
                edges.join("; ")
            })
            .collect()
    }

    #[test]
    fn two_files_that_import_each_other_are_a_circle() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "pub struct B(super::a::A);"),
        ];
        assert_eq!(circles(&files), ["a.rs -> b.rs: B; b.rs -> a.rs: A"]);
    }

    #[test]
    fn a_circle_around_other_files_is_one_circle() {
        let files = [
            ("lib.rs", "mod a; mod b; mod c; mod d;"),
            ("a.rs", "use crate::{b, d::D}; fn f() { b::g(); }"),
            ("b.rs", "use crate::c; pub fn g() { c::h() }"),
            ("c.rs", "pub fn h() { crate::a::f() }"),
            ("d.rs", "pub struct D;"),
        ];
        assert_eq!(
            circles(&files),
            ["a.rs -> b.rs: b, g; b.rs -> c.rs: c, h; c.rs -> a.rs: f"]
        );
    }

    #[test]
    fn a_module_and_its_own_files_are_no_circle() {
        let files = [
            ("lib.rs", "mod a;"),
            (
                "a.rs",
                "mod x; mod y; pub use x::X; struct A; fn f() { y::g() }",
            ),
            ("a/x.rs", "use super::A; pub struct X(A);"),
            ("a/y.rs", "use super::{A, X}; pub fn g(_: A, _: X) {}"),
        ];
        assert_eq!(circles(&files), [""; 0]);
    }

    #[test]
    fn a_name_that_the_parent_hands_on_leads_to_its_file() {
        let files = [
            ("lib.rs", "mod a; mod b; pub use a::A;"),
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            ("b.rs", "use crate::A; pub struct B(A);"),
        ];
        assert_eq!(circles(&files), ["a.rs -> b.rs: B; b.rs -> a.rs: A"]);
    }

    #[test]
    fn a_module_is_passed_through_for_what_it_hands_on() {
        let files = |named| {
            [
                ("lib.rs", "mod a; mod b;"),
                (
                    "a/mod.rs",
                    "mod x; mod y; pub use self::x::X; pub use y::Y; pub struct A;",
                ),
                ("a/x.rs", "use crate::b::B; pub struct X(B);"),
                ("a/y.rs", "pub struct Y;"),
                ("b.rs", named),
            ]
        };
        assert_eq!(
            circles(&files("use crate::a::Y; pub struct B(Y);")),
            [""; 0]
        );
        assert_eq!(
            circles(&files("use crate::a::X; pub struct B(X);")),
            ["a/x.rs -> b.rs: B; b.rs -> a/x.rs: X"]
        );
        assert_eq!(
            circles(&files("use crate::a::A; pub struct B(A);")),
            ["a/mod.rs -> a/x.rs: X; a/x.rs -> b.rs: B; b.rs -> a/mod.rs: A"]
        );
    }

    #[test]
    fn tests_and_doc_links_make_no_circle() {
        let files = [
            ("lib.rs", "mod a; mod b; #[cfg(test)] mod testing;"),
            (
                "a.rs",
                "use crate::b::B; #[cfg(test)] mod tests { use crate::testing::t; }",
            ),
            (
                "b.rs",
                "/// Of [`crate::a::A`].\npub struct B; #[cfg(test)] mod tests { use crate::a::A; }",
            ),
        ];
        assert_eq!(circles(&files), [""; 0]);
    }

    #[test]
    fn other_crates_and_names_that_mean_themselves_lead_nowhere() {
        let files = [
            ("lib.rs", "mod a; use serde; use x::x;"),
            (
                "a.rs",
                "use crate::{serde, x}; use burn::a::A; fn f() { x::y(); serde::z(); }",
            ),
        ];
        assert_eq!(circles(&files), [""; 0]);
    }

    #[test]
    fn a_declared_module_without_a_file_is_an_error() {
        let read = |path: &FilePath| (path == FilePath::new("lib.rs")).then(|| "mod a;".to_owned());
        let error = Modules::read(FilePath::new("lib.rs"), &read).unwrap_err();
        assert!(error.to_string().contains("no file for a"), "{error}");
    }
}
