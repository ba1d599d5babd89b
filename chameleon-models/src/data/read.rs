//! One path in, its documents out.

use std::path::Path;

use super::conversation::RenderChat;
use super::document::{Document, Origin, SkippedInput};
use super::error::DataError;
use super::fields::{FileRecords, RecordReader, read_records};
use super::options::{Format, ReadOptions};
use super::sink::DocumentSink;
use super::{folder, txt};

/// All documents of one path, at least one, in the order of the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// The documents, none of them blank.
    pub documents: Vec<Document>,
    /// What the reader passed over.
    pub skipped: SkippedInput,
}

/// Reads a text file, a folder of texts, or a file of records into memory. Conversations are written out by
/// `render_chat`.
///
/// Texts must be UTF-8; a leading byte order mark is dropped. Documents without a visible character are skipped
/// and counted.
///
/// # Errors
/// Names the file and, where there is one, the line or row and the field; [`DataError::TooLarge`] beyond
/// [`ReadOptions::max_total_bytes`]; what `render_chat` refuses.
pub fn read_documents(
    path: &Path,
    options: &ReadOptions,
    render_chat: Option<&RenderChat<'_>>,
) -> Result<Documents, DataError> {
    let mut sink = CollectingSink {
        path,
        max_bytes: options.max_total_bytes,
        num_bytes: 0,
        documents: Vec::new(),
        skipped: SkippedInput::default(),
    };
    read_into(path, options, render_chat, &mut sink)?;
    let CollectingSink {
        documents, skipped, ..
    } = sink;
    if documents.is_empty() {
        return Err(DataError::EmptyCorpus {
            path: path.to_owned(),
            skipped,
        });
    }
    Ok(Documents { documents, skipped })
}

/// Keeps every document, up to a bound.
struct CollectingSink<'a> {
    path: &'a Path,
    max_bytes: u64,
    num_bytes: u64,
    documents: Vec<Document>,
    skipped: SkippedInput,
}

impl CollectingSink<'_> {
    /// Refuses text that would be too much with `more` bytes.
    fn check_bound(&self, more: usize) -> Result<(), DataError> {
        if self.num_bytes + more as u64 > self.max_bytes {
            return Err(DataError::TooLarge {
                path: self.path.to_owned(),
                max_bytes: self.max_bytes,
            });
        }
        Ok(())
    }
}

impl DocumentSink for CollectingSink<'_> {
    fn push(&mut self, document: Document) -> Result<(), DataError> {
        if document.is_blank() {
            self.skipped.empty += 1;
            return Ok(());
        }
        self.check_bound(document.text.len())?;
        self.num_bytes += document.text.len() as u64;
        self.documents.push(document);
        Ok(())
    }

    fn push_long(
        &mut self,
        origin: Origin,
        pieces: &mut dyn Iterator<Item = Result<String, DataError>>,
    ) -> Result<(), DataError> {
        let mut text = String::new();
        for piece in pieces {
            text.push_str(&piece?);
            self.check_bound(text.len())?;
        }
        self.push(Document::prose(text, origin))
    }

    fn skipped_mut(&mut self) -> &mut SkippedInput {
        &mut self.skipped
    }
}

/// Passes every document of a path to `sink`, in order.
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::super::document::Place;
    use super::*;

    fn read_file(name: &str, bytes: &[u8]) -> Result<Documents, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        File::create(&path).unwrap().write_all(bytes).unwrap();
        read_documents(&path, &ReadOptions::default(), None)
    }

    #[test]
    fn any_other_file_is_one_text_without_its_byte_order_mark() {
        let corpus = read_file("wiki.test.raw", b"\xEF\xBB\xBF\n = Title = \n").unwrap();
        assert_eq!(corpus.documents.len(), 1);
        assert_eq!(corpus.documents[0].text, "\n = Title = \n");
        assert_eq!(corpus.documents[0].label, None);
        assert_eq!(corpus.documents[0].origin.place, Place::Line(1));
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
        let error = read_documents(Path::new("no/such/file.txt"), &ReadOptions::default(), None)
            .unwrap_err();
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
            read_documents(&path, &options, None),
            Err(DataError::TooLarge { .. })
        ));
        options.max_total_bytes = 10;
        assert!(read_documents(&path, &options, None).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn devices_are_refused_instead_of_read_without_end() {
        let error =
            read_documents(Path::new("/dev/zero"), &ReadOptions::default(), None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "/dev/zero is neither a file nor a folder"
        );
    }
}
