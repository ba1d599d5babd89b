//! One array of JSON objects.
//!
//! The elements are cut out and parsed one after the other, so that an error knows its line and no more than one of
//! them is in memory. A `.json` that starts with an object is read as one object on each line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::corpus::{Origin, Place, count_lines};
use super::error::DataError;
use super::read::ReadOptions;
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

fn failed(path: &Path, source: std::io::Error) -> DataError {
    DataError::Read {
        path: path.to_owned(),
        source,
    }
}

struct Cursor {
    reader: BufReader<File>,
    position: u64,
    line: usize,
    max_bytes: u64,
    path: Arc<Path>,
}

impl Cursor {
    /// The next byte that is no white space.
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
        let bytes = self.element(&origin)?;
        let text = std::str::from_utf8(&bytes).map_err(|error| DataError::InvalidUtf8 {
            path: self.path.to_path_buf(),
            byte: start + error.valid_up_to() as u64,
            line: start_line + count_lines(&bytes[..error.valid_up_to()]),
        })?;
        let fields: Map<String, Value> =
            serde_json::from_str(text).map_err(|source| DataError::BrokenJson {
                origin: Origin {
                    path: Arc::clone(&self.path),
                    place: Place::Line(start_line + source.line().saturating_sub(1)),
                },
                source,
            })?;
        Ok(Record {
            fields,
            origin,
            columns: None,
        })
    }

    /// The bytes from an opening bracket to the one that closes it, or to the end of the file.
    fn element(&mut self, origin: &Origin) -> Result<Vec<u8>, DataError> {
        let mut element = Vec::new();
        let mut brackets = Brackets::default();
        loop {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return Ok(element);
            }
            let end = bytes.iter().position(|&byte| brackets.close_with(byte));
            let taken = end.map_or(bytes.len(), |end| end + 1);
            element.extend_from_slice(&bytes[..taken]);
            let num_lines = count_lines(&bytes[..taken]);
            self.line += num_lines;
            self.advance(taken);
            if element.len() as u64 > self.max_bytes {
                return Err(DataError::RecordTooLarge {
                    origin: origin.clone(),
                    max_bytes: self.max_bytes,
                });
            }
            if end.is_some() {
                return Ok(element);
            }
        }
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

/// How many brackets are open, those inside of strings not counted.
#[derive(Default)]
struct Brackets {
    depth: u64,
    in_string: bool,
    is_escaped: bool,
}

impl Brackets {
    /// Whether this byte closes the last bracket.
    fn close_with(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::super::{Corpus, read as read_path};
    use super::*;

    fn read_text(text: &str) -> Result<Corpus, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.json");
        File::create(&path)
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        read_path(&path, &ReadOptions::default())
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
            .documents()
            .iter()
            .map(|document| {
                (
                    document.text.as_str(),
                    document.label_idx,
                    document.origin.place,
                )
            })
            .collect::<Vec<_>>();
        assert_eq!(
            rows,
            [("a", Some(0), Place::Line(2)), ("b", None, Place::Line(5))]
        );
    }

    #[test]
    fn objects_on_lines_are_accepted_too() {
        let corpus = read_text("{\"text\": \"a\"}\n{\"text\": \"b\"}\n").unwrap();
        assert_eq!(corpus.documents().len(), 2);
        assert_eq!(corpus.documents()[1].origin.place, Place::Line(2));
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
            let read = corpus.documents().iter().map(|document| document.text.clone()).collect::<Vec<_>>();
            prop_assert_eq!(read, texts);
        }

        #[test]
        fn no_input_panics(text in "[\\[\\]{},:\"a-z0-9 \n\\\\]{0,60}") {
            let _ = read_text(&text);
        }
    }
}
