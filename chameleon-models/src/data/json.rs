//! One array of JSON objects.
//!
//! The elements are parsed one after the other, so that an error names its line and no more than one of them is in
//! memory. A `.json` that starts with an object is read as one object on each line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize as _;
use serde_json::{Deserializer, Map, Value};

use super::document::{Origin, count_lines};
use super::error::DataError;
use super::options::ReadOptions;
use super::record::{Record, VisitRecord};
use super::{jsonl, txt};

pub(super) fn visit(
    path: &Path,
    options: &ReadOptions,
    visit: &mut VisitRecord<'_>,
) -> Result<(), DataError> {
    let (bom_len, starts_with_object) = sniff(path)?;
    if starts_with_object {
        return jsonl::visit(path, options, visit);
    }
    let file = File::open(path).map_err(|source| failed(path, source))?;
    let mut cursor = Cursor {
        reader: BufReader::with_capacity(1 << 20, file),
        position: 0,
        element: Vec::new(),
        line: 1,
        max_bytes: options.max_record_bytes,
        path: Arc::from(path),
    };
    cursor.advance(bom_len);
    if cursor.peek()?.is_none() {
        return Ok(());
    }
    cursor.expect("`[`", b"[")?;
    if cursor.peek()? == Some(b']') {
        cursor.expect("`]`", b"]")?;
    } else {
        loop {
            visit(cursor.record()?)?;
            if cursor.expect("`,` or `]`", b",]")? == b']' {
                break;
            }
        }
    }
    match cursor.peek()? {
        Some(found) => Err(cursor.broken("the end of the file", Some(found))),
        None => Ok(()),
    }
}

/// The length of the byte order mark, and whether the first visible byte opens an object; a guess from the start of
/// the file is enough.
fn sniff(path: &Path) -> Result<(usize, bool), DataError> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(4 << 10).read_to_end(&mut start))
        .map_err(|source| failed(path, source))?;
    let bom_len = txt::without_bom(&start, path)?;
    let first = start[bom_len..].trim_ascii_start().first();
    Ok((bom_len, first == Some(&b'{')))
}

fn failed(path: &Path, source: io::Error) -> DataError {
    DataError::Read {
        path: path.to_owned(),
        source,
    }
}

struct Cursor {
    reader: BufReader<File>,
    position: u64,
    /// The bytes of the element that is being parsed.
    element: Vec<u8>,
    line: usize,
    max_bytes: u64,
    path: Arc<Path>,
}

impl Cursor {
    /// The next byte that is not white space.
    fn peek(&mut self) -> Result<Option<u8>, DataError> {
        loop {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let num_blank = bytes
                .iter()
                .take_while(|byte| b" \t\n\r".contains(byte))
                .count();
            let next = bytes.get(num_blank).copied();
            let num_lines = count_lines(&bytes[..num_blank]);
            self.line += num_lines;
            self.advance(num_blank);
            if next.is_some() {
                return Ok(next);
            }
        }
    }

    /// Steps over the next byte, which must be one of `allowed`.
    fn expect(&mut self, expected: &'static str, allowed: &[u8]) -> Result<u8, DataError> {
        match self.peek()? {
            Some(found) if allowed.contains(&found) => {
                self.advance(1);
                Ok(found)
            }
            found => Err(self.broken(expected, found)),
        }
    }

    /// Steps over the next element, which must be an object.
    fn record(&mut self) -> Result<Record, DataError> {
        match self.peek()? {
            Some(b'{') => {}
            found => return Err(self.broken("an object", found)),
        }
        let origin = self.origin();
        let (start_line, start) = (self.line, self.position);
        self.element.clear();
        // The parser reads one byte at a time and none after the element.
        let parsed = Map::deserialize(&mut Deserializer::from_reader(&mut *self));
        let fields: Map<String, Value> = parsed.map_err(|source| {
            if source.io_error_kind() == Some(io::ErrorKind::FileTooLarge) {
                return DataError::RecordTooLarge {
                    origin: origin.clone(),
                    max_bytes: self.max_bytes,
                };
            }
            if source.is_io() {
                return failed(&self.path, source.into());
            }
            if let Err(error) = std::str::from_utf8(&self.element) {
                let valid = &self.element[..error.valid_up_to()];
                return DataError::InvalidUtf8 {
                    path: self.path.to_path_buf(),
                    byte: start + valid.len() as u64,
                    line: start_line + count_lines(valid),
                };
            }
            let line = start_line + source.line().saturating_sub(1);
            DataError::BrokenJson {
                origin: Origin::new(Arc::clone(&self.path), line),
                source,
            }
        })?;
        Ok(Record {
            fields,
            origin,
            columns: None,
        })
    }

    fn fill(&mut self) -> Result<&[u8], DataError> {
        let path = &self.path;
        self.reader
            .fill_buf()
            .map_err(|source| failed(path, source))
    }

    fn advance(&mut self, num_bytes: usize) {
        self.reader.consume(num_bytes);
        self.position += num_bytes as u64;
    }

    fn origin(&self) -> Origin {
        Origin::new(Arc::clone(&self.path), self.line)
    }

    fn broken(&self, expected: &'static str, found: Option<u8>) -> DataError {
        let found = match found {
            Some(byte) if byte.is_ascii() => format!("{:?}", char::from(byte)),
            Some(_) => "a letter outside of a string".to_owned(),
            None => "the end of the file".to_owned(),
        };
        DataError::BrokenArray {
            origin: self.origin(),
            expected,
            found,
        }
    }
}

/// Bytes of an element, as the parser reads them.
impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.element.len() as u64 >= self.max_bytes {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let num_read = self.reader.read(buffer)?;
        let bytes = &buffer[..num_read];
        self.element.extend_from_slice(bytes);
        self.line += count_lines(bytes);
        self.position += num_read as u64;
        Ok(num_read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::super::document::Place;
    use super::super::{Documents, read_documents};
    use super::*;

    fn read_text(text: &str) -> Result<Documents, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.json");
        File::create(&path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        read_documents(&path, &ReadOptions::default(), None)
    }

    fn message_of(text: &str) -> String {
        let message = read_text(text).unwrap_err().to_string();
        message[message.find("rows.json").unwrap()..].to_owned()
    }

    #[test]
    fn an_array_of_objects_keeps_lines_and_labels() {
        let corpus =
            read_text("[\n {\"text\": \"a\",\n  \"kind\": \"x\"},\n\n {\"text\": \"b\"}]\n")
                .unwrap();
        let rows = corpus
            .documents
            .iter()
            .map(|document| {
                (
                    document.text.as_str(),
                    document.label.as_deref(),
                    document.origin.place,
                )
            })
            .collect::<Vec<_>>();
        assert_eq!(
            rows,
            [
                ("a", Some("x"), Place::Line(2)),
                ("b", None, Place::Line(5))
            ]
        );
    }

    #[test]
    fn objects_on_lines_are_accepted_too() {
        let corpus = read_text("{\"text\": \"a\"}\n{\"text\": \"b\"}\n").unwrap();
        assert_eq!(corpus.documents.len(), 2);
        assert_eq!(corpus.documents[1].origin.place, Place::Line(2));
    }

    #[test]
    fn broken_arrays_name_the_line() {
        assert_eq!(
            message_of("[\n{\"text\": \"a\"}\n{\"text\": \"b\"}]"),
            "rows.json:3: expected `,` or `]` in the array of objects, found '{'"
        );
        assert_eq!(
            message_of("[{\"text\": \"a\"},\n 4]"),
            "rows.json:2: expected an object in the array of objects, found '4'"
        );
        assert_eq!(
            message_of("[{\"text\": \"a\"},"),
            "rows.json:1: expected an object in the array of objects, found the end of the file"
        );
        assert_eq!(
            message_of("[{\"text\": \"a\"}]\n[]"),
            "rows.json:2: expected the end of the file in the array of objects, found '['"
        );
        assert_eq!(
            message_of("[\n{\"text\":\n\"a}]"),
            "rows.json:3: broken JSON"
        );
        assert_eq!(
            message_of("\"text\""),
            "rows.json:1: expected `[` in the array of objects, found '\"'"
        );
    }

    #[test]
    fn a_bad_byte_and_an_endless_element_are_placed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.json");
        let message_of = |bytes: &[u8], max_record_bytes| {
            File::create(&path).unwrap().write_all(bytes).unwrap();
            let options = ReadOptions {
                max_record_bytes,
                ..ReadOptions::default()
            };
            let error = read_documents(&path, &options, None).unwrap_err();
            let message = error.to_string();
            message[message.find("rows.json").unwrap()..].to_owned()
        };
        let bad = b"[{\"text\": \"a\"},\n{\"text\":\n\"b\xFF\"}]";
        assert_eq!(
            message_of(bad, 100),
            "rows.json is not UTF-8 text: invalid byte at position 27 (line 3)"
        );
        let long = b"[{\"text\": \"a\"},\n{\"text\": \"abcdefghijkl";
        assert_eq!(
            message_of(long, 20),
            "rows.json:2: a row of more than 20 bytes"
        );
    }

    #[test]
    fn an_empty_array_or_file_is_an_empty_corpus() {
        for text in ["[]", " [ ]\n", "", " \n"] {
            assert_eq!(
                message_of(text),
                "rows.json holds no text (nothing skipped)"
            );
        }
    }

    proptest! {
        #[test]
        fn what_serde_writes_is_what_we_read(texts in prop::collection::vec("\\PC*[a-z]", 1..8), pretty: bool) {
            let rows = texts
                .iter()
                .map(|text| serde_json::json!({"id": 1.5, "text": text, "more": [{"a": null}]}))
                .collect::<Vec<_>>();
            let written = if pretty { serde_json::to_string_pretty(&rows) } else { serde_json::to_string(&rows) };
            let corpus = read_text(&written.unwrap()).unwrap();
            let read = corpus.documents.iter().map(|document| document.text.clone()).collect::<Vec<_>>();
            prop_assert_eq!(read, texts);
        }

        #[test]
        fn no_input_panics(text in "[\\[\\]{},:\"a-z0-9 \n\\\\]{0,60}") {
            let _ = read_text(&text);
        }
    }
}
