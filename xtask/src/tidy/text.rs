//! Rules that look at one text file: module docs, size, silenced lints, features, doctests, links, paths.

use std::path::{Component, Path};

use super::Finding;

/// Lines of code a source file may have before its tests.
const MAX_LINES: usize = 400;

/// Source files that may be longer, each with its reason.
const MAY_BE_LONGER: &[(&str, &str)] = &[(
    "chameleon-models/src/files/gguf.rs",
    "one binary container, read front to back",
)];

/// This folder quotes what it forbids.
const QUOTES_THE_FORBIDDEN: &str = "xtask/src/tidy";

/// The library files that look at a cargo feature: one opens the devices of the backends, one has kernels for one of
/// them, and one has the reference engine of k-means.
const FEATURE_FILES: &[&str] = &[
    "chameleon-core/src/device.rs",
    "chameleon-core/src/fused.rs",
    "chameleon-cluster/src/kmeans.rs",
];

/// Members that read and write nothing: their sources may not name the file system.
const WITHOUT_FILES: &[&str] = &["chameleon-core", "chameleon-cluster", "chameleon-hypernet"];

/// All findings in one file; `path` is relative to `root`.
pub(super) fn check(root: &Path, path: &Path, contents: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let quotes = path.starts_with(QUOTES_THE_FORBIDDEN);
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("rs") => {
            findings.extend(module_docs(path, contents));
            findings.extend(length(path, contents));
            if !quotes {
                findings.extend(lines(
                    path,
                    contents,
                    "lint silenced, use #[expect(.., reason = ..)]",
                    |line| line.contains("#[allow(") || line.contains("#![allow("),
                ));
                findings.extend(features(path, contents));
                findings.extend(file_access(path, contents));
                findings.extend(ignored_doctests(path, contents));
            }
        }
        Some("md") => {
            findings.extend(ignored_doctests(path, contents));
            findings.extend(broken_links(root, path, contents));
        }
        _ => {}
    }
    if !quotes {
        findings.extend(personal_paths(root, path, contents));
    }
    findings
}

/// Every module opens with what it owns, before anything but attributes.
fn module_docs(path: &Path, contents: &str) -> Option<Finding> {
    let opening = contents
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty() && (!line.starts_with("#![") || line.contains("doc =")));
    let documented =
        opening.is_some_and(|line| line.starts_with("//!") || line.starts_with("#![doc ="));
    (!documented).then(|| Finding::new(path, 1, "does not open with `//!` docs"))
}

/// About 400 lines of code a file; comments and the tests at its end do not count.
fn length(path: &Path, contents: &str) -> Option<Finding> {
    let is_tests = path.file_stem().is_some_and(|stem| stem == "tests");
    let in_src = path
        .components()
        .any(|part| part == Component::Normal("src".as_ref()));
    let excused = MAY_BE_LONGER
        .iter()
        .any(|(longer, _)| path == Path::new(longer));
    let is_code = |line: &&str| !line.is_empty() && !line.starts_with("//");
    let lines = code_before_tests(contents)
        .lines()
        .map(str::trim)
        .filter(is_code)
        .count();
    (in_src && !is_tests && !excused && lines > MAX_LINES).then(|| {
        let message = format!(
            "{lines} lines of code before its tests, at most {MAX_LINES}: split it by idea"
        );
        Finding::new(path, 0, message)
    })
}

/// Features become code in a few files of the libraries, and in the program.
fn features(path: &Path, contents: &str) -> Vec<Finding> {
    let may = FEATURE_FILES.iter().any(|file| path == Path::new(file));
    if may || path.starts_with("chameleon-cli") {
        return Vec::new();
    }
    let message = format!(
        "looks at a cargo feature; only {} and the cli do",
        FEATURE_FILES.join(", ")
    );
    lines(path, contents, &message, |line| {
        let squeezed: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        squeezed.contains("cfg") && squeezed.contains("feature=\"")
    })
}

fn file_access(path: &Path, contents: &str) -> Vec<Finding> {
    let without = WITHOUT_FILES
        .iter()
        .any(|member| path.starts_with(Path::new(member).join("src")));
    if !without {
        return Vec::new();
    }
    let message = "touches files; only models and the cli do";
    lines(path, code_before_tests(contents), message, |line| {
        line.contains("std::fs") || line.contains("File::")
    })
}

/// An example that is not compiled goes stale.
fn ignored_doctests(path: &Path, contents: &str) -> Vec<Finding> {
    lines(
        path,
        contents,
        "doctest marked `ignore`; compile it, `no_run` if it needs weights",
        |line| {
            let line = line.trim_start();
            let line = line
                .strip_prefix("///")
                .or_else(|| line.strip_prefix("//!"))
                .unwrap_or(line);
            line.trim_start()
                .strip_prefix("```")
                .is_some_and(|info| info.split(',').any(|word| word.trim() == "ignore"))
        },
    )
}

/// Links of the form `](target)` to files of this checkout must lead somewhere.
fn broken_links(root: &Path, path: &Path, contents: &str) -> Vec<Finding> {
    let folder = root.join(path.parent().unwrap_or(Path::new("")));
    let mut findings = Vec::new();
    for (line_idx, line) in contents.lines().enumerate() {
        for rest in line.split("](").skip(1) {
            let target = rest.split([')', '#', ' ']).next().unwrap_or_default();
            let elsewhere = target.contains(':') || target.starts_with('<');
            if !target.is_empty() && !elsewhere && !folder.join(target).exists() {
                let message = format!("links to {target}, which does not exist");
                findings.push(Finding::new(path, line_idx + 1, message));
            }
        }
    }
    findings
}

/// Paths of one machine are of no use on another.
fn personal_paths(root: &Path, path: &Path, contents: &str) -> Vec<Finding> {
    let mut forbidden: Vec<String> = ["/home/", "/Users/", "C:\\Users\\"]
        .map(str::to_owned)
        .into();
    // The folder around this checkout, unless it is as short as `/src`, which also stands in honest text.
    forbidden.extend(
        root.parent()
            .filter(|parent| parent.components().count() > 2)
            .map(|parent| format!("{}/", parent.display())),
    );
    lines(path, contents, "names a path of one machine", |line| {
        forbidden
            .iter()
            .any(|prefix| line.contains(prefix.as_str()))
    })
}

fn lines(
    path: &Path,
    contents: &str,
    message: &str,
    is_broken: impl Fn(&str) -> bool,
) -> Vec<Finding> {
    contents
        .lines()
        .enumerate()
        .filter(|(_, line)| is_broken(line))
        .map(|(line_idx, _)| Finding::new(path, line_idx + 1, message))
        .collect()
}

fn code_before_tests(contents: &str) -> &str {
    contents
        .find("\n#[cfg(test)]\nmod ")
        .map_or(contents, |end| &contents[..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, contents: &str) -> Vec<String> {
        check(
            Path::new("/nowhere/near/checkout"),
            Path::new(path),
            contents,
        )
        .into_iter()
        .map(|finding| format!("{}: {}", finding.line, finding.message))
        .collect()
    }

    #[test]
    fn a_module_without_docs_is_found() {
        assert_eq!(messages("a/src/x.rs", "//! Owns x.\n"), [""; 0]);
        assert_eq!(messages("a/src/x.rs", "#![no_std]\n//! Owns x.\n"), [""; 0]);
        assert_eq!(
            messages("a/src/lib.rs", "#![doc = include_str!(\"../README.md\")]\n"),
            [""; 0]
        );
        assert_eq!(messages("a/src/x.rs", "use std::fmt;\n").len(), 1);
        assert_eq!(messages("a/src/x.rs", "").len(), 1);
    }

    #[test]
    fn tests_do_not_count_towards_the_length() {
        let code = format!("//! Long.\n{}", "let x = 1;\n".repeat(MAX_LINES));
        assert_eq!(messages("a/src/x.rs", &code), [""; 0]);
        let with_tests = format!(
            "{code}\n#[cfg(test)]\nmod tests {{\n{}}}\n",
            "//\n".repeat(500)
        );
        assert_eq!(messages("a/src/x.rs", &with_tests), [""; 0]);
        let one_more = format!("{code}let y = 2;\n");
        assert_eq!(messages("a/src/x.rs", &one_more).len(), 1);
        assert_eq!(messages("a/tests/it/x.rs", &one_more), [""; 0]);
        assert_eq!(messages("a/src/x/tests.rs", &one_more), [""; 0]);
    }

    #[test]
    fn silenced_lints_are_found() {
        assert_eq!(
            messages("a/src/x.rs", "//! X.\n#[allow(dead_code)]\n").len(),
            1
        );
        assert_eq!(
            messages("a/src/x.rs", "//! X.\n#![allow(unused)]\n").len(),
            1
        );
        assert_eq!(
            messages("a/src/x.rs", "//! X.\n#[expect(unused, reason = \"..\")]\n"),
            [""; 0]
        );
    }

    #[test]
    fn features_belong_to_the_device_file_and_the_cli() {
        let code = "//! X.\n#[cfg(any(feature = \"flex\", test))]\n";
        assert_eq!(messages("chameleon-core/src/batch.rs", code).len(), 1);
        for file in FEATURE_FILES {
            assert_eq!(messages(file, code), [""; 0]);
        }
        assert_eq!(messages("chameleon-cli/src/main.rs", code), [""; 0]);
        assert_eq!(
            messages("chameleon-core/src/x.rs", "//! X.\n#[cfg(test)]\n"),
            [""; 0]
        );
    }

    #[test]
    fn pure_crates_name_no_files_outside_their_tests() {
        let code = "//! X.\nuse std::fs;\n";
        assert_eq!(messages("chameleon-core/src/x.rs", code).len(), 1);
        assert_eq!(messages("chameleon-models/src/x.rs", code), [""; 0]);
        let in_tests = "//! X.\n\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert_eq!(messages("chameleon-core/src/x.rs", in_tests), [""; 0]);
    }

    #[test]
    fn ignored_doctests_are_found_in_sources_and_readmes() {
        assert_eq!(
            messages("a/src/x.rs", "//! X.\n//! ```rust,ignore\n//! ```\n").len(),
            1
        );
        assert_eq!(messages("a/README.md", "```ignore\n```\n").len(), 1);
        assert_eq!(messages("a/README.md", "```rust,no_run\n```\n"), [""; 0]);
    }

    #[test]
    fn links_must_lead_somewhere() {
        assert_eq!(
            messages(
                "README.md",
                "[a](docs/nothing.md) [b](https://example.org)\n"
            )
            .len(),
            1
        );
        assert_eq!(messages("README.md", "[a](#part)\n"), [""; 0]);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        assert_eq!(messages("a.py", "DATA = '/home/somebody/data'\n").len(), 1);
        assert_eq!(messages("a.md", "see /nowhere/near/notes.txt\n").len(), 1);
        assert_eq!(messages("a.md", "see ~/.cache/chameleon\n"), [""; 0]);
    }
}
