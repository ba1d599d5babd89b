//! One path in, one corpus out: options, and the choice of a reader.

use std::fs;
use std::path::Path;

use super::conversation::RenderChat;
use super::corpus::{Corpus, CorpusBuilder, DocumentSink};
use super::error::DataError;
use super::fields::{FileRecords, RecordReader, TextFields, wanted_fields};
use super::instruction::InstructionCondition;
use super::record::{Wanted, visit_records};
use super::{folder, txt};

/// What to read and how to label it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOptions {
    /// Fields of a record that make its text.
    pub text_fields: TextFields,
    /// Field of a record that holds its label.
    pub label_field: LabelField,
    /// Field of a record that says what it was cut from; records of one source stay on one side of a split.
    pub source_field: Option<String>,
    /// Which part of an instruction its prompt embedding is made of.
    pub instruction_condition: InstructionCondition,
    /// What labels the files of a folder.
    pub folder_labels: FolderLabels,
    /// Larger files in a folder are skipped and counted; a file that was named itself is always read.
    pub max_file_bytes: u64,
    /// More text than this is refused where all documents are kept in memory, as in a [`Corpus`].
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
            folder_labels: FolderLabels::Auto,
            max_file_bytes: 64 << 20,
            max_total_bytes: 4 << 30,
            max_record_bytes: 256 << 20,
        }
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

/// What labels a file found in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FolderLabels {
    /// Sub-folders if every text lies in one and there are at least two of them, else extensions.
    Auto,
    /// The first-level sub-folder; files beside the sub-folders have no label.
    SubFolders,
    /// The extension in lower case without its dot; files without one have no label.
    Extensions,
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
    /// If the path is not there, or is no file and no folder.
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

/// Reads a text file, a folder of texts, or a file of records.
///
/// Texts must be UTF-8; a leading byte order mark is dropped. Documents without a visible character are skipped
/// and counted. Conversations need [`read_with_chats`].
///
/// # Errors
/// Names the file and, where there is one, the line or row and the field.
pub fn read(path: &Path, options: &ReadOptions) -> Result<Corpus, DataError> {
    read_all(path, options, None)
}

/// The same for files that may hold conversations, which `render_chat` writes out.
///
/// # Errors
/// Also what `render_chat` refuses.
pub fn read_with_chats(
    path: &Path,
    options: &ReadOptions,
    render_chat: &RenderChat<'_>,
) -> Result<Corpus, DataError> {
    read_all(path, options, Some(render_chat))
}

fn read_all(
    path: &Path,
    options: &ReadOptions,
    render_chat: Option<&RenderChat<'_>>,
) -> Result<Corpus, DataError> {
    let mut builder = CorpusBuilder::bounded(path, options.max_total_bytes);
    read_into(path, options, render_chat, &mut builder)?;
    let corpus = builder.build(path)?;
    tracing::debug!(
        path = %path.display(),
        documents = corpus.documents().len(),
        labels = corpus.label_names().len(),
        "corpus read"
    );
    Ok(corpus)
}

/// Hands every document of a path to `sink`, in order.
pub(super) fn read_into(
    path: &Path,
    options: &ReadOptions,
    render_chat: Option<&RenderChat<'_>>,
    sink: &mut dyn DocumentSink,
) -> Result<(), DataError> {
    match Format::of(path)? {
        Format::Text => txt::read(path, sink),
        Format::Folder => folder::read(path, options, render_chat, sink),
        _ => {
            let records = RecordReader::new(options, render_chat, sink, None);
            match read_records(path, options, records)? {
                FileRecords::Read => Ok(()),
                FileRecords::Unsuitable(error) => Err(error),
            }
        }
    }
}

pub(super) fn read_records(
    path: &Path,
    options: &ReadOptions,
    mut records: RecordReader<'_>,
) -> Result<FileRecords, DataError> {
    let fields = wanted_fields(options);
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    let outcome = visit_records(path, Wanted::Only(&fields), options, &mut |record| {
        records.push(record)
    });
    records.finish(path, outcome)
}

pub(super) fn lower_extension(path: &Path) -> Option<String> {
    let extension = path.extension()?.to_str()?.to_lowercase();
    (!extension.is_empty()).then_some(extension)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::super::Place;
    use super::*;

    fn read_file(name: &str, bytes: &[u8]) -> Result<Corpus, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        File::create(&path).unwrap().write_all(bytes).unwrap();
        read(&path, &ReadOptions::default())
    }

    #[test]
    fn any_other_file_is_one_text_without_its_byte_order_mark() {
        let corpus = read_file("wiki.test.raw", b"\xEF\xBB\xBF\n = Title = \n").unwrap();
        assert_eq!(corpus.documents().len(), 1);
        assert_eq!(corpus.documents()[0].text, "\n = Title = \n");
        assert_eq!(corpus.documents()[0].label_idx, None);
        assert_eq!(corpus.documents()[0].origin.place, Place::Line(1));
    }

    #[test]
    fn an_invalid_byte_is_named_by_its_position_in_the_file() {
        let error = read_file("a.txt", b"\xEF\xBB\xBFone\ntw\xFF").unwrap_err();
        let DataError::InvalidUtf8 { byte, line, .. } = error else {
            panic!("{error}");
        };
        assert_eq!((byte, line), (9, 2));
        assert!(matches!(
            read_file("a.txt", b"\xFF\xFEa\0"),
            Err(DataError::Utf16 { .. })
        ));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = read(Path::new("no/such/file.txt"), &ReadOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), "cannot read no/such/file.txt");
        assert!(matches!(error, DataError::Read { .. }));
    }

    #[test]
    fn an_empty_file_is_an_empty_corpus() {
        for bytes in [&b""[..], b" \n", b"\xEF\xBB\xBF"] {
            assert!(matches!(
                read_file("a.txt", bytes),
                Err(DataError::EmptyCorpus { .. })
            ));
        }
        assert!(matches!(
            read_file("a.jsonl", b""),
            Err(DataError::EmptyCorpus { .. })
        ));
    }

    #[test]
    fn a_named_file_over_the_bound_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        File::create(&path)
            .unwrap()
            .write_all(b"0123456789")
            .unwrap();
        let mut options = ReadOptions {
            max_total_bytes: 9,
            ..ReadOptions::default()
        };
        assert!(matches!(
            read(&path, &options),
            Err(DataError::TooLarge { .. })
        ));
        options.max_total_bytes = 10;
        assert!(read(&path, &options).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn devices_are_refused_instead_of_read_without_end() {
        let error = read(Path::new("/dev/zero"), &ReadOptions::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/dev/zero is neither a file nor a folder"
        );
    }
}
