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

use super::corpus::{Origin, Place};
use super::error::DataError;
use super::read::{Format, ReadOptions};
use super::record::{Record, VisitRecord, Wanted};
use super::txt::without_bom;

pub(super) fn visit(
    path: &Path,
    wanted: Wanted<'_>,
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
    let delimiter = delimiter(path, &start[bom_len..]);
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
        let line = usize::try_from(reader.position().line()).unwrap_or(usize::MAX);
        let origin = |line| Origin {
            path: Arc::clone(&shared_path),
            place: Place::Line(line),
        };
        match reader.read_byte_record(&mut row) {
            Ok(true) => budget.set(max_row),
            Ok(false) => return Ok(()),
            Err(error) => return Err(broken(error, path, options, &origin(line))),
        }
        let line = row.position().map_or(line, |position| {
            usize::try_from(position.line()).unwrap_or(usize::MAX)
        });
        let Some(names) = &columns else {
            columns = Some(header(&row, &origin(line))?);
            continue;
        };
        let mut record = Record {
            fields: serde_json::Map::new(),
            origin: origin(line),
            columns: Some(Arc::clone(names)),
        };
        for (name, field) in names.iter().zip(&row) {
            if !wanted.includes(name) {
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
fn delimiter(path: &Path, start: &[u8]) -> u8 {
    if Format::of_file_name(path) == Format::Tsv {
        return b'\t';
    }
    let header = start.split(|&byte| byte == b'\n').next().unwrap_or(start);
    let candidates = [b',', b';', b'\t'];
    let used = candidates
        .into_iter()
        .find(|delimiter| header.contains(delimiter));
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

fn broken(error: csv::Error, path: &Path, options: &ReadOptions, origin: &Origin) -> DataError {
    match error.into_kind() {
        csv::ErrorKind::UnequalLengths {
            pos,
            expected_len,
            len,
        } => DataError::RaggedRow {
            origin: pos.map_or_else(
                || origin.clone(),
                |pos| Origin {
                    path: Arc::clone(&origin.path),
                    place: Place::Line(usize::try_from(pos.line()).unwrap_or(usize::MAX)),
                },
            ),
            expected: expected_len,
            found: len,
        },
        csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            DataError::RecordTooLarge {
                origin: origin.clone(),
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

/// Refuses to read on when a row takes too long: a quote that is never closed would swallow the file.
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
