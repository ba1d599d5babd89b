//! The rows of a file of records, one after the other.

use std::path::Path;

use super::error::DataError;
use super::options::{Format, ReadOptions};
use super::record::{VisitRecord, take_string};
use super::{csv_file, json, jsonl, parquet_file, txt};

/// Passes every row of a file of records to `visit`, in order. No more than a few rows are in memory at once.
///
/// `wanted` lists the fields that are used; columns of a table that are not among them are left out. Of a table that
/// has none of them, a row without fields is passed on, so that an error can name the columns that there are.
///
/// # Errors
/// What `visit` refuses; a file that is broken, or by its extension holds no records.
pub(crate) fn visit_records(
    path: &Path,
    wanted: &[&str],
    options: &ReadOptions,
    visit: &mut VisitRecord<'_>,
) -> Result<(), DataError> {
    match Format::of(path)? {
        Format::JsonLines => jsonl::visit(path, options, visit),
        Format::Json => json::visit(path, options, visit),
        Format::Csv | Format::Tsv => csv_file::visit(path, wanted, options, visit),
        Format::Parquet => parquet_file::visit(path, wanted, visit),
        Format::Text | Format::Folder => Err(DataError::NoRecords {
            path: path.to_owned(),
        }),
    }
}

/// The strings of one field of every row, blank ones too, since rows may belong to those of another file.
///
/// A text without fields has one row a line.
///
/// # Errors
/// A row without the field, or with another value than a string in it; a file that cannot be read.
pub fn read_column(
    path: &Path,
    field: &str,
    options: &ReadOptions,
) -> Result<Vec<String>, DataError> {
    if Format::of(path)? == Format::Text {
        let text = txt::decode(txt::read_bytes(path, options.max_total_bytes)?, path)?;
        return Ok(text.lines().map(str::to_owned).collect());
    }
    let mut rows = Vec::new();
    visit_records(path, &[field], options, &mut |mut record| {
        rows.push(take_string(&mut record, field)?);
        Ok(())
    })?;
    Ok(rows)
}
