//! Errors of reading data.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::document::{Origin, SkippedInput};

/// An error of reading a corpus or splitting it into examples.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DataError {
    /// The path does not exist, or may not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A folder lacks a part of a data set.
    #[error("{} has no file with `{part}` in its name", folder.display())]
    PartMissing {
        /// The folder.
        folder: PathBuf,
        /// The part.
        part: &'static str,
    },
    /// Two files of a folder could be the same part of a data set.
    #[error("{} and {} could both be the part `{part}`", first.display(), second.display())]
    PartAmbiguous {
        /// The part.
        part: &'static str,
        /// One file.
        first: PathBuf,
        /// Another.
        second: PathBuf,
    },
    /// A pipe, a socket or a device.
    #[error("{} is neither a file nor a folder", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The text of all documents together passes the bound.
    #[error("{} holds more than {max_bytes} bytes of text", path.display())]
    TooLarge {
        /// The path that was read.
        path: PathBuf,
        /// [`ReadOptions::max_total_bytes`](super::ReadOptions::max_total_bytes).
        max_bytes: u64,
    },
    /// A byte sequence that is not UTF-8.
    #[error("{} is not UTF-8 text: invalid byte at position {byte} (line {line})", path.display())]
    InvalidUtf8 {
        /// The file.
        path: PathBuf,
        /// Position of the first invalid byte in the file, counted from 0.
        byte: u64,
        /// Its line, counted from 1.
        line: usize,
    },
    /// The file starts with the byte order mark of UTF-16.
    #[error("{} is UTF-16 text, expected UTF-8", path.display())]
    Utf16 {
        /// The file.
        path: PathBuf,
    },
    /// There is no document with a visible character.
    #[error("{} holds no text ({skipped})", path.display())]
    EmptyCorpus {
        /// The path that was read.
        path: PathBuf,
        /// The skipped input.
        skipped: SkippedInput,
    },
    /// The file holds prose, not rows with fields.
    #[error("{} holds no records: expected a .parquet, .csv, .tsv, .jsonl or .json file", path.display())]
    NoRecords {
        /// The file or folder.
        path: PathBuf,
    },
    /// One row takes more than the bound.
    #[error("{origin}: a row of more than {max_bytes} bytes")]
    RecordTooLarge {
        /// Where it begins.
        origin: Origin,
        /// [`ReadOptions::max_record_bytes`](super::ReadOptions::max_record_bytes).
        max_bytes: u64,
    },
    /// A row of a `.csv` has more or fewer fields than the first one names.
    #[error("{origin}: found {found} fields in a table of {expected} columns")]
    RaggedRow {
        /// Where.
        origin: Origin,
        /// Number of columns.
        expected: u64,
        /// Fields in this row.
        found: u64,
    },
    /// Two columns of a `.csv` have one name.
    #[error("{origin}: two columns are called `{column}`")]
    ColumnTwice {
        /// Where the columns are named.
        origin: Origin,
        /// Their name.
        column: String,
    },
    /// A string of a table is not UTF-8.
    #[error("{origin}: column `{field}` is not UTF-8 text")]
    ColumnNotUtf8 {
        /// Where.
        origin: Origin,
        /// The column.
        field: String,
    },
    /// A Parquet file cannot be decoded.
    #[error("{} is broken Parquet in {place}", path.display())]
    BrokenTable {
        /// The file.
        path: PathBuf,
        /// Row group and column, or the footer.
        place: String,
        /// The cause.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The record is a conversation, and there is no chat template to render it.
    #[error("{origin}: a conversation, and the model has no chat template to write it out with")]
    NoChatTemplate {
        /// Where.
        origin: Origin,
    },
    /// The chat template refuses a conversation.
    #[error("{origin}: the chat template cannot write this conversation")]
    Chat {
        /// Where.
        origin: Origin,
        /// The cause.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// With its answer, a conversation does not begin as it did before it.
    #[error("{origin}: the chat template writes the prompt differently once it is answered")]
    ChatRewritten {
        /// Where.
        origin: Origin,
    },
    /// A line, or an element of the array, is not valid JSON.
    #[error("{origin}: broken JSON")]
    BrokenJson {
        /// Where.
        origin: Origin,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// The brackets and commas around the elements of a `.json` array are wrong.
    #[error("{origin}: expected {expected} in the array of objects, found {found}")]
    BrokenArray {
        /// Where.
        origin: Origin,
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// A record is a number, a string or an array.
    #[error("{origin}: expected a JSON object, found {found}")]
    NotAnObject {
        /// Where.
        origin: Origin,
        /// Kind of the value that was found.
        found: &'static str,
    },
    /// The record has no such field.
    #[error("{origin}: no field `{field}`; the fields are {}", quoted(found))]
    FieldMissing {
        /// Where.
        origin: Origin,
        /// The requested field.
        field: String,
        /// The fields that the record has.
        found: Vec<String>,
    },
    /// The field has a value of another kind.
    #[error("{origin}: field `{field}` holds {found}, expected {expected}")]
    FieldKind {
        /// Where.
        origin: Origin,
        /// The requested field.
        field: String,
        /// Kind of the value that was found.
        found: &'static str,
        /// Kind of value the field may have.
        expected: &'static str,
    },
    /// No record has the requested label field.
    #[error("no record of {} has a label field `{field}`; the fields of the first are {}", path.display(), quoted(found))]
    LabelMissing {
        /// The file.
        path: PathBuf,
        /// The requested field.
        field: String,
        /// The fields of the first record.
        found: Vec<String>,
    },
    /// The file for token ids that do not fit in memory cannot be written.
    #[error("cannot keep the token ids in a file in {}", folder.display())]
    TokenFile {
        /// Its path.
        folder: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Fractions outside 0 to 1, or nothing left to train on.
    #[error(
        "valid and test fractions must be at least 0 and sum to less than 1, found {valid} and {test}"
    )]
    Fractions {
        /// Share of the documents for validation.
        valid: f64,
        /// Share of the documents for the test.
        test: f64,
    },
    /// Window sizes that leave nothing to condition on or nothing to score.
    #[error(
        "a window of {seq_len} tokens cannot hold a prefix of {prefix} and {min_scored} scored tokens (each at least 1)"
    )]
    WindowSizes {
        /// Tokens of a full window.
        seq_len: usize,
        /// Tokens of the conditioning span.
        prefix: usize,
        /// Fewest scored tokens of a window.
        min_scored: usize,
    },
    /// No document is long enough for one window.
    #[error(
        "none of {num_documents} documents is long enough: the longest has {longest} tokens, a window needs {needed}"
    )]
    NoExamples {
        /// Documents that were tokenised.
        num_documents: usize,
        /// Tokens of the longest.
        longest: usize,
        /// Prefix plus fewest scored tokens.
        needed: usize,
    },
    /// The text has no token that could be predicted.
    #[error("the text has {num_tokens} tokens, scoring needs at least 2")]
    TextTooShort {
        /// Tokens of the text.
        num_tokens: usize,
    },
    /// A context that can predict nothing, or a stride that would leave tokens out.
    #[error(
        "expected a context of at least 2 tokens and a stride from 1 to the context, found {context} and {stride}"
    )]
    EvalSizes {
        /// Tokens of a window.
        context: usize,
        /// Tokens from one window's start to the next.
        stride: usize,
    },
    /// The tokenizer refused a document.
    #[error("{origin}: cannot tokenise the text")]
    Tokenise {
        /// The document.
        origin: Origin,
        /// The cause.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// `a`, `b`, `c`; a record with hundreds of fields names the first twenty.
fn quoted(names: &[String]) -> String {
    const MAX_NAMES: usize = 20;
    let mut words = names
        .iter()
        .take(MAX_NAMES)
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>();
    if words.is_empty() {
        words.push("none".to_owned());
    }
    if names.len() > MAX_NAMES {
        words.push(format!("{} more", names.len() - MAX_NAMES));
    }
    words.join(", ")
}
