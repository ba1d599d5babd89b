//! One JSON object on each line, read line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::document::Origin;
use super::error::DataError;
use super::options::ReadOptions;
use super::record::{Record, VisitRecord, kind};
use super::txt::without_bom;

pub(super) fn visit(
    path: &Path,
    options: &ReadOptions,
    visit: &mut VisitRecord<'_>,
) -> Result<(), DataError> {
    let failed = |source| DataError::Read {
        path: path.to_owned(),
        source,
    };
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
    let shared_path = Arc::<Path>::from(path);
    let mut bytes = Vec::new();
    let mut line = 0;
    let mut line_start = 0_u64;
    // One endless line must not fill the memory.
    let max_line = options.max_record_bytes.saturating_add(1);
    loop {
        bytes.clear();
        let num_read = reader
            .by_ref()
            .take(max_line)
            .read_until(b'\n', &mut bytes)
            .map_err(failed)? as u64;
        if num_read == 0 {
            break;
        }
        if num_read == max_line {
            return Err(DataError::RecordTooLarge {
                origin: Origin::new(shared_path, line + 1),
                max_bytes: options.max_record_bytes,
            });
        }
        line += 1;
        let skipped = if line == 1 {
            without_bom(&bytes, path)?
        } else {
            0
        };
        let text =
            std::str::from_utf8(&bytes[skipped..]).map_err(|error| DataError::InvalidUtf8 {
                path: path.to_owned(),
                byte: line_start + (skipped + error.valid_up_to()) as u64,
                line,
            })?;
        line_start += num_read;
        if text.trim().is_empty() {
            continue;
        }
        let origin = Origin::new(Arc::clone(&shared_path), line);
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => visit(Record {
                fields,
                origin,
                columns: None,
            })?,
            Ok(value) => {
                return Err(DataError::NotAnObject {
                    origin,
                    found: kind(&value),
                });
            }
            Err(source) => return Err(DataError::BrokenJson { origin, source }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::{Documents, LabelField, Place, TextFields, read_documents};
    use super::*;

    fn read_lines(bytes: &[u8], options: &ReadOptions) -> Result<Documents, DataError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        File::create(&path).unwrap().write_all(bytes).unwrap();
        read_documents(&path, options, None)
    }

    fn message_of(bytes: &[u8], options: &ReadOptions) -> String {
        let error = read_lines(bytes, options).unwrap_err();
        let message = error.to_string();
        match message.find("rows.jsonl") {
            Some(start) => message[start..].to_owned(),
            None => message,
        }
    }

    fn labels(corpus: &Documents) -> Vec<Option<&str>> {
        let documents = corpus.documents.iter();
        documents
            .map(|document| document.label.as_deref())
            .collect()
    }

    #[test]
    fn every_line_is_a_document_with_its_line_and_label() {
        let corpus = read_lines(
            b"\xEF\xBB\xBF{\"text\": \"one\", \"domain\": \"wiki\"}\r\n\n{\"domain\": \"code\", \"text\": \"t\\u00fc\"}",
            &ReadOptions::default(),
        )
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
                ("one", Some("wiki"), Place::Line(1)),
                ("t\u{fc}", Some("code"), Place::Line(3))
            ]
        );
    }

    #[test]
    fn integers_and_booleans_are_labels_and_a_missing_one_is_none() {
        let corpus = read_lines(
            b"{\"text\": \"a\"}\n{\"text\": \"b\", \"label\": 3}\n{\"text\": \"c\", \"label\": true, \"kind\": \"x\"}\n{\"text\": \"d\", \"label\": null}\n",
            &ReadOptions::default(),
        )
        .unwrap();
        assert_eq!(labels(&corpus), [None, Some("3"), Some("true"), None]);
    }

    #[test]
    fn a_field_that_cannot_be_a_label_is_passed_over_when_detecting() {
        let corpus = read_lines(
            b"{\"text\": \"a\", \"label\": [1], \"kind\": \"x\"}\n",
            &ReadOptions::default(),
        )
        .unwrap();
        assert_eq!(labels(&corpus), [Some("x")]);
    }

    #[test]
    fn labels_can_be_named_or_ignored() {
        let rows = b"{\"body\": \"a\", \"label\": \"l\", \"team\": \"t\"}\n";
        let mut options = ReadOptions {
            text_fields: TextFields::Text("body".to_owned()),
            label_field: LabelField::Named("team".to_owned()),
            ..ReadOptions::default()
        };
        assert_eq!(labels(&read_lines(rows, &options).unwrap()), [Some("t")]);
        options.label_field = LabelField::Ignored;
        assert_eq!(labels(&read_lines(rows, &options).unwrap()), [None]);
        options.label_field = LabelField::Named("group".to_owned());
        assert_eq!(
            message_of(rows, &options),
            "rows.jsonl has a label field `group`; the fields of the first are `body`, `label`, `team`"
        );
    }

    #[test]
    fn a_missing_text_field_lists_the_fields_there_are() {
        assert_eq!(
            message_of(
                b"{\"text\": \"a\"}\n{\"prompt\": \"a\", \"answer\": 1}\n",
                &ReadOptions::default()
            ),
            "rows.jsonl:2: no field `text`; the fields are `answer`, `prompt`"
        );
    }

    #[test]
    fn a_text_that_is_no_string_names_what_it_is() {
        assert_eq!(
            message_of(b"{\"text\": [\"a\"]}\n", &ReadOptions::default()),
            "rows.jsonl:1: field `text` holds an array, expected a string"
        );
    }

    #[test]
    fn broken_lines_are_named() {
        assert_eq!(
            message_of(
                b"{\"text\": \"a\"}\n{\"text\": \"b\"\n",
                &ReadOptions::default()
            ),
            "rows.jsonl:2: broken JSON"
        );
        assert_eq!(
            message_of(b"17\n", &ReadOptions::default()),
            "rows.jsonl:1: expected a JSON object, found a number"
        );
    }

    #[test]
    fn an_invalid_byte_is_named_by_its_position_in_the_file() {
        assert_eq!(
            message_of(
                b"{\"text\": \"a\"}\n{\"text\": \"\xFF\"}\n",
                &ReadOptions::default()
            ),
            "rows.jsonl is not UTF-8 text: invalid byte at position 24 (line 2)"
        );
    }

    #[test]
    fn the_text_is_bounded() {
        let options = ReadOptions {
            max_total_bytes: 5,
            ..ReadOptions::default()
        };
        let message = message_of(b"{\"text\": \"abc\"}\n{\"text\": \"def\"}\n", &options);
        assert_eq!(message, "rows.jsonl holds more than 5 bytes of text");
        let options = ReadOptions {
            max_record_bytes: 20,
            ..ReadOptions::default()
        };
        let endless = message_of(b"{\"text\": \"abc\"}\n{\"text\": \"abcdefghijkl", &options);
        assert_eq!(endless, "rows.jsonl:2: a row of more than 20 bytes");
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        let message = message_of(&vec![b'['; 100_000], &ReadOptions::default());
        assert_eq!(message, "rows.jsonl:1: broken JSON");
    }
}
