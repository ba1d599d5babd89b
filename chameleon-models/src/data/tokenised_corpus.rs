//! A corpus of which only the token ids are kept, and about a hundred bytes for each document and window.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use chameleon_core::{RunSeed, SplitSequence};

use super::cut::{CutDocument, Dropped};
use super::document::{Document, Origin, Place, SkippedInput};
use super::error::DataError;
use super::example::{Example, Examples, Skipped};
use super::split::{Split, SplitFractions, kept, split_by_draws};
use super::token_store::{StoredTokens, TokenWriter};
use super::units::ResamplingUnits;
use super::windows::WindowOptions;

/// The examples of a path, their tokens in one place, and what is known of each document.
#[derive(Debug)]
pub struct TokenisedCorpus {
    token_ids: Arc<StoredTokens>,
    documents: Vec<Entry>,
    windows: Vec<Window>,
    /// Every file once.
    paths: Vec<Arc<Path>>,
    label_names: Vec<String>,
    skipped: SkippedInput,
    longest: usize,
    needed: usize,
}

/// What is kept of a document.
#[derive(Debug)]
struct Entry {
    /// Index into `paths`.
    path_idx: u32,
    place: Place,
    /// Decides its side of a split.
    draw: u64,
    label_idx: Option<u32>,
    source_idx: Option<u32>,
    /// Where its windows begin; they end where those of the next document begin.
    first_window: u32,
    num_dropped: u32,
    dropped: Dropped,
}

/// What is kept of an example.
#[derive(Debug, Clone, Copy)]
struct Window {
    start: usize,
    len: u32,
    boundary: u32,
    prompt: [u32; 2],
    document_idx: u32,
    scored_bytes: u32,
}

impl TokenisedCorpus {
    /// Number of documents, at least one.
    pub fn num_documents(&self) -> usize {
        self.documents.len()
    }

    /// The indices of all documents.
    pub fn all_documents(&self) -> Vec<usize> {
        (0..self.documents.len()).collect()
    }

    /// The label names in the order of their first appearance.
    pub fn label_names(&self) -> &[String] {
        &self.label_names
    }

    /// The name of a document's label.
    ///
    /// # Panics
    /// If there is no such document.
    pub fn label_name(&self, document_idx: usize) -> Option<&str> {
        let label_idx = self.documents[document_idx].label_idx?;
        Some(&self.label_names[label_idx as usize])
    }

    /// Where a document begins.
    ///
    /// # Panics
    /// If there is no such document.
    pub fn origin(&self, document_idx: usize) -> Origin {
        let entry = &self.documents[document_idx];
        Origin {
            path: self.paths[entry.path_idx as usize].clone(),
            place: entry.place,
        }
    }

    /// What the reader passed over.
    pub fn skipped(&self) -> &SkippedInput {
        &self.skipped
    }

    /// Divides the documents as [`split`](super::split()) does, by the seed that the corpus was read with.
    pub fn split(&self, fractions: SplitFractions) -> Split {
        split_by_draws(self.documents.iter().map(|entry| entry.draw), fractions)
    }

    /// What belongs together when scores are resampled.
    pub fn resampling_units(&self) -> ResamplingUnits {
        ResamplingUnits::of_sources(self.documents.iter().map(|entry| entry.source_idx))
    }

    /// The examples of some documents, in their order; the tokens stay where they are.
    ///
    /// # Errors
    /// [`DataError::NoExamples`] if there is none.
    ///
    /// # Panics
    /// If there is no such document.
    pub fn examples(&self, documents: &[usize]) -> Result<Examples, DataError> {
        // Counted first: there may be millions, and a vector that grows holds twice as many.
        let mut examples = Vec::with_capacity(self.windows_of(documents).count());
        examples.extend(
            self.windows_of(documents)
                .map(|window| self.example(window)),
        );
        self.checked(documents, examples)
    }

    /// At most `max_examples` of them, the same number of each label as far as there are enough; examples without a
    /// label count as one label. Which ones is drawn from the seed; their order stays.
    ///
    /// # Errors
    /// As [`examples`](Self::examples).
    ///
    /// # Panics
    /// As [`examples`](Self::examples).
    pub fn limited_examples(
        &self,
        documents: &[usize],
        max_examples: usize,
        seed: RunSeed,
    ) -> Result<Examples, DataError> {
        let labels: Vec<Option<u32>> = self
            .windows_of(documents)
            .map(|window| self.documents[window.document_idx as usize].label_idx)
            .collect();
        let kept = kept(&labels, max_examples, seed);
        let examples = self
            .windows_of(documents)
            .zip(kept)
            .filter(|(_, kept)| *kept)
            .map(|(window, _)| self.example(window))
            .collect();
        self.checked(documents, examples)
    }

    fn windows_of<'a>(&'a self, documents: &'a [usize]) -> impl Iterator<Item = &'a Window> {
        documents.iter().flat_map(|&document_idx| {
            let start = self.documents[document_idx].first_window as usize;
            let end = self
                .documents
                .get(document_idx + 1)
                .map_or(self.windows.len(), |next| next.first_window as usize);
            &self.windows[start..end]
        })
    }

    fn example(&self, window: &Window) -> Example {
        let Window {
            start,
            len,
            boundary,
            prompt,
            document_idx,
            scored_bytes,
        } = *window;
        let range = start..start + len as usize;
        let document_idx = document_idx as usize;
        let label_idx = self.documents[document_idx].label_idx;
        Example {
            sequence: SplitSequence::in_buffer(self.token_ids.clone(), range, boundary as usize)
                .expect("no window is cut with an empty span"),
            prompt: prompt[0] as usize..prompt[1] as usize,
            document_idx,
            label_idx: label_idx.map(|idx| idx as usize),
            scored_bytes: scored_bytes as usize,
        }
    }

    fn checked(&self, documents: &[usize], examples: Vec<Example>) -> Result<Examples, DataError> {
        if examples.is_empty() {
            return Err(DataError::NoExamples {
                num_documents: documents.len(),
                longest: self.longest,
                needed: self.needed,
            });
        }
        let mut skipped = Skipped::default();
        for &document_idx in documents {
            let entry = &self.documents[document_idx];
            skipped.add(entry.dropped, entry.num_dropped as usize);
        }
        Ok(Examples { examples, skipped })
    }
}

/// What was cut so far of a corpus that is being read.
pub(super) struct CorpusWriter {
    writer: TokenWriter,
    documents: Vec<Entry>,
    paths: Vec<Arc<Path>>,
    windows: Vec<Window>,
    labels: LabelNames,
    sources: HashMap<String, u32>,
    longest: usize,
}

impl CorpusWriter {
    /// A corpus without documents, whose token ids may go to a file in `spill_folder`.
    pub(super) fn new(spill_folder: &Path) -> Self {
        Self {
            writer: TokenWriter::new(spill_folder),
            documents: Vec::new(),
            paths: Vec::new(),
            windows: Vec::new(),
            labels: LabelNames::default(),
            sources: HashMap::new(),
            longest: 0,
        }
    }

    /// Whether there is no document.
    pub(super) fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// The corpus.
    pub(super) fn finish(
        self,
        skipped: SkippedInput,
        windows: WindowOptions,
    ) -> Result<TokenisedCorpus, DataError> {
        Ok(TokenisedCorpus {
            token_ids: self.writer.finish()?,
            documents: self.documents,
            windows: self.windows,
            paths: self.paths,
            label_names: self.labels.names,
            skipped,
            longest: self.longest,
            needed: windows.min_len(),
        })
    }

    /// Begins a document without windows.
    pub(super) fn open(&mut self, document: &Document, draw: u64) {
        let label_idx = document
            .label
            .as_ref()
            .map(|name| self.labels.index_of(name));
        let source_idx = document.source.as_ref().map(|source| {
            let next = narrow(self.sources.len());
            *self.sources.entry(source.clone()).or_insert(next)
        });
        let path = &document.origin.path;
        if self.paths.last() != Some(path) {
            self.paths.push(Arc::clone(path));
        }
        self.documents.push(Entry {
            path_idx: narrow(self.paths.len() - 1),
            place: document.origin.place,
            draw,
            label_idx,
            source_idx,
            first_window: narrow(self.windows.len()),
            num_dropped: 0,
            dropped: Dropped::Nothing,
        });
    }

    /// Adds windows to the last document.
    pub(super) fn push(&mut self, found: &CutDocument) -> Result<(), DataError> {
        let document_idx = narrow(self.documents.len() - 1);
        for window in &found.windows {
            let range = self.writer.push(&window.token_ids)?;
            self.windows.push(Window {
                start: range.start,
                len: narrow(range.len()),
                boundary: narrow(window.boundary),
                prompt: [narrow(window.prompt.start), narrow(window.prompt.end)],
                document_idx,
                scored_bytes: narrow(window.scored_bytes),
            });
        }
        self.longest = self.longest.max(found.num_tokens);
        let num_windows = narrow(self.windows.len());
        let entry = self.documents.last_mut().expect("a document was opened");
        entry.num_dropped = entry.num_dropped.saturating_add(narrow(found.num_dropped));
        entry.dropped = match found.dropped {
            // The end of a long text, of which there are windows already.
            Dropped::TooShort if num_windows > entry.first_window => match found.num_dropped {
                0 => Dropped::Nothing,
                _ => Dropped::Tail,
            },
            dropped => dropped,
        };
        Ok(())
    }
}

/// The names of labels and their indices.
#[derive(Debug, Default)]
struct LabelNames {
    names: Vec<String>,
    indices: HashMap<String, u32>,
}

impl LabelNames {
    fn index_of(&mut self, name: &str) -> u32 {
        if let Some(&label_idx) = self.indices.get(name) {
            return label_idx;
        }
        let label_idx = narrow(self.names.len());
        self.names.push(name.to_owned());
        self.indices.insert(name.to_owned(), label_idx);
        label_idx
    }
}

/// Windows and documents are counted in 32 bits: 2^32 of them are terabytes of text.
fn narrow(value: usize) -> u32 {
    u32::try_from(value).expect("fewer than 2^32 documents, and tokens in a window")
}

#[cfg(test)]
mod tests {
    use chameleon_core::RunSeed;

    use super::super::{TokenisedText, tokenise_documents};
    use super::*;

    #[test]
    fn labels_are_numbered_in_the_order_of_their_first_appearance() {
        let names = ["wiki", "code", "wiki", "chat"];
        let documents = names.map(|name| Document {
            label: Some(name.to_owned()),
            ..Document::prose("text", Origin::new(Path::new("memory"), 1))
        });
        let windows = WindowOptions::new(4, 1).unwrap();
        let corpus = tokenise_documents(documents, windows, RunSeed(1), &|text| {
            let num_bytes = text.len();
            Ok(TokenisedText::new(
                vec![0; num_bytes],
                (1..=num_bytes).collect(),
            ))
        })
        .unwrap();
        assert_eq!(corpus.label_names(), ["wiki", "code", "chat"]);
        let found = (0..4).map(|idx| corpus.label_name(idx).unwrap());
        assert_eq!(found.collect::<Vec<_>>(), names);
    }
}
