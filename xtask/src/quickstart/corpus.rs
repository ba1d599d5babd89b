//! A mixed corpus from the sources of the dependencies: prose, Rust, C, TOML and licences.
//!
//! The same sources give the same corpus, byte for byte. A crate is either for training or for testing, a text
//! that repeats another is dropped, and no kind outnumbers another by plan; licences are fewer, because
//! hardly any two of them say something different.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::near_duplicates::Seen;
use super::sources::CrateSource;
use crate::files;

/// Bounds of a gathered corpus.
#[derive(Debug, Clone)]
pub(crate) struct CorpusSize {
    /// Texts of each kind for training, at most.
    pub(crate) train_per_kind: usize,
    /// Texts of each kind for testing, at most.
    pub(crate) test_per_kind: usize,
    /// A kind with fewer texts on either side is left out.
    pub(crate) least_per_side: usize,
    pub(crate) min_bytes: usize,
    pub(crate) max_bytes: usize,
}

impl Default for CorpusSize {
    fn default() -> Self {
        Self {
            train_per_kind: 96,
            test_per_kind: 24,
            least_per_side: 4,
            min_bytes: 600,
            max_bytes: 2000,
        }
    }
}

/// Changing it chooses other texts.
const SEED: &str = "quickstart 1";

/// Larger files are tables and generated bindings.
const MAX_FILE_BYTES: u64 = 200_000;

/// Pieces taken from one file, so that a long file does not speak for its kind.
const MAX_PIECES_PER_FILE: usize = 3;

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
    const ALL: [Self; 5] = [Self::C, Self::Licence, Self::Prose, Self::Rust, Self::Toml];

    fn label(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Licence => "licence",
            Self::Prose => "prose",
            Self::Rust => "rust",
            Self::Toml => "toml",
        }
    }

    fn of(path: &Path) -> Option<Self> {
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

/// The gathered texts, in an order that mixes the kinds.
#[derive(Debug, Default)]
pub(crate) struct Corpus {
    pub(crate) train: Vec<Document>,
    pub(crate) test: Vec<Document>,
}

impl Corpus {
    /// A line for each kind.
    pub(crate) fn summary(&self) -> String {
        let count = |documents: &[Document], kind| {
            documents
                .iter()
                .filter(|document| document.kind == kind)
                .count()
        };
        let bytes: usize = self
            .train
            .iter()
            .chain(&self.test)
            .map(|d| d.text.len())
            .sum();
        let mut lines = vec![format!("{} kB of text", bytes / 1000)];
        for kind in Kind::ALL {
            let (train, test) = (count(&self.train, kind), count(&self.test, kind));
            if train == 0 {
                lines.push(format!("  {:<8} left out, too few texts", kind.label()));
            } else {
                lines.push(format!(
                    "  {:<8} {train:>3} to train, {test:>3} to test",
                    kind.label()
                ));
            }
        }
        lines.join("\n")
    }
}

/// Candidate texts of one kind, by crate.
type Shelf = BTreeMap<String, Vec<Document>>;

/// Gathers a corpus within `size`; an error when there is too little to learn from.
pub(crate) fn gather(sources: &[CrateSource], size: &CorpusSize) -> anyhow::Result<Corpus> {
    let shelves = shelves(sources, size)?;
    let for_testing = choose_test_crates(&shelves, size);
    let mut seen = Seen::default();
    let mut corpus = Corpus::default();
    for kind in Kind::ALL {
        let Some(shelf) = shelves.get(&kind) else {
            continue;
        };
        let train = take(
            shelf,
            |name| !for_testing.contains(name),
            size.train_per_kind,
            &mut seen,
        );
        let test = take(
            shelf,
            |name| for_testing.contains(name),
            size.test_per_kind,
            &mut seen,
        );
        if train.len().min(test.len()) >= size.least_per_side {
            corpus.train.extend(train);
            corpus.test.extend(test);
        }
    }
    let num_kinds = corpus
        .train
        .iter()
        .map(|d| d.kind)
        .collect::<BTreeSet<_>>()
        .len();
    ensure!(
        num_kinds >= 2,
        "the sources of {} crates hold {num_kinds} kinds of text with enough examples, at least 2 are needed; \
         use --data with texts of your own",
        sources.len()
    );
    for side in [&mut corpus.train, &mut corpus.test] {
        side.sort_by_cached_key(|document| draw(&document.source));
    }
    Ok(corpus)
}

/// Writes `text`, `label` and `source` of each document, one JSON object a line.
pub(crate) fn write(documents: &[Document], path: &Path) -> anyhow::Result<()> {
    let mut lines = String::new();
    for document in documents {
        let row = json!({
            "text": document.text,
            "label": document.kind.label(),
            "source": document.source,
        });
        lines.push_str(&row.to_string());
        lines.push('\n');
    }
    files::write_atomically(path, lines.as_bytes())
}

fn shelves(sources: &[CrateSource], size: &CorpusSize) -> anyhow::Result<HashMap<Kind, Shelf>> {
    let mut shelves: HashMap<Kind, Shelf> = HashMap::new();
    for source in sources {
        for path in files::walk(&source.dir)? {
            let Some(kind) = Kind::of(&path) else {
                continue;
            };
            let length = path.metadata().map_or(u64::MAX, |data| data.len());
            if length > MAX_FILE_BYTES {
                continue;
            }
            // Some test data is not UTF-8; there is plenty that is.
            let Ok(contents) = std::fs::read_to_string(&path) else {
                continue;
            };
            let inner = path
                .strip_prefix(&source.dir)
                .context("a file lies in its folder")?;
            // `/` on every system, so that the corpus is the same.
            let inner: Vec<_> = inner.iter().map(|part| part.to_string_lossy()).collect();
            let name = format!("{}/{}", source.name, inner.join("/"));
            let documents = pieces(&contents, kind, &name, size);
            if !documents.is_empty() {
                let shelf = shelves.entry(kind).or_default();
                shelf
                    .entry(source.name.clone())
                    .or_default()
                    .extend(documents);
            }
        }
    }
    Ok(shelves)
}

/// Cuts a file at line ends into texts within the bounds, and draws a few of them.
fn pieces(contents: &str, kind: Kind, name: &str, size: &CorpusSize) -> Vec<Document> {
    let contents = contents.replace("\r\n", "\n");
    let (skipped, body) = without_notice(&contents, kind);
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut first_line = skipped;
    for (line_idx, line) in body.split_inclusive('\n').enumerate() {
        if text.len() + line.len() > size.max_bytes {
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
        // A line longer than a text is data, not writing.
        .filter(|document| (size.min_bytes..=size.max_bytes).contains(&document.text.len()))
        .collect();
    documents.sort_by_cached_key(|document| draw(&document.source));
    documents.truncate(MAX_PIECES_PER_FILE);
    documents
}

/// Leaves out the copyright notice at the top of a source file, which is the same in all files of a crate.
/// Answers with the number of lines left out and the rest.
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

/// Draws crates for testing until each kind has its share there, the kind in fewest crates first.
fn choose_test_crates(shelves: &HashMap<Kind, Shelf>, size: &CorpusSize) -> BTreeSet<String> {
    let mut kinds: Vec<Kind> = shelves.keys().copied().collect();
    kinds.sort_by_key(|kind| (shelves[kind].len(), *kind));
    let mut decided: BTreeMap<&str, bool> = BTreeMap::new();
    for kind in kinds {
        let shelf = &shelves[&kind];
        let num_texts: usize = shelf.values().map(Vec::len).sum();
        // Repetitions fall away later, hence more than the plan.
        let wanted = (3 * size.test_per_kind).min(num_texts / 4);
        let count = |decided: &BTreeMap<&str, bool>| -> usize {
            shelf
                .iter()
                .filter(|(name, _)| decided.get(name.as_str()) == Some(&true))
                .map(|(_, documents)| documents.len())
                .sum()
        };
        let mut open: Vec<&String> = shelf
            .keys()
            .filter(|name| !decided.contains_key(name.as_str()))
            .collect();
        open.sort_by_cached_key(|name| draw(name));
        // The crate with most texts trains, or there would be nothing to train on where two crates are all.
        let largest = shelf
            .iter()
            .max_by_key(|(name, texts)| (texts.len(), *name))
            .map(|(name, _)| name);
        for name in open {
            let tests = Some(name) != largest && count(&decided) < wanted;
            decided.insert(name, tests);
        }
    }
    decided
        .into_iter()
        .filter(|(_, tests)| *tests)
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// One text of each crate in turn, until there are `count` or none is left.
fn take(
    shelf: &Shelf,
    belongs: impl Fn(&String) -> bool,
    count: usize,
    seen: &mut Seen,
) -> Vec<Document> {
    let mut crates: Vec<(u64, Vec<&Document>)> = shelf
        .iter()
        .filter(|(name, _)| belongs(name))
        .map(|(name, documents)| {
            let mut drawn: Vec<_> = documents.iter().collect();
            drawn.sort_by_cached_key(|document| draw(&document.source));
            drawn.reverse();
            (draw(name), drawn)
        })
        .collect();
    crates.sort_by_key(|(place, _)| *place);

    let mut taken = Vec::new();
    while taken.len() < count && crates.iter().any(|(_, left)| !left.is_empty()) {
        for (_, left) in &mut crates {
            if taken.len() == count {
                break;
            }
            // Skip repetitions right away: the turn goes to a text that is taken.
            while let Some(document) = left.pop() {
                if seen.take(&document.text) {
                    taken.push(document.clone());
                    break;
                }
            }
        }
    }
    taken
}

/// A number that is random to the eye and the same on every machine.
fn draw(name: &str) -> u64 {
    let digest = Sha256::new()
        .chain_update(SEED)
        .chain_update(name)
        .finalize();
    u64::from_be_bytes(digest[..8].try_into().expect("SHA-256 has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A crate folder with `num_files` files of each given name, all with words of their own.
    fn crate_with(root: &Path, name: &str, files: &[&str], num_files: usize) -> CrateSource {
        let dir = root.join(name);
        for file_idx in 0..num_files {
            let folder = dir.join(format!("part{file_idx}"));
            std::fs::create_dir_all(&folder).unwrap();
            for file in files {
                let words: Vec<String> = (0..120)
                    .map(|word_idx| {
                        format!("w{:x}", draw(&format!("{name}{file}{file_idx}{word_idx}")))
                    })
                    .collect();
                let text = words.join("\n");
                files::write_atomically(&folder.join(file), text.as_bytes()).unwrap();
            }
        }
        CrateSource {
            name: name.to_owned(),
            dir,
        }
    }

    fn small() -> CorpusSize {
        CorpusSize {
            train_per_kind: 12,
            test_per_kind: 5,
            least_per_side: 2,
            ..CorpusSize::default()
        }
    }

    fn crate_of(document: &Document) -> &str {
        document.source.split('/').next().unwrap()
    }

    #[test]
    fn training_and_testing_texts_come_from_different_crates() {
        let dir = tempfile::tempdir().unwrap();
        let sources: Vec<_> = (0..8)
            .map(|idx| {
                crate_with(
                    dir.path(),
                    &format!("crate{idx}-1.0.0"),
                    &["README.md", "lib.rs"],
                    4,
                )
            })
            .collect();
        let corpus = gather(&sources, &small()).unwrap();
        let train: BTreeSet<_> = corpus.train.iter().map(crate_of).collect();
        let test: BTreeSet<_> = corpus.test.iter().map(crate_of).collect();
        assert!(train.is_disjoint(&test));
        assert_eq!(corpus.train.len(), 24);
        assert_eq!(corpus.test.len(), 10);
    }

    #[test]
    fn a_kind_that_two_crates_have_is_on_both_sides() {
        let dir = tempfile::tempdir().unwrap();
        let mut sources: Vec<_> = (0..6)
            .map(|idx| crate_with(dir.path(), &format!("rust{idx}-1.0.0"), &["lib.rs"], 4))
            .collect();
        sources.push(crate_with(dir.path(), "few-sys-1.0.0", &["a.c"], 5));
        sources.push(crate_with(dir.path(), "many-sys-1.0.0", &["a.c"], 15));
        let corpus = gather(&sources, &small()).unwrap();
        assert!(corpus.train.iter().any(|d| d.kind == Kind::C));
        assert!(corpus.test.iter().any(|d| d.kind == Kind::C));
    }

    #[test]
    fn the_same_sources_give_the_same_corpus() {
        let dir = tempfile::tempdir().unwrap();
        let sources: Vec<_> = (0..6)
            .map(|idx| {
                crate_with(
                    dir.path(),
                    &format!("crate{idx}-1.0.0"),
                    &["README.md", "lib.rs"],
                    4,
                )
            })
            .collect();
        let written = |name: &str| {
            let path = dir.path().join(name);
            write(&gather(&sources, &small()).unwrap().train, &path).unwrap();
            std::fs::read_to_string(path).unwrap()
        };
        let first = written("first.jsonl");
        assert_eq!(first, written("second.jsonl"));
        let row: serde_json::Value = serde_json::from_str(first.lines().next().unwrap()).unwrap();
        let keys: Vec<_> = row.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["label", "source", "text"]);
    }

    #[test]
    fn a_corpus_that_is_too_small_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let one_kind: Vec<_> = (0..6)
            .map(|idx| crate_with(dir.path(), &format!("crate{idx}-1.0.0"), &["lib.rs"], 4))
            .collect();
        let error = gather(&one_kind, &small()).unwrap_err().to_string();
        assert!(
            error.contains("1 kinds of text") && error.contains("--data"),
            "{error}"
        );
        assert!(gather(&[], &small()).is_err());
        let one_crate = [crate_with(
            dir.path(),
            "alone-1.0.0",
            &["lib.rs", "README.md"],
            9,
        )];
        assert!(
            gather(&one_crate, &small()).is_err(),
            "one crate cannot be on both sides"
        );
    }

    #[test]
    fn texts_stay_within_their_bounds_and_know_their_line() {
        let size = CorpusSize::default();
        let lines: Vec<String> = (0..2000).map(|idx| format!("line number {idx}")).collect();
        let long = lines.join("\n");
        let documents = pieces(&long, Kind::Prose, "x-1/README.md", &size);
        assert_eq!(documents.len(), MAX_PIECES_PER_FILE);
        for document in &documents {
            assert!((size.min_bytes..=size.max_bytes).contains(&document.text.len()));
            let line: usize = document.source.rsplit(':').next().unwrap().parse().unwrap();
            assert!(
                document
                    .text
                    .starts_with(&format!("line number {}\n", line - 1))
            );
        }
        assert!(pieces(&"x".repeat(9000), Kind::Prose, "x", &size).is_empty());
        assert!(pieces("", Kind::Prose, "x", &size).is_empty());
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
    fn kinds_are_told_by_name() {
        let kind = |name: &str| Kind::of(Path::new(name));
        assert_eq!(kind("LICENSE-MIT"), Some(Kind::Licence));
        assert_eq!(kind("LICENSE.md"), Some(Kind::Licence));
        assert_eq!(kind("Cargo.toml"), None);
        assert_eq!(kind("Cargo.toml.orig"), Some(Kind::Toml));
        assert_eq!(kind("src/a.h"), Some(Kind::C));
        assert_eq!(kind("a.png"), None);
    }
}
