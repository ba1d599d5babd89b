//! Tables as pyarrow writes them, and spoilt ones.

use std::fs;
use std::path::PathBuf;

use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::options::ReadOptions;
use super::super::visit::visit_records;
use super::super::{Documents, InstructionCondition, TextFields, read_documents};
use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tables")
        .join(name)
}

fn expected(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(fixture("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    expected[name].as_array().unwrap().clone()
}

fn column(file: &str, name: &str) -> Vec<Value> {
    let mut values = Vec::new();
    let options = ReadOptions::default();
    visit_records(&fixture(file), &[name], &options, &mut |mut record| {
        assert_eq!(record.origin.place, Place::Row(values.len() + 1));
        values.push(record.fields.remove(name).unwrap());
        assert!(record.fields.is_empty());
        Ok(())
    })
    .unwrap();
    values
}

fn read(path: &Path, options: &ReadOptions) -> std::result::Result<Documents, DataError> {
    read_documents(path, options, None)
}

fn texts(corpus: &Documents) -> Vec<&str> {
    let documents = corpus.documents.iter();
    documents.map(|document| document.text.as_str()).collect()
}

/// All columns of the fixtures.
const COLUMNS: [&str; 9] = [
    "text",
    "instruction",
    "input",
    "output",
    "messages",
    "label",
    "share",
    "flag",
    "tags",
];

/// Reads every column of bytes that claim to be a table.
fn read_bytes(bytes: &[u8]) -> std::result::Result<usize, DataError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    File::create(&path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, bytes))
        .unwrap();
    let mut num_rows = 0;
    visit_records(&path, &COLUMNS, &ReadOptions::default(), &mut |_| {
        num_rows += 1;
        Ok(())
    })?;
    Ok(num_rows)
}

#[test]
fn strings_are_those_that_pyarrow_wrote() {
    assert_eq!(column("lines.parquet", "text"), expected("lines"));
    assert_eq!(column("typed.parquet", "text"), expected("text"));
}

#[test]
fn conversations_are_those_that_pyarrow_wrote() {
    let expected = expected("messages").into_iter().map(|row| match row {
        // The format tells a list that is missing from an empty one; for us both hold no message.
        Value::Null => json!([]),
        row => row,
    });
    let read = column("chats.parquet", "messages");
    assert_eq!(read, expected.collect::<Vec<_>>());
}

#[test]
fn numbers_and_booleans_keep_their_values() {
    assert_eq!(column("typed.parquet", "label")[4], json!(1));
    assert_eq!(column("typed.parquet", "share")[1], json!(0.25));
    assert_eq!(column("typed.parquet", "flag")[1], json!(false));
}

#[test]
fn a_list_of_strings_is_an_array() {
    assert_eq!(column("typed.parquet", "tags")[7], json!(["a", "b"]));
}

#[test]
fn every_codec_is_read() {
    let texts: Vec<String> = (0..500).map(|row| format!("row {row} of many")).collect();
    for codec in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(GzipLevel::default()),
        Compression::LZ4_RAW,
        Compression::BROTLI(BrotliLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
    ] {
        let table = table_of(&texts, codec).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.parquet");
        File::create(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, &table))
            .unwrap();
        let mut found = Vec::new();
        let options = ReadOptions::default();
        visit_records(&path, &["text"], &options, &mut |record| {
            found.push(record.fields["text"].as_str().unwrap().to_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(found, texts, "{codec}");
    }
}

/// A table with one column of byte strings that are not declared to be text, as old writers made them.
fn table_of(texts: &[String], codec: Compression) -> Result<Vec<u8>> {
    let schema = parse_message_type("message schema { required binary text; }")?;
    let properties = WriterProperties::builder().set_compression(codec).build();
    let mut table = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut table, Arc::new(schema), Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    let mut column = group.next_column()?.unwrap();
    let values: Vec<ByteArray> = texts.iter().map(|text| text.as_str().into()).collect();
    column
        .typed::<ByteArrayType>()
        .write_batch(&values, None, None)?;
    column.close()?;
    group.close()?;
    writer.close()?;
    Ok(table)
}

#[test]
fn a_table_of_instructions_is_recognised() {
    let corpus = read(&fixture("alpaca.parquet"), &ReadOptions::default()).unwrap();
    assert_eq!(corpus.documents.len(), 100);
    let document = &corpus.documents[2];
    let exchange = document.exchange.as_ref().unwrap();
    assert_eq!(&document.text[exchange.answer_start..], "Robin, wren: 3.");
    assert_eq!(
        &document.text[exchange.condition.clone()],
        "Name 3 birds.\n\n### Input:\nOnly those of area 3."
    );
    let options = ReadOptions {
        instruction_condition: InstructionCondition::Task,
        ..ReadOptions::default()
    };
    let corpus = read(&fixture("alpaca.parquet"), &options).unwrap();
    let document = &corpus.documents[2];
    let condition = document.exchange.as_ref().unwrap().condition.clone();
    assert_eq!(&document.text[condition], "Name 3 birds.");
}

#[test]
fn blank_rows_are_counted() {
    let corpus = read(&fixture("lines.parquet"), &ReadOptions::default()).unwrap();
    assert_eq!(corpus.documents.len(), 90);
    assert_eq!(corpus.skipped.empty, 90);
    assert_eq!(texts(&corpus)[0], " = Robins = \n");
    assert_eq!(corpus.documents[1].origin.place, Place::Row(4));
}

#[test]
fn errors_name_the_file_the_row_and_the_column() {
    let options = ReadOptions::default();
    let message = read(&fixture("typed.parquet"), &options)
        .unwrap_err()
        .to_string();
    assert!(
        message.ends_with("typed.parquet, row 5: field `text` holds null, expected a string"),
        "{message}"
    );
    let named = |field: &str| ReadOptions {
        text_fields: TextFields::Text(field.to_owned()),
        ..ReadOptions::default()
    };
    let message = read(&fixture("typed.parquet"), &named("tags"))
        .unwrap_err()
        .to_string();
    assert!(
        message.ends_with("row 1: field `tags` holds an array, expected a string"),
        "{message}"
    );
    let message = read(&fixture("typed.parquet"), &named("body"))
        .unwrap_err()
        .to_string();
    assert!(
        message.ends_with(
            "row 1: no field `body`; the fields are `text`, `label`, `share`, `flag`, `tags`"
        ),
        "{message}"
    );
}

#[test]
fn a_truncated_table_is_an_error_wherever_it_ends() {
    let bytes = fs::read(fixture("lines.parquet")).unwrap();
    for len in (0..bytes.len()).step_by(7) {
        let error = read_bytes(&bytes[..len]).unwrap_err().to_string();
        assert!(
            error.contains("rows.parquet is broken Parquet in its footer"),
            "{error}"
        );
    }
}

#[test]
fn a_string_that_is_no_text_names_its_row() {
    let mut bytes = fs::read(fixture("typed.parquet")).unwrap();
    // LZ4 keeps short runs as they are; the statistics of the page hold the string, too.
    let starts: Vec<usize> = (0..bytes.len() - 5)
        .filter(|&start| &bytes[start..start + 5] == b"row 0")
        .collect();
    for start in starts {
        bytes[start] = 0xFF;
    }
    let error = read_bytes(&bytes).unwrap_err().to_string();
    assert!(
        error.ends_with("rows.parquet, row 1: column `text` is not UTF-8 text"),
        "{error}"
    );
}

/// Hundreds of rows at most, whatever is changed: a row count is believed only as far as there are values.
fn check_spoilt(bytes: &[u8]) {
    if let Ok(num_rows) = read_bytes(bytes) {
        assert!(num_rows < 100_000, "{num_rows}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn spoilt_bytes_never_panic(
        file in prop::sample::select(vec!["lines", "alpaca", "chats", "typed"]),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        at_end: bool,
    ) {
        let mut bytes = fs::read(fixture(&format!("{file}.parquet"))).unwrap();
        // Half of the time only in the footer, where sizes and offsets are.
        let footer = bytes.len().saturating_sub(700);
        for (index, byte) in changes {
            let start = if at_end { footer } else { 0 };
            let position = start + index.index(bytes.len() - start);
            bytes[position] = byte;
        }
        check_spoilt(&bytes);
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), framed: bool) {
        let mut file = bytes;
        if framed {
            let len = u32::try_from(file.len()).unwrap();
            file.splice(..0, *b"PAR1");
            file.extend(len.to_le_bytes());
            file.extend(*b"PAR1");
        }
        check_spoilt(&file);
    }
}
