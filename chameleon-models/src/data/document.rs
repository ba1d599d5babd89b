//! One text with its label and origin.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// A prompt and its answer, joined in one text: the prompt is the condition, the answer is scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Bytes of the prompt without the words of a template around it; the prompt embedding is computed from these.
    pub condition: Range<usize>,
    /// Byte at which the answer begins.
    pub answer_start: usize,
    /// Whether the text marks the end of the answer.
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
    /// The text.
    pub text: String,
    /// Where the answer is, if the text is an exchange and not prose.
    pub exchange: Option<Exchange>,
    /// The name of its kind.
    pub label: Option<String>,
    /// The source of the document, if the data names one; documents of one source stay on one side of a split.
    pub source: Option<String>,
    /// Where it begins.
    pub origin: Origin,
}

impl Document {
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

    /// The text up to its answer; all of it if it is prose.
    pub fn prompt(&self) -> &str {
        match &self.exchange {
            Some(exchange) => &self.text[..exchange.answer_start],
            None => &self.text,
        }
    }

    /// Whether the text is blank, or has no answer to score.
    pub(super) fn is_blank(&self) -> bool {
        let answer_start = self
            .exchange
            .as_ref()
            .map_or(0, |exchange| exchange.answer_start);
        is_blank(&self.text) || self.text.get(answer_start..).is_none_or(is_blank)
    }
}

/// Counts of the input that a reader skipped, for reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SkippedInput {
    /// Documents without a visible character.
    pub empty: usize,
    /// Hidden files and folders.
    pub hidden: usize,
    /// Files with a zero byte near their start.
    pub binary: usize,
    /// Conversations without an answer.
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
    /// Whether nothing was skipped.
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

pub(super) fn is_blank(text: &str) -> bool {
    text.chars().all(char::is_whitespace)
}

/// Number of line ends.
pub(super) fn count_lines(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |count, &byte| count + usize::from(byte == b'\n'))
}
