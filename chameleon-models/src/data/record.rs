//! One JSON object -> one document: the fields of a record, whatever file it is in.

use std::path::Path;

use serde_json::{Map, Value};

use super::corpus::{CorpusBuilder, Origin};
use super::error::DataError;
use super::read::{LabelField, ReadOptions};

/// The fields that may be a label, in the order in which they are tried.
const LABEL_FIELDS: [&str; 4] = ["label", "domain", "kind", "category"];

/// Turns the records of one file into documents and remembers which field labels them.
pub(super) struct RecordReader<'a> {
    options: &'a ReadOptions,
    builder: &'a mut CorpusBuilder,
    label_field: Option<String>,
    label_seen: bool,
    first_fields: Option<Vec<String>>,
}

impl<'a> RecordReader<'a> {
    pub(super) fn new(options: &'a ReadOptions, builder: &'a mut CorpusBuilder) -> Self {
        let label_field = match &options.label_field {
            LabelField::Named(field) => Some(field.clone()),
            LabelField::Auto | LabelField::Ignored => None,
        };
        Self {
            options,
            builder,
            label_field,
            label_seen: false,
            first_fields: None,
        }
    }

    pub(super) fn push(
        &mut self,
        mut record: Map<String, Value>,
        origin: Origin,
    ) -> Result<(), DataError> {
        if self.first_fields.is_none() {
            self.first_fields = Some(record.keys().cloned().collect());
        }
        let label = self.label(&record, &origin)?;
        let field = &self.options.text_field;
        let text = match record.remove(field) {
            Some(Value::String(text)) => text,
            Some(value) => {
                return Err(DataError::FieldKind {
                    origin,
                    field: field.clone(),
                    found: kind(&value),
                    expected: "a string",
                });
            }
            None => {
                return Err(DataError::FieldMissing {
                    origin,
                    field: field.clone(),
                    found: record.keys().cloned().collect(),
                });
            }
        };
        let path = origin.path.clone();
        self.builder.push(text, label.as_deref(), origin);
        if self.builder.num_bytes() > self.options.max_total_bytes {
            return Err(DataError::TooLarge {
                path: path.to_path_buf(),
                max_bytes: self.options.max_total_bytes,
            });
        }
        Ok(())
    }

    /// To be called after the last record of `path`.
    pub(super) fn finish(self, path: &Path) -> Result<(), DataError> {
        match (&self.options.label_field, self.first_fields) {
            (LabelField::Named(field), Some(found)) if !self.label_seen => {
                Err(DataError::LabelMissing {
                    path: path.to_owned(),
                    field: field.clone(),
                    found,
                })
            }
            _ => Ok(()),
        }
    }

    fn label(
        &mut self,
        record: &Map<String, Value>,
        origin: &Origin,
    ) -> Result<Option<String>, DataError> {
        if self.label_field.is_none() && self.options.label_field == LabelField::Auto {
            self.label_field = LABEL_FIELDS
                .iter()
                .filter(|field| **field != self.options.text_field)
                .find(|field| record.get(**field).and_then(label_name).is_some())
                .map(|field| (*field).to_owned());
        }
        let Some(field) = &self.label_field else {
            return Ok(None);
        };
        match record.get(field) {
            None => Ok(None),
            Some(Value::Null) => {
                self.label_seen = true;
                Ok(None)
            }
            Some(value) => {
                self.label_seen = true;
                match label_name(value) {
                    Some(name) => Ok(Some(name)),
                    None => Err(DataError::FieldKind {
                        origin: origin.clone(),
                        field: field.clone(),
                        found: kind(value),
                        expected: "a string, an integer or a boolean",
                    }),
                }
            }
        }
    }
}

fn label_name(value: &Value) -> Option<String> {
    match value {
        Value::String(name) => Some(name.clone()),
        Value::Bool(name) => Some(name.to_string()),
        Value::Number(name) if !name.is_f64() => Some(name.to_string()),
        _ => None,
    }
}

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
