//! Rows with named fields, whatever file they are in.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::document::Origin;
use super::error::DataError;

/// One row of a `.jsonl`, `.json`, `.csv`, `.tsv` or `.parquet` file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    /// The requested fields that the row has.
    pub(crate) fields: Map<String, Value>,
    /// Where the row is.
    pub(crate) origin: Origin,
    /// The columns of the table, which may be more than `fields`; `None` where every row has its own fields.
    pub(super) columns: Option<Arc<[String]>>,
}

impl Record {
    /// The names of all fields that could be requested.
    pub(crate) fn field_names(&self) -> Vec<String> {
        match &self.columns {
            Some(columns) => columns.to_vec(),
            None => self.fields.keys().cloned().collect(),
        }
    }
}

/// What readers pass every record to.
pub(crate) type VisitRecord<'a> = dyn FnMut(Record) -> Result<(), DataError> + 'a;

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

pub(super) fn take_string(record: &mut Record, field: &str) -> Result<String, DataError> {
    match record.fields.get_mut(field) {
        Some(Value::String(text)) => Ok(std::mem::take(text)),
        Some(value) => Err(DataError::FieldKind {
            origin: record.origin.clone(),
            field: field.to_owned(),
            found: kind(value),
            expected: "a string",
        }),
        None => Err(missing(record, field)),
    }
}

pub(super) fn missing(record: &Record, field: &str) -> DataError {
    DataError::FieldMissing {
        origin: record.origin.clone(),
        field: field.to_owned(),
        found: record.field_names(),
    }
}
