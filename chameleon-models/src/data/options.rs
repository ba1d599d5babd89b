//! Options of reading a path.

use std::fs;
use std::path::Path;

use super::error::DataError;
use super::instruction::InstructionCondition;

/// The text and label fields of records, and limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOptions {
    /// Fields of a record that make its text.
    pub text_fields: TextFields,
    /// Field of a record that holds its label.
    pub label_field: LabelField,
    /// Field of a record that names its source; records of one source stay on one side of a split.
    pub source_field: Option<String>,
    /// The part of an instruction that its prompt embedding is computed from.
    pub instruction_condition: InstructionCondition,
    /// Larger files in a folder are skipped and counted; a file that was named itself is always read.
    pub max_file_bytes: u64,
    /// More text than this is refused where all documents are kept in memory, as by [`read_documents`](super::read_documents).
    pub max_total_bytes: u64,
    /// A longer row of a file of records is refused.
    pub max_record_bytes: u64,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            text_fields: TextFields::Auto,
            label_field: LabelField::Auto,
            source_field: None,
            instruction_condition: InstructionCondition::default(),
            max_file_bytes: 64 << 20,
            max_total_bytes: 4 << 30,
            max_record_bytes: 256 << 20,
        }
    }
}

/// Which fields of a record make its text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TextFields {
    /// What the first record has, tried in this order: `text`; `messages` or `conversations` (a chat); `instruction`
    /// and `output`, with or without `input` (Alpaca); `prompt` and `completion` or `response`.
    #[default]
    Auto,
    /// The text is in this field.
    Text(String),
    /// A prompt and its answer, which is scored alone. They are joined by a line break, unless one of them has
    /// white space there.
    Answer {
        /// Field of the prompt.
        prompt: String,
        /// Field of the answer.
        answer: String,
    },
    /// An instruction with an answer, in the words of the Alpaca data set.
    Instruction(InstructionFields),
    /// A list of messages, written out by the model's chat template; the last answer is scored.
    Chat(String),
}

/// The fields of an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstructionFields {
    /// What is to be done.
    pub instruction: String,
    /// What it is to be done with; a record may lack it.
    pub input: String,
    /// The answer.
    pub output: String,
}

impl Default for InstructionFields {
    fn default() -> Self {
        Self {
            instruction: "instruction".to_owned(),
            input: "input".to_owned(),
            output: "output".to_owned(),
        }
    }
}

impl TextFields {
    /// The layouts that [`TextFields::Auto`] tries.
    pub(super) fn known() -> Vec<Self> {
        let answer = |answer: &str| Self::Answer {
            prompt: "prompt".to_owned(),
            answer: answer.to_owned(),
        };
        vec![
            Self::Text("text".to_owned()),
            Self::Chat("messages".to_owned()),
            Self::Chat("conversations".to_owned()),
            Self::Instruction(InstructionFields::default()),
            answer("completion"),
            answer("response"),
        ]
    }

    /// The fields that a record must have.
    pub(super) fn required(&self) -> Vec<&str> {
        match self {
            Self::Auto => Vec::new(),
            Self::Text(field) | Self::Chat(field) => vec![field],
            Self::Answer { prompt, answer } => vec![prompt, answer],
            Self::Instruction(fields) => vec![&fields.instruction, &fields.output],
        }
    }

    /// The layout of a record; that of a plain text if it has none that is known.
    pub(super) fn resolved(&self, names: &[String]) -> Self {
        if *self != Self::Auto {
            return self.clone();
        }
        let has = |field: &&str| names.iter().any(|name| name == field);
        Self::known()
            .into_iter()
            .find(|known| known.required().iter().all(has))
            .unwrap_or_else(|| Self::Text("text".to_owned()))
    }
}

/// Which field of a record is its label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelField {
    /// The first of `label`, `domain`, `kind`, `category` that a record has with a string, an integer or a
    /// boolean in it; decided once, by the first record that has one of them.
    Auto,
    /// This field; a record without it, or with `null` in it, has no label. At least one record must have it.
    Named(String),
    /// No labels.
    Ignored,
}

/// The layout of a path, by its kind and extension alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Any file that is not one of the others: one document.
    Text,
    /// A folder of text or source files: one document for each.
    Folder,
    /// `.jsonl` or `.ndjson`: one object on each line.
    JsonLines,
    /// `.json`: one array of objects, or, as some tools write it, one object on each line.
    Json,
    /// `.csv`: columns named by the first row.
    Csv,
    /// `.tsv`: the same with tabs.
    Tsv,
    /// `.parquet`: a table.
    Parquet,
}

impl Format {
    /// The format of `path`.
    ///
    /// # Errors
    /// If the path is not there, or is neither a file nor a folder.
    pub fn of(path: &Path) -> Result<Self, DataError> {
        let metadata = fs::metadata(path).map_err(|source| DataError::Read {
            path: path.to_owned(),
            source,
        })?;
        if metadata.is_dir() {
            return Ok(Self::Folder);
        }
        if !metadata.is_file() {
            return Err(DataError::NotAFile {
                path: path.to_owned(),
            });
        }
        Ok(Self::of_file_name(path))
    }

    pub(super) fn of_file_name(path: &Path) -> Self {
        match lower_extension(path).as_deref() {
            Some("jsonl" | "ndjson") => Self::JsonLines,
            Some("json") => Self::Json,
            Some("csv") => Self::Csv,
            Some("tsv") => Self::Tsv,
            Some("parquet") => Self::Parquet,
            _ => Self::Text,
        }
    }
}

pub(super) fn lower_extension(path: &Path) -> Option<String> {
    let extension = path.extension()?.to_str()?.to_lowercase();
    (!extension.is_empty()).then_some(extension)
}
