//! From a file to texts: what kind it is, its notice left out, cut at line ends within bounds.

use std::path::Path;

use sha2::{Digest as _, Sha256};

/// Changing it chooses other texts.
const SEED: &str = "quickstart 1";

/// Larger files are tables and generated bindings.
pub(crate) const MAX_FILE_BYTES: u64 = 200_000;

/// Bounds of a text.
const MIN_BYTES: usize = 600;
const MAX_BYTES: usize = 1000;

/// Pieces taken from one file, so that no long file dominates its kind. Licences are few.
const MAX_PIECES_PER_FILE: usize = 3;

/// Letters among the characters of a text that are not blank, at least; the rest are tables of digits.
const MIN_LETTERS: f64 = 0.6;

/// What a text is; the label in the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    C,
    Licence,
    Prose,
    Rust,
    Toml,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] = [Self::C, Self::Licence, Self::Prose, Self::Rust, Self::Toml];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Licence => "licence",
            Self::Prose => "prose",
            Self::Rust => "rust",
            Self::Toml => "toml",
        }
    }

    pub(crate) fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let upper = name.to_uppercase();
        let is_licence = ["LICENSE", "LICENCE", "COPYING", "UNLICENSE"]
            .iter()
            .any(|start| upper.starts_with(start));
        if is_licence {
            return Some(Self::Licence);
        }
        // Cargo rewrites a published manifest; the author's own is beside it.
        match name {
            "Cargo.toml" => return None,
            "Cargo.toml.orig" => return Some(Self::Toml),
            _ => {}
        }
        match path.extension()?.to_str()? {
            "c" | "h" => Some(Self::C),
            "md" => Some(Self::Prose),
            "rs" => Some(Self::Rust),
            "toml" => Some(Self::Toml),
            _ => None,
        }
    }
}

/// One text with where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) text: String,
    pub(crate) kind: Kind,
    /// `crate-version/path:line`.
    pub(crate) source: String,
}

/// Cuts a file at line ends into texts within the bounds, and draws a few of them.
pub(crate) fn pieces(contents: &str, kind: Kind, name: &str) -> Vec<Document> {
    let contents = contents.replace("\r\n", "\n");
    let (skipped, body) = without_notice(&contents, kind);
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut first_line = skipped;
    for (line_idx, line) in body.split_inclusive('\n').enumerate() {
        if text.len() + line.len() > MAX_BYTES {
            pieces.push((first_line, std::mem::take(&mut text)));
        }
        if text.is_empty() {
            first_line = skipped + line_idx;
        }
        text.push_str(line);
    }
    pieces.push((first_line, text));

    let mut documents: Vec<Document> = pieces
        .into_iter()
        .map(|(line_idx, text)| Document {
            text: text.trim().to_owned(),
            kind,
            source: format!("{name}:{}", line_idx + 1),
        })
        // A line longer than a text is data, not prose or code.
        .filter(|document| (MIN_BYTES..=MAX_BYTES).contains(&document.text.len()))
        .filter(|document| is_writing(&document.text))
        .collect();
    if kind != Kind::Licence {
        documents.sort_by_cached_key(|document| draw(&document.source));
        documents.truncate(MAX_PIECES_PER_FILE);
    }
    documents
}

fn is_writing(text: &str) -> bool {
    let visible = text.chars().filter(|c| !c.is_whitespace()).count();
    let letters = text.chars().filter(|c| c.is_alphabetic()).count();
    letters as f64 >= MIN_LETTERS * visible as f64
}

/// Leaves out the copyright notice at the top of a source file, which is the same in all files of a crate.
/// Returns the number of lines left out and the rest.
fn without_notice(contents: &str, kind: Kind) -> (usize, &str) {
    let is_notice: fn(&str) -> bool = match kind {
        Kind::C => |line| {
            ["/*", "*", "//"]
                .iter()
                .any(|start| line.starts_with(start))
        },
        Kind::Rust => |line| line.starts_with("//") && !line.starts_with("//!"),
        Kind::Toml => |line| line.starts_with('#'),
        Kind::Licence | Kind::Prose => return (0, contents),
    };
    let mut skipped = 0;
    let mut rest = contents;
    let mut in_block = false;
    while let Some(line) = rest.split_inclusive('\n').next() {
        let trimmed = line.trim();
        let opens = kind == Kind::C && trimmed.starts_with("/*");
        if !(in_block || trimmed.is_empty() || is_notice(trimmed)) {
            break;
        }
        in_block = (in_block || opens) && !trimmed.contains("*/");
        skipped += 1;
        rest = &rest[line.len()..];
    }
    (skipped, rest)
}

/// A pseudo-random number that depends on `name` alone: the same on every machine.
pub(crate) fn draw(name: &str) -> u64 {
    let digest = Sha256::new()
        .chain_update(SEED)
        .chain_update(name)
        .finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("SHA-256 has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stay_within_their_bounds_and_name_their_line() {
        let lines: Vec<String> = (0..2000)
            .map(|idx| format!("this is line number {idx}"))
            .collect();
        let long = lines.join("\n");
        let documents = pieces(&long, Kind::Prose, "x-1/README.md");
        assert_eq!(documents.len(), MAX_PIECES_PER_FILE);
        for document in &documents {
            assert!((MIN_BYTES..=MAX_BYTES).contains(&document.text.len()));
            let line: usize = document.source.rsplit(':').next().unwrap().parse().unwrap();
            assert!(
                document
                    .text
                    .starts_with(&format!("this is line number {}\n", line - 1))
            );
        }
        assert!(pieces(&"x".repeat(9000), Kind::Prose, "x").is_empty());
        assert!(pieces("", Kind::Prose, "x").is_empty());
    }

    #[test]
    fn tables_of_numbers_are_not_writing() {
        assert!(is_writing("let total = left + right;"));
        assert!(!is_writing("(0x2c80, 0x2c81), (0x2c82, 0x2c83),"));
    }

    #[test]
    fn notices_at_the_top_are_left_out() {
        assert_eq!(
            without_notice("/* Copyright\n   us */\n\nint x;\n", Kind::C),
            (3, "int x;\n")
        );
        assert_eq!(
            without_notice("// Copyright\n//! Docs.\n", Kind::Rust),
            (1, "//! Docs.\n")
        );
        assert_eq!(
            without_notice("# Generated\n[package]\n", Kind::Toml),
            (1, "[package]\n")
        );
        assert_eq!(without_notice("# Title\n", Kind::Prose), (0, "# Title\n"));
        assert_eq!(without_notice("/* never closed\n", Kind::C), (1, ""));
    }

    #[test]
    fn kinds_are_known_by_name() {
        let kind = |name: &str| Kind::of(Path::new(name));
        assert_eq!(kind("LICENSE-MIT"), Some(Kind::Licence));
        assert_eq!(kind("LICENSE.md"), Some(Kind::Licence));
        assert_eq!(kind("Cargo.toml"), None);
        assert_eq!(kind("Cargo.toml.orig"), Some(Kind::Toml));
        assert_eq!(kind("src/a.h"), Some(Kind::C));
        assert_eq!(kind("a.png"), None);
    }
}
