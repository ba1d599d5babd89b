//! Rows with named fields, whatever file they are in.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::corpus::Origin;
use super::error::DataError;
use super::fields::take_string;
use super::read::{Format, ReadOptions};
use super::{csv_file, json, jsonl, parquet_file, txt};

/// One row of a `.jsonl`, `.json`, `.csv`, `.tsv` or `.parquet` file.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The fields that were asked for, as far as the row has them.
    pub fields: Map<String, Value>,
    /// Where the row is.
    pub origin: Origin,
    /// The columns of the table, which may be more than `fields`; `None` where every row has its own fields.
    pub(super) columns: Option<Arc<[String]>>,
}

impl Record {
    /// The names of all fields that could have been asked for.
    pub fn field_names(&self) -> Vec<String> {
        match &self.columns {
            Some(columns) => columns.to_vec(),
            None => self.fields.keys().cloned().collect(),
        }
    }
}

/// Which fields of a table are read; the others are not decoded where the format allows it.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// Every field.
    All,
    /// These.
    Only(&'a [&'a str]),
}

impl Wanted<'_> {
    pub(super) fn includes(self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(&name),
        }
    }
}

/// What readers hand every record to.
pub(super) type VisitRecord<'a> = dyn FnMut(Record) -> Result<(), DataError> + 'a;

/// Hands every row of a file of records to `visit`, in order. No more than a few rows are in memory at once.
///
/// # Errors
/// What `visit` refuses; a file that is broken, or is no file of records, by its extension.
pub fn visit_records(
    path: &Path,
    wanted: Wanted<'_>,
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

/// The strings of one field of every row, blank ones too: where rows belong to those of another file, none may go.
///
/// A text without fields has one row a line.
///
/// # Errors
/// A row without the field, or with something else than a string in it; a file that cannot be read.
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
    visit_records(path, Wanted::Only(&[field]), options, &mut |mut record| {
        rows.push(take_string(&mut record, field)?);
        Ok(())
    })?;
    Ok(rows)
}

/// The kind of a value, for messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
