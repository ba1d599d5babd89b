//! Documents with their labels and where they came from.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::DataError;

/// Where a document begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file; shared, because all records of a file name it.
    pub path: Arc<Path>,
    /// Where in the file.
    pub place: Place,
}

/// A place in a file, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The line of the first character.
    Line(usize),
    /// The row, in files that have no lines.
    Row(usize),
}

impl Place {
    /// The place behind a text that starts here.
    fn after(self, text: &str) -> Self {
        match self {
            Self::Line(line) => Self::Line(line + count_lines(text.as_bytes())),
            Self::Row(_) => self,
        }
    }
}

impl Origin {
    /// Line `line` of `path`.
    pub fn new(path: impl Into<Arc<Path>>, line: usize) -> Self {
        Self {
            path: path.into(),
            place: Place::Line(line),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.path.display(), self.place)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, ":{line}"),
            Self::Row(row) => write!(f, ", row {row}"),
        }
    }
}

/// A prompt and its answer, joined in one text: the prompt may be looked at, the answer is scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Bytes of the prompt that say what is wanted, without the words of a template around them: the prompt
    /// embedding is made of these.
    pub condition: Range<usize>,
    /// Byte at which the answer begins.
    pub answer_start: usize,
    /// Whether the text says where the answer ends.
    pub end: AnswerEnd,
}

/// How the end of an answer is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerEnd {
    /// The text ends with it.
    Unwritten,
    /// By words that belong to the text, as chat templates write them.
    Written,
}

/// One text that belongs together: it is never divided between train, valid and test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The text, never without a visible character.
    pub text: String,
    /// Where the answer is, if the text is an exchange and not prose.
    pub exchange: Option<Exchange>,
    /// Index into [`Corpus::label_names`].
    pub label_idx: Option<usize>,
    /// What the document was cut from, if the data says so; documents of one source stay on one side of a split.
    pub source: Option<Arc<str>>,
    /// Where it begins.
    pub origin: Origin,
}

/// A document that is not in a corpus yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDocument {
    /// See [`Document::text`].
    pub text: String,
    /// See [`Document::exchange`].
    pub exchange: Option<Exchange>,
    /// The name of its kind.
    pub label: Option<String>,
    /// See [`Document::source`].
    pub source: Option<String>,
    /// See [`Document::origin`].
    pub origin: Origin,
}

impl Document {
    /// The text up to its answer; all of it if it is prose.
    pub fn prompt(&self) -> &str {
        match &self.exchange {
            Some(exchange) => &self.text[..exchange.answer_start],
            None => &self.text,
        }
    }

    /// Everything but the text.
    fn clone_without_text(&self) -> Self {
        Self {
            text: String::new(),
            exchange: self.exchange.clone(),
            label_idx: self.label_idx,
            source: self.source.clone(),
            origin: self.origin.clone(),
        }
    }
}

impl NewDocument {
    /// Prose without a label.
    pub fn prose(text: impl Into<String>, origin: Origin) -> Self {
        Self {
            text: text.into(),
            exchange: None,
            label: None,
            source: None,
            origin,
        }
    }

    /// The same document, of this kind.
    #[must_use]
    pub fn with_label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Whether there is nothing to read, or nothing to score.
    pub(super) fn is_blank(&self) -> bool {
        let answer_start = self
            .exchange
            .as_ref()
            .map_or(0, |exchange| exchange.answer_start);
        is_blank(&self.text) || self.text.get(answer_start..).is_none_or(is_blank)
    }
}

/// What readers hand documents to.
pub(super) trait DocumentSink {
    /// Takes a document, or counts it as empty.
    fn push(&mut self, document: NewDocument) -> Result<(), DataError>;

    /// Takes a text of any length bit by bit, or counts it as empty.
    fn push_long(
        &mut self,
        origin: Origin,
        pieces: &mut dyn Iterator<Item = Result<String, DataError>>,
    ) -> Result<(), DataError>;

    /// The counts of what is passed over.
    fn skipped_mut(&mut self) -> &mut SkippedInput;
}

/// What a reader passed over; counts, so that a report can say them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SkippedInput {
    /// Documents without a visible character.
    pub empty: usize,
    /// Hidden files and folders.
    pub hidden: usize,
    /// Files with a zero byte near their start.
    pub binary: usize,
    /// Conversations in which nobody answers.
    pub unanswered: usize,
    /// Files larger than the bound for files in a folder.
    pub too_large: usize,
    /// Symbolic links.
    pub links: usize,
    /// Files of records inside a folder: a `.jsonl` is a data set of its own and is read when named itself.
    pub record_files: usize,
    /// Pipes, sockets and devices.
    pub special: usize,
    /// Files in a folder that are not UTF-8, with the position of the first invalid byte.
    pub invalid_utf8: Vec<(PathBuf, u64)>,
}

impl SkippedInput {
    /// Whether nothing was passed over.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for SkippedInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.empty, "empty"),
            (self.hidden, "hidden"),
            (self.binary, "binary"),
            (self.unanswered, "without an answer"),
            (self.too_large, "too large"),
            (self.links, "symbolic links"),
            (self.record_files, "files of records"),
            (self.special, "special files"),
            (self.invalid_utf8.len(), "not UTF-8"),
        ];
        let parts = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect::<Vec<_>>();
        if parts.is_empty() {
            f.write_str("nothing skipped")
        } else {
            write!(f, "skipped: {}", parts.join(", "))
        }
    }
}

/// All documents of one path, at least one, in the order of the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    documents: Vec<Document>,
    label_names: Vec<String>,
    skipped: SkippedInput,
}

impl Corpus {
    /// The documents; at least one.
    pub fn documents(&self) -> &[Document] {
        &self.documents
    }

    /// The label names in the order of their first appearance, so that appended data keeps the old indices.
    pub fn label_names(&self) -> &[String] {
        &self.label_names
    }

    /// The name of a document's label.
    ///
    /// # Panics
    /// If the document is of another corpus with more labels.
    pub fn label_name(&self, document: &Document) -> Option<&str> {
        document
            .label_idx
            .map(|label_idx| self.label_names[label_idx].as_str())
    }

    /// What the reader passed over.
    pub fn skipped(&self) -> &SkippedInput {
        &self.skipped
    }

    /// The indices of all documents, as [`cut`](super::cut) takes them.
    pub fn all_documents(&self) -> Vec<usize> {
        (0..self.documents.len()).collect()
    }

    /// Bytes of all texts together.
    pub fn num_bytes(&self) -> usize {
        self.documents
            .iter()
            .map(|document| document.text.len())
            .sum()
    }

    /// All texts one after the other, joined by `separator`: what a perplexity over the whole corpus scores.
    pub fn joined(&self, separator: &str) -> String {
        let mut text = String::with_capacity(
            self.num_bytes() + separator.len() * self.documents.len().saturating_sub(1),
        );
        for (document_idx, document) in self.documents.iter().enumerate() {
            if document_idx > 0 {
                text.push_str(separator);
            }
            text.push_str(&document.text);
        }
        text
    }

    /// Divides documents longer than `max_bytes` into pieces that are documents of their own.
    ///
    /// One long file is one document and so could not be split into train and valid. A cut falls after an empty
    /// line if the second half of the piece has one, else after a line, else after a character; the pieces of a
    /// document joined are its text, less pieces without a visible character. Those are counted as empty. Exchanges
    /// stay whole.
    #[must_use]
    pub fn divided(self, max_bytes: usize) -> Self {
        let mut documents = Vec::with_capacity(self.documents.len());
        let mut skipped = self.skipped;
        for document in self.documents {
            if document.text.len() <= max_bytes || document.exchange.is_some() {
                documents.push(document);
                continue;
            }
            let mut rest = document.text.as_str();
            let mut place = document.origin.place;
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at(cut_position(rest, max_bytes));
                if is_blank(piece) {
                    skipped.empty += 1;
                } else {
                    documents.push(Document {
                        text: piece.to_owned(),
                        origin: Origin {
                            path: Arc::clone(&document.origin.path),
                            place,
                        },
                        ..document.clone_without_text()
                    });
                }
                place = place.after(piece);
                rest = tail;
            }
        }
        Self {
            documents,
            label_names: self.label_names,
            skipped,
        }
    }
}

/// Collects documents: the one way to a [`Corpus`], for our readers and for programs that have texts already.
#[derive(Debug, Default)]
pub struct CorpusBuilder {
    documents: Vec<Document>,
    labels: LabelNames,
    skipped: SkippedInput,
    num_bytes: u64,
    bound: Option<(PathBuf, u64)>,
}

impl CorpusBuilder {
    /// A corpus without documents.
    pub fn new() -> Self {
        Self::default()
    }

    /// A corpus that refuses to hold more than `max_bytes` of text, read from `path`.
    pub(super) fn bounded(path: &Path, max_bytes: u64) -> Self {
        Self {
            bound: Some((path.to_owned(), max_bytes)),
            ..Self::default()
        }
    }

    /// Adds a document, or counts it as empty when it has no visible character.
    pub fn push(&mut self, document: NewDocument) {
        if document.is_blank() {
            self.skipped.empty += 1;
            return;
        }
        self.num_bytes += document.text.len() as u64;
        let label_idx = document.label.map(|name| self.labels.index_of(&name));
        self.documents.push(Document {
            text: document.text,
            exchange: document.exchange,
            label_idx,
            source: document.source.map(Arc::from),
            origin: document.origin,
        });
    }

    /// The corpus.
    ///
    /// # Errors
    /// [`DataError::EmptyCorpus`], naming `path`, if no document was added.
    pub fn build(self, path: &Path) -> Result<Corpus, DataError> {
        if self.documents.is_empty() {
            return Err(DataError::EmptyCorpus {
                path: path.to_owned(),
                skipped: self.skipped,
            });
        }
        Ok(Corpus {
            documents: self.documents,
            label_names: self.labels.names,
            skipped: self.skipped,
        })
    }
}

impl DocumentSink for CorpusBuilder {
    fn push(&mut self, document: NewDocument) -> Result<(), DataError> {
        self.push(document);
        self.check_bound(0)
    }

    fn push_long(
        &mut self,
        origin: Origin,
        pieces: &mut dyn Iterator<Item = Result<String, DataError>>,
    ) -> Result<(), DataError> {
        let mut text = String::new();
        for piece in pieces {
            text.push_str(&piece?);
            self.check_bound(text.len() as u64)?;
        }
        DocumentSink::push(self, NewDocument::prose(text, origin))
    }

    fn skipped_mut(&mut self) -> &mut SkippedInput {
        &mut self.skipped
    }
}

impl CorpusBuilder {
    /// Refuses `more` bytes that would be too many.
    fn check_bound(&self, more: u64) -> Result<(), DataError> {
        match &self.bound {
            Some((path, max_bytes)) if self.num_bytes + more > *max_bytes => {
                Err(DataError::TooLarge {
                    path: path.clone(),
                    max_bytes: *max_bytes,
                })
            }
            _ => Ok(()),
        }
    }
}

/// The names of labels and their indices.
#[derive(Debug, Default)]
pub(super) struct LabelNames {
    pub(super) names: Vec<String>,
    indices: HashMap<String, usize>,
}

impl LabelNames {
    pub(super) fn index_of(&mut self, name: &str) -> usize {
        if let Some(&label_idx) = self.indices.get(name) {
            return label_idx;
        }
        let label_idx = self.names.len();
        self.names.push(name.to_owned());
        self.indices.insert(name.to_owned(), label_idx);
        label_idx
    }
}

pub(super) fn is_blank(text: &str) -> bool {
    text.chars().all(char::is_whitespace)
}

/// Number of line ends.
pub(super) fn count_lines(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |count, &byte| count + usize::from(byte == b'\n'))
}

/// Where the first piece of `text` ends; at least one character, at most `max_bytes` unless one character is longer.
fn cut_position(text: &str, max_bytes: usize) -> usize {
    if text.len() <= max_bytes {
        return text.len();
    }
    let window = &text[..text.floor_char_boundary(max_bytes)];
    let half = window.len() / 2;
    let paragraph = window.rfind("\n\n").map(|start| start + 2);
    let line = window.rfind('\n').map(|start| start + 1);
    paragraph
        .filter(|&end| end > half)
        .or(line.filter(|&end| end > half))
        .or(Some(window.len()).filter(|&end| end > 0))
        .unwrap_or_else(|| text.chars().next().map_or(0, char::len_utf8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn corpus_of(texts: &[&str]) -> Corpus {
        let mut builder = CorpusBuilder::new();
        for (line, text) in texts.iter().enumerate() {
            builder.push(NewDocument::prose(
                *text,
                Origin::new(Path::new("memory"), line + 1),
            ));
        }
        builder.build(Path::new("memory")).unwrap()
    }

    #[test]
    fn labels_are_numbered_in_the_order_of_their_first_appearance() {
        let mut builder = CorpusBuilder::new();
        for name in ["wiki", "code", "wiki", "chat"] {
            let document = NewDocument::prose("x", Origin::new(Path::new("memory"), 1));
            builder.push(document.with_label(name));
        }
        let corpus = builder.build(Path::new("memory")).unwrap();
        assert_eq!(corpus.label_names(), ["wiki", "code", "chat"]);
        let names = corpus
            .documents()
            .iter()
            .map(|document| corpus.label_name(document).unwrap())
            .collect::<Vec<_>>();
        assert_eq!(names, ["wiki", "code", "wiki", "chat"]);
    }

    #[test]
    fn an_empty_corpus_says_what_was_skipped() {
        let mut builder = CorpusBuilder::new();
        builder.push(NewDocument::prose(
            " \n\t",
            Origin::new(Path::new("memory"), 1),
        ));
        builder.skipped_mut().binary = 2;
        let message = builder.build(Path::new("notes")).unwrap_err().to_string();
        assert_eq!(message, "notes holds no text (skipped: 1 empty, 2 binary)");
    }

    #[test]
    fn a_long_document_is_divided_after_an_empty_line_and_keeps_its_lines() {
        let corpus = corpus_of(&["one\ntwo\n\nthree\nfour\n"]).divided(12);
        let pieces = corpus
            .documents()
            .iter()
            .map(|document| (document.text.as_str(), document.origin.place))
            .collect::<Vec<_>>();
        assert_eq!(
            pieces,
            [
                ("one\ntwo\n\n", Place::Line(1)),
                ("three\nfour\n", Place::Line(4))
            ]
        );
    }

    #[test]
    fn joined_puts_the_separator_between_documents_only() {
        assert_eq!(corpus_of(&["a", "b", "c"]).joined("--"), "a--b--c");
    }

    proptest! {
        #[test]
        fn dividing_keeps_every_visible_character(
            text in "[a-zäß漢🦎 \n]{1,200}",
            max_bytes in 0_usize..40,
        ) {
            prop_assume!(!is_blank(&text));
            let visible = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            let divided = corpus_of(&[text.as_str()]).divided(max_bytes);
            prop_assert_eq!(visible(&divided.joined("")), visible(&text));
            for document in divided.documents() {
                prop_assert!(document.text.len() <= max_bytes.max(4));
            }
        }
    }
}
