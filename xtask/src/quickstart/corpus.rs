//! A mixed corpus from the sources of the dependencies: prose, Rust, C, TOML and licences.
//!
//! The same sources give the same corpus, byte for byte. A crate is either for training or for testing, a text
//! that repeats another is dropped, and all kinds have as many texts where there are enough; licences have
//! fewer, because most repeat another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::documents::{Document, Kind, MAX_FILE_BYTES, draw, pieces};
use super::near_duplicates::Seen;
use super::sources::CrateSource;
use crate::files;

/// Bounds of a gathered corpus.
#[derive(Debug, Clone)]
pub(crate) struct CorpusSize {
    /// Texts of each kind for training, at most.
    pub(crate) train_per_kind: usize,
    /// Texts of each kind for choosing the best epoch, at most; from the crates of the training texts.
    pub(crate) valid_per_kind: usize,
    /// Texts of each kind for testing, at most; from crates of their own.
    pub(crate) test_per_kind: usize,
    /// A kind with fewer texts on either side is left out.
    pub(crate) least_per_side: usize,
}

impl Default for CorpusSize {
    fn default() -> Self {
        Self {
            train_per_kind: 48,
            valid_per_kind: 6,
            test_per_kind: 14,
            least_per_side: 4,
        }
    }
}

/// Texts of a kind looked at in one crate, at least.
const MIN_CANDIDATES: usize = 12;

/// The gathered texts, in an order that mixes the kinds.
#[derive(Debug, Default)]
pub(crate) struct Corpus {
    pub(crate) train: Vec<Document>,
    pub(crate) valid: Vec<Document>,
    pub(crate) test: Vec<Document>,
}

impl Corpus {
    /// A line for each kind.
    pub(crate) fn summary(&self) -> String {
        let sides = [&self.train, &self.valid, &self.test];
        let bytes: usize = sides.into_iter().flatten().map(|d| d.text.len()).sum();
        let mut lines = vec![format!("{} kB of text", bytes / 1000)];
        for kind in Kind::ALL {
            let count = |side: &Vec<Document>| side.iter().filter(|d| d.kind == kind).count();
            let [train, valid, test] = sides.map(count);
            let label = kind.label();
            lines.push(if train == 0 {
                format!("  {label:<8} left out, too few texts")
            } else {
                format!(
                    "  {label:<8} {train:>3} to train, {valid:>2} to validate, {test:>2} to test"
                )
            });
        }
        lines.join("\n")
    }
}

/// Candidate texts of one kind, by crate.
type ByCrate = BTreeMap<String, Vec<Document>>;

/// Gathers a corpus within `size`; an error when there is too little to learn from.
pub(crate) fn gather(sources: &[CrateSource], size: &CorpusSize) -> anyhow::Result<Corpus> {
    let candidates = without_repetitions(candidates(sources)?, size);
    let for_testing = choose_test_crates(&candidates, size);
    let mut corpus = Corpus::default();
    for by_crate in candidates.values() {
        let wanted = size.train_per_kind + size.valid_per_kind;
        let mut valid = take(by_crate, |name| !for_testing.contains(name), wanted);
        let num_valid = size.valid_per_kind.min(valid.len() / 6);
        let train = valid.split_off(num_valid);
        let test = take(
            by_crate,
            |name| for_testing.contains(name),
            size.test_per_kind,
        );
        if train.len().min(test.len()) >= size.least_per_side {
            corpus.train.extend(train);
            corpus.valid.extend(valid);
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
    for side in [&mut corpus.train, &mut corpus.valid, &mut corpus.test] {
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

fn candidates(sources: &[CrateSource]) -> anyhow::Result<BTreeMap<Kind, ByCrate>> {
    let mut candidates = BTreeMap::<Kind, ByCrate>::new();
    for source in sources {
        for path in files::walk(&source.dir)? {
            let Some(kind) = Kind::of(&path) else {
                continue;
            };
            let length = path.metadata().map_or(u64::MAX, |data| data.len());
            if length > MAX_FILE_BYTES {
                continue;
            }
            // Some test data is not UTF-8.
            let Ok(contents) = std::fs::read_to_string(&path) else {
                continue;
            };
            let inner = path
                .strip_prefix(&source.dir)
                .context("a file lies in its folder")?;
            // `/` on every system, so that the corpus is the same.
            let inner: Vec<_> = inner.iter().map(|part| part.to_string_lossy()).collect();
            let name = format!("{}/{}", source.name, inner.join("/"));
            let documents = pieces(&contents, kind, &name);
            if !documents.is_empty() {
                let by_crate = candidates.entry(kind).or_default();
                let texts = by_crate.entry(source.name.clone()).or_default();
                texts.extend(documents);
            }
        }
    }
    Ok(candidates)
}

/// Drops every text that repeats one of a crate drawn before it, of whatever kind.
fn without_repetitions(
    mut candidates: BTreeMap<Kind, ByCrate>,
    size: &CorpusSize,
) -> BTreeMap<Kind, ByCrate> {
    let mut seen = Seen::default();
    for by_crate in candidates.values_mut() {
        // Where few crates have a kind, each has to give more of it.
        let wanted = size.train_per_kind + size.valid_per_kind + size.test_per_kind;
        let per_crate = (4 * wanted / by_crate.len().max(1)).max(MIN_CANDIDATES);
        for (_, documents) in drawn(by_crate.iter_mut()) {
            documents.sort_by_cached_key(|document| draw(&document.source));
            documents.truncate(per_crate);
            documents.retain(|document| seen.take(&document.text));
        }
        by_crate.retain(|_, documents| !documents.is_empty());
    }
    candidates
}

/// Draws crates for testing until each kind has its share there, the kind in fewest crates first.
fn choose_test_crates(candidates: &BTreeMap<Kind, ByCrate>, size: &CorpusSize) -> BTreeSet<String> {
    let mut by_rarity: Vec<&ByCrate> = candidates.values().collect();
    by_rarity.sort_by_key(|by_crate| by_crate.len());
    let mut is_for_testing: BTreeMap<&String, bool> = BTreeMap::new();
    for by_crate in by_rarity {
        let num_texts: usize = by_crate.values().map(Vec::len).sum();
        let wanted = size.test_per_kind.min(num_texts / 5);
        // The crate with most texts trains, or two crates would leave no texts to train on.
        let largest = by_crate
            .iter()
            .max_by_key(|(name, texts)| (texts.len(), *name));
        if let Some((name, _)) = largest {
            is_for_testing.entry(name).or_insert(false);
        }
        let mut num_tests: usize = by_crate
            .iter()
            .filter(|(name, _)| is_for_testing.get(name) == Some(&true))
            .map(|(_, texts)| texts.len())
            .sum();
        for (name, texts) in drawn(by_crate.iter()) {
            is_for_testing.entry(name).or_insert_with(|| {
                let is_wanted = num_tests < wanted;
                num_tests += if is_wanted { texts.len() } else { 0 };
                is_wanted
            });
        }
    }
    is_for_testing.retain(|_, tests| *tests);
    is_for_testing.into_keys().cloned().collect()
}

/// One text of each crate in turn, until there are `count` or none is left.
fn take(by_crate: &ByCrate, belongs: impl Fn(&String) -> bool, count: usize) -> Vec<Document> {
    let crates = drawn(by_crate.iter().filter(|(name, _)| belongs(name)));
    let rounds = crates.iter().map(|(_, texts)| texts.len()).max();
    (0..rounds.unwrap_or(0))
        .flat_map(|round| crates.iter().filter_map(move |(_, texts)| texts.get(round)))
        .take(count)
        .cloned()
        .collect()
}

/// Crates with their texts in an order drawn by their names.
fn drawn<'a, T>(by_crate: impl Iterator<Item = (&'a String, T)>) -> Vec<(&'a String, T)> {
    let mut crates: Vec<_> = by_crate.collect();
    crates.sort_by_cached_key(|(name, _)| draw(name));
    crates
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
                    .map(|word_idx| word(draw(&format!("{name}{file}{file_idx}{word_idx}"))))
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

    /// `num` crates with four files of each given name.
    fn crates(root: &Path, num: usize, files: &[&str]) -> Vec<CrateSource> {
        (0..num)
            .map(|idx| crate_with(root, &format!("crate{idx}-1.0.0"), files, 4))
            .collect()
    }

    /// A word of ten letters.
    fn word(mut number: u64) -> String {
        std::iter::repeat_with(|| {
            number /= 26;
            char::from(b'a' + u8::try_from(number % 26).unwrap())
        })
        .take(10)
        .collect()
    }

    fn small() -> CorpusSize {
        CorpusSize {
            train_per_kind: 12,
            valid_per_kind: 2,
            test_per_kind: 5,
            least_per_side: 2,
        }
    }

    fn crate_of(document: &Document) -> &str {
        document.source.split('/').next().unwrap()
    }

    #[test]
    fn training_and_testing_texts_come_from_different_crates() {
        let dir = tempfile::tempdir().unwrap();
        let sources = crates(dir.path(), 8, &["README.md", "lib.rs"]);
        let corpus = gather(&sources, &small()).unwrap();
        let train: BTreeSet<_> = corpus.train.iter().map(crate_of).collect();
        let test: BTreeSet<_> = corpus.test.iter().map(crate_of).collect();
        assert!(train.is_disjoint(&test));
        let trained: BTreeSet<_> = corpus.train.iter().map(|d| &d.source).collect();
        assert_eq!(corpus.valid.len(), 4);
        assert!(corpus.valid.iter().all(|d| !trained.contains(&d.source)));
        assert_eq!(corpus.train.len(), 24);
        assert_eq!(corpus.test.len(), 10);
    }

    #[test]
    fn a_kind_that_two_crates_have_is_on_both_sides() {
        let dir = tempfile::tempdir().unwrap();
        let mut sources = crates(dir.path(), 6, &["lib.rs"]);
        sources.push(crate_with(dir.path(), "few-sys-1.0.0", &["a.c"], 5));
        sources.push(crate_with(dir.path(), "many-sys-1.0.0", &["a.c"], 15));
        let corpus = gather(&sources, &small()).unwrap();
        assert!(corpus.train.iter().any(|d| d.kind == Kind::C));
        assert!(corpus.test.iter().any(|d| d.kind == Kind::C));
    }

    #[test]
    fn the_same_sources_give_the_same_corpus() {
        let dir = tempfile::tempdir().unwrap();
        let sources = crates(dir.path(), 6, &["README.md", "lib.rs"]);
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
        let one_kind = crates(dir.path(), 6, &["lib.rs"]);
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
    fn a_text_that_all_crates_share_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let shared = "the same words in each and every crate stand here ".repeat(20);
        let sources = crates(dir.path(), 6, &["a.md", "lib.rs"]);
        for source in &sources {
            files::write_atomically(&source.dir.join("NOTES.md"), shared.as_bytes()).unwrap();
        }
        let corpus = gather(&sources, &small()).unwrap();
        let all = corpus.train.iter().chain(&corpus.test);
        assert!(
            all.filter(|document| document.text.starts_with("the same words"))
                .count()
                <= 1
        );
    }
}
