//! Tables in `.csv` and `.tsv` files, a row at a time.
//!
//! The first row names the columns. Fields may be quoted and then hold line breaks; all rows have as many fields as
//! there are columns.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use csv::{ByteRecord, ReaderBuilder};
use serde_json::Value;

use super::document::{Origin, Place};
use super::error::DataError;
use super::options::{Format, ReadOptions};
use super::record::{Record, VisitRecord};
use super::txt::without_bom;

pub(super) fn visit(
    path: &Path,
    wanted: &[&str],
    options: &ReadOptions,
    visit: &mut VisitRecord<'_>,
) -> Result<(), DataError> {
    let failed = |source| DataError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
    let start = file.fill_buf().map_err(failed)?;
    let bom_len = without_bom(start, path)?;
    let header_line = start[bom_len..]
        .split_inclusive(|&byte| byte == b'\n')
        .next()
        .unwrap_or_default();
    let delimiter = delimiter(path, header_line);
    // Of the two characters that end such lines, the parser counts the second with the next row.
    let uncounted = usize::from(header_line.ends_with(b"\r\n"));
    file.consume(bom_len);
    let budget = Rc::new(Cell::new(0));
    let input = Budgeted {
        inner: file,
        left: Rc::clone(&budget),
    };
    // The parser reads ahead by its own buffer, which is added to what a row may take.
    let max_row = options.max_record_bytes.saturating_add(2 << 20);
    budget.set(max_row);
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .has_headers(false)
        .from_reader(input);
    let shared_path = Arc::<Path>::from(path);
    let mut columns: Option<Arc<[String]>> = None;
    let mut row = ByteRecord::new();
    loop {
        let skipped = if columns.is_some() { uncounted } else { 0 };
        let origin = |position: &csv::Position| Origin {
            path: Arc::clone(&shared_path),
            place: Place::Line(usize::try_from(position.line()).unwrap_or(usize::MAX) + skipped),
        };
        let start = origin(reader.position());
        let start = match reader.read_byte_record(&mut row) {
            Ok(true) => row.position().map_or(start, origin),
            Ok(false) => return Ok(()),
            Err(error) => return Err(broken(error, path, options, start)),
        };
        budget.set(max_row);
        let Some(names) = &columns else {
            columns = Some(header(&row, &start)?);
            continue;
        };
        let mut record = Record {
            fields: serde_json::Map::new(),
            origin: start,
            columns: Some(Arc::clone(names)),
        };
        for (name, field) in names.iter().zip(&row) {
            if !wanted.contains(&name.as_str()) {
                continue;
            }
            let text = std::str::from_utf8(field).map_err(|_| DataError::ColumnNotUtf8 {
                origin: record.origin.clone(),
                field: name.clone(),
            })?;
            record
                .fields
                .insert(name.clone(), Value::String(text.to_owned()));
        }
        visit(record)?;
    }
}

/// Tabs for `.tsv`; commas, or what a header without a comma uses.
fn delimiter(path: &Path, header_line: &[u8]) -> u8 {
    if Format::of_file_name(path) == Format::Tsv {
        return b'\t';
    }
    let used = [b',', b';', b'\t']
        .into_iter()
        .find(|delimiter| header_line.contains(delimiter));
    used.unwrap_or(b',')
}

fn header(row: &ByteRecord, origin: &Origin) -> Result<Arc<[String]>, DataError> {
    let mut names: Vec<String> = Vec::with_capacity(row.len());
    for (column_idx, name) in row.iter().enumerate() {
        let name = std::str::from_utf8(name).map_err(|_| DataError::ColumnNotUtf8 {
            origin: origin.clone(),
            field: format!("number {}", column_idx + 1),
        })?;
        if names.iter().any(|other| other == name) {
            return Err(DataError::ColumnTwice {
                origin: origin.clone(),
                column: name.to_owned(),
            });
        }
        names.push(name.to_owned());
    }
    Ok(names.into())
}

fn broken(error: csv::Error, path: &Path, options: &ReadOptions, origin: Origin) -> DataError {
    match error.into_kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => DataError::RaggedRow {
            origin,
            expected: expected_len,
            found: len,
        },
        csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            DataError::RecordTooLarge {
                origin,
                max_bytes: options.max_record_bytes,
            }
        }
        csv::ErrorKind::Io(source) => DataError::Read {
            path: path.to_owned(),
            source,
        },
        other => DataError::Read {
            path: path.to_owned(),
            source: io::Error::other(format!("{other:?}")),
        },
    }
}

/// Stops at a row that is too long: an unclosed quote would make the rest of the file one row.
struct Budgeted<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Budgeted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left.get() == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let num_read = self.inner.read(buffer)?;
        self.left
            .set(self.left.get().saturating_sub(num_read as u64));
        Ok(num_read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::super::{Documents, TextFields, read_documents};
    use super::*;

    fn read_as(name: &str, bytes: &[u8], options: &ReadOptions) -> Result<Documents, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        File::create(&path).unwrap().write_all(bytes).unwrap();
        read_documents(&path, options, None)
    }

    fn read(bytes: &[u8]) -> Result<Documents, DataError> {
        read_as("rows.csv", bytes, &ReadOptions::default())
    }

    fn message_of(bytes: &[u8]) -> String {
        let message = read(bytes).unwrap_err().to_string();
        message[message.find("rows.csv").unwrap()..].to_owned()
    }

    fn rows(corpus: &Documents) -> Vec<(&str, Option<&str>, Place)> {
        let documents = corpus.documents.iter();
        documents
            .map(|document| {
                (
                    document.text.as_str(),
                    document.label.as_deref(),
                    document.origin.place,
                )
            })
            .collect()
    }

    #[test]
    fn quoted_fields_may_hold_delimiters_and_line_breaks() {
        let corpus =
            read(b"\xEF\xBB\xBFlabel,text\r\nx,\"a, \"\"b\"\"\nc\"\r\n,plain\r\n").unwrap();
        assert_eq!(
            rows(&corpus),
            [
                ("a, \"b\"\nc", Some("x"), Place::Line(2)),
                ("plain", None, Place::Line(4))
            ]
        );
    }

    #[test]
    fn tabs_and_semicolons_are_found() {
        let options = ReadOptions::default();
        for (name, bytes) in [
            ("rows.tsv", &b"id\ttext\n1\ta;b,c\n"[..]),
            ("rows.csv", b"id;text\n1;a\tb,c\n"),
            ("rows.csv", b"text\n\"a,b\"\n"),
        ] {
            assert_eq!(read_as(name, bytes, &options).unwrap().documents.len(), 1);
        }
    }

    #[test]
    fn broken_tables_name_the_line_and_the_column() {
        assert_eq!(
            message_of(b"id,text\n1,a\n2,b,c\n"),
            "rows.csv:3: found 3 fields in a table of 2 columns"
        );
        assert_eq!(
            message_of(b"id,text\n1,a\n2,b\xFF\n"),
            "rows.csv:3: column `text` is not UTF-8 text"
        );
        assert_eq!(
            message_of(b"text,text\na,b\n"),
            "rows.csv:1: two columns are called `text`"
        );
        assert_eq!(
            message_of(b"id,body\n1,a\n"),
            "rows.csv:2: no field `text`; the fields are `id`, `body`"
        );
        assert_eq!(
            message_of(b"\xFF\xFEi\0"),
            "rows.csv is UTF-16 text, expected UTF-8"
        );
        assert_eq!(
            message_of(b"text\n"),
            "rows.csv holds no text (nothing skipped)"
        );
    }

    #[test]
    fn a_quote_that_is_never_closed_does_not_fill_the_memory() {
        let mut bytes = b"text\n\"".to_vec();
        bytes.resize(6 << 20, b'a');
        let options = ReadOptions {
            max_record_bytes: 1 << 20,
            ..ReadOptions::default()
        };
        let error = read_as("rows.csv", &bytes, &options).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("rows.csv:2: a row of more than 1048576 bytes")
        );
    }

    #[test]
    fn a_prompt_and_its_answer_are_one_text() {
        let options = ReadOptions {
            text_fields: TextFields::Answer {
                prompt: "q".to_owned(),
                answer: "a".to_owned(),
            },
            source_field: Some("page".to_owned()),
            ..ReadOptions::default()
        };
        let corpus = read_as("rows.csv", b"q,a,page\nWho?,Me.,7\nWho?,,7\n", &options).unwrap();
        let document = &corpus.documents[0];
        assert_eq!(document.text, "Who?\nMe.");
        assert_eq!(document.exchange.as_ref().unwrap().answer_start, 5);
        assert_eq!(document.source.as_deref(), Some("7"));
        assert_eq!(
            corpus.skipped.empty, 1,
            "an empty answer has nothing to score"
        );
    }

    proptest! {
        #[test]
        fn what_the_writer_writes_is_what_we_read(texts in prop::collection::vec("\\PC{0,10}[\n\",;]{0,3}[a-z]", 1..8)) {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(["id", "text"]).unwrap();
            for text in &texts {
                writer.write_record(["1", text]).unwrap();
            }
            let corpus = read(&writer.into_inner().unwrap()).unwrap();
            let read = corpus.documents.iter().map(|document| document.text.clone()).collect::<Vec<_>>();
            prop_assert_eq!(read, texts);
        }

        #[test]
        fn no_input_panics(bytes in prop::collection::vec(prop::sample::select(b"text,;\t\"\n\r\xFFa ".to_vec()), 0..80)) {
            let _ = read(&bytes);
        }
    }
}
