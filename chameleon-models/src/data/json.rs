//! One array of JSON objects.
//!
//! The elements are parsed one after the other, so that an error knows its line and no tree of the whole file is
//! held; its bytes are, so they count against the bound on text. A `.json` that starts with an object is read as one
//! object on each line.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Deserializer, Map, Value};

use super::corpus::{CorpusBuilder, Origin, count_lines};
use super::error::DataError;
use super::read::ReadOptions;
use super::record::RecordReader;
use super::{jsonl, txt};

pub(super) fn read(
    path: &Path,
    options: &ReadOptions,
    builder: &mut CorpusBuilder,
) -> Result<(), DataError> {
    if starts_with_object(path)? {
        return jsonl::read(path, options, builder);
    }
    let text = txt::decode(txt::read_bytes(path, options.max_total_bytes)?, path)?;
    let mut cursor = Cursor {
        text: &text,
        position: 0,
        line: 1,
        path: Arc::from(path),
    };
    if cursor.peek().is_none() {
        return Ok(());
    }
    cursor.expect("`[`", &['['])?;
    let mut records = RecordReader::new(options, builder);
    if cursor.peek() == Some(']') {
        cursor.expect("`]`", &[']'])?;
    } else {
        loop {
            let (record, origin) = cursor.record()?;
            records.push(record, origin)?;
            if cursor.expect("`,` or `]`", &[',', ']'])? == ']' {
                break;
            }
        }
    }
    if let Some(found) = cursor.peek() {
        return Err(cursor.broken("the end of the file", Some(found)));
    }
    records.finish(path)
}

/// Whether the first visible byte opens an object; a guess from the start of the file is enough.
fn starts_with_object(path: &Path) -> Result<bool, DataError> {
    let mut start = Vec::new();
    File::open(path)
        .and_then(|file| file.take(4 << 10).read_to_end(&mut start))
        .map_err(|source| DataError::Read {
            path: path.to_owned(),
            source,
        })?;
    let bom_len = txt::without_bom(&start, path)?;
    Ok(start[bom_len..].trim_ascii_start().first() == Some(&b'{'))
}

struct Cursor<'a> {
    text: &'a str,
    position: usize,
    line: usize,
    path: Arc<Path>,
}

impl Cursor<'_> {
    /// The next character that is no white space.
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.position..];
        let trimmed = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        self.advance(rest.len() - trimmed.len());
        trimmed.chars().next()
    }

    /// Steps over the next character, which must be one of `allowed`.
    fn expect(&mut self, expected: &'static str, allowed: &[char]) -> Result<char, DataError> {
        match self.peek() {
            Some(found) if allowed.contains(&found) => {
                self.advance(found.len_utf8());
                Ok(found)
            }
            found => Err(self.broken(expected, found)),
        }
    }

    /// Steps over the next element, which must be an object.
    fn record(&mut self) -> Result<(Map<String, Value>, Origin), DataError> {
        match self.peek() {
            Some('{') => {}
            found => return Err(self.broken("an object", found)),
        }
        let origin = self.origin();
        let mut stream =
            Deserializer::from_str(&self.text[self.position..]).into_iter::<Map<String, Value>>();
        match stream.next() {
            Some(Ok(record)) => {
                let num_bytes = stream.byte_offset();
                self.advance(num_bytes);
                Ok((record, origin))
            }
            Some(Err(source)) => {
                let line = origin.line + source.line().saturating_sub(1);
                Err(DataError::BrokenJson {
                    origin: Origin { line, ..origin },
                    source,
                })
            }
            None => Err(self.broken("an object", None)),
        }
    }

    fn advance(&mut self, num_bytes: usize) {
        let end = self.position + num_bytes;
        self.line += count_lines(&self.text.as_bytes()[self.position..end]);
        self.position = end;
    }

    fn origin(&self) -> Origin {
        Origin::new(Arc::clone(&self.path), self.line)
    }

    fn broken(&self, expected: &'static str, found: Option<char>) -> DataError {
        DataError::BrokenArray {
            origin: self.origin(),
            expected,
            found: found.map_or_else(|| "the end of the file".to_owned(), |c| format!("{c:?}")),
        }
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
                    document.origin.line,
                )
            })
            .collect::<Vec<_>>();
        assert_eq!(rows, [("a", Some(0), 2), ("b", None, 5)]);
    }

    #[test]
    fn objects_on_lines_are_accepted_too() {
        let corpus = read_text("{\"text\": \"a\"}\n{\"text\": \"b\"}\n").unwrap();
        assert_eq!(corpus.documents().len(), 2);
        assert_eq!(corpus.documents()[1].origin.line, 2);
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
