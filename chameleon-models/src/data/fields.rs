//! One record -> one document: which fields of a row are its text, its label and its source.

use std::path::Path;

use serde_json::Value;

use super::conversation::{self, RenderChat};
use super::document::{AnswerEnd, Document, Exchange};
use super::error::DataError;
use super::instruction::Instruction;
use super::options::{LabelField, ReadOptions, TextFields};
use super::record::{Record, kind, missing, take_string};
use super::sink::DocumentSink;
use super::visit::visit_records;

/// The fields that may be a label, in the order in which they are tried.
const LABEL_FIELDS: [&str; 4] = ["label", "domain", "kind", "category"];

/// All fields that may be read from a record, so that a table need not decode the others.
fn wanted_fields(options: &ReadOptions) -> Vec<String> {
    let layouts = match &options.text_fields {
        TextFields::Auto => TextFields::known(),
        chosen => vec![chosen.clone()],
    };
    let mut fields: Vec<String> = Vec::new();
    for layout in &layouts {
        fields.extend(layout.required().into_iter().map(str::to_owned));
        if let TextFields::Instruction(instruction) = layout {
            fields.push(instruction.input.clone());
        }
    }
    match &options.label_field {
        LabelField::Auto => fields.extend(LABEL_FIELDS.map(str::to_owned)),
        LabelField::Named(field) => fields.push(field.clone()),
        LabelField::Ignored => {}
    }
    fields.extend(options.source_field.clone());
    fields
}

/// Passes the documents of a file of records to the sink of `records`.
pub(super) fn read_records(
    path: &Path,
    options: &ReadOptions,
    mut records: RecordReader<'_>,
) -> Result<FileRecords, DataError> {
    let fields = wanted_fields(options);
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    let outcome = visit_records(path, &fields, options, &mut |record| records.push(record));
    records.finish(path, outcome)
}

/// Turns the records of one file into documents and remembers which fields they use.
pub(super) struct RecordReader<'a> {
    options: &'a ReadOptions,
    render_chat: Option<&'a RenderChat<'a>>,
    sink: &'a mut dyn DocumentSink,
    /// The label of records that have none of their own.
    file_label: Option<String>,
    text_fields: Option<TextFields>,
    label_field: Option<String>,
    label_seen: bool,
    first_fields: Option<Vec<String>>,
    num_read: usize,
}

/// Whether a file gave records.
pub(super) enum FileRecords {
    /// It did, or there were none.
    Read,
    /// Already the first one was refused, so that nothing of the file was used.
    Unsuitable(DataError),
}

impl<'a> RecordReader<'a> {
    pub(super) fn new(
        options: &'a ReadOptions,
        render_chat: Option<&'a RenderChat<'a>>,
        sink: &'a mut dyn DocumentSink,
        file_label: Option<String>,
    ) -> Self {
        let label_field = match &options.label_field {
            LabelField::Named(field) => Some(field.clone()),
            LabelField::Auto | LabelField::Ignored => None,
        };
        Self {
            options,
            render_chat,
            sink,
            file_label,
            text_fields: None,
            label_field,
            label_seen: false,
            first_fields: None,
            num_read: 0,
        }
    }

    pub(super) fn push(&mut self, mut record: Record) -> Result<(), DataError> {
        if self.first_fields.is_none() {
            self.first_fields = Some(record.field_names());
        }
        let options = self.options;
        let text_fields = self
            .text_fields
            .get_or_insert_with(|| options.text_fields.resolved(&record.field_names()))
            .clone();
        let label = self.label(&record)?.or_else(|| self.file_label.clone());
        let source = self.source(&record)?;
        let text = self.text(&text_fields, &mut record)?;
        self.num_read += 1;
        let Some((text, exchange)) = text else {
            self.sink.skipped_mut().unanswered += 1;
            return Ok(());
        };
        self.sink.push(Document {
            text,
            exchange,
            label,
            source,
            origin: record.origin,
        })
    }

    /// To be called when all records of `path` were pushed, or one was refused.
    pub(super) fn finish(
        self,
        path: &Path,
        outcome: Result<(), DataError>,
    ) -> Result<FileRecords, DataError> {
        match outcome {
            Err(error) if self.num_read == 0 => Ok(FileRecords::Unsuitable(error)),
            Err(error) => Err(error),
            Ok(()) => self.check_label(path).map(|()| FileRecords::Read),
        }
    }

    fn check_label(self, path: &Path) -> Result<(), DataError> {
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

    /// The text of a record, or `None` for a conversation without an answer.
    fn text(
        &self,
        fields: &TextFields,
        record: &mut Record,
    ) -> Result<Option<(String, Option<Exchange>)>, DataError> {
        Ok(match fields {
            TextFields::Auto => unreachable!("the first record has decided"),
            TextFields::Text(field) => Some((take_string(record, field)?, None)),
            TextFields::Answer { prompt, answer } => {
                let prompt = take_string(record, prompt)?;
                let answer = take_string(record, answer)?;
                let (text, exchange) = joined(prompt, &answer);
                Some((text, Some(exchange)))
            }
            TextFields::Instruction(fields) => {
                let instruction = take_string(record, &fields.instruction)?;
                let input = match record.fields.get(&fields.input) {
                    None | Some(Value::Null) => String::new(),
                    Some(_) => take_string(record, &fields.input)?,
                };
                let output = take_string(record, &fields.output)?;
                let (text, exchange) = Instruction {
                    task: &instruction,
                    input: &input,
                    output: &output,
                }
                .render(self.options.instruction_condition);
                Some((text, Some(exchange)))
            }
            TextFields::Chat(field) => {
                let messages = conversation::messages(record, field)?;
                conversation::render(&messages, self.render_chat, &record.origin)?
                    .map(|(text, exchange)| (text, Some(exchange)))
            }
        })
    }

    fn label(&mut self, record: &Record) -> Result<Option<String>, DataError> {
        if self.label_field.is_none() && self.options.label_field == LabelField::Auto {
            let used = self.text_fields.as_ref().map(TextFields::required);
            self.label_field = LABEL_FIELDS
                .iter()
                .filter(|field| used.as_ref().is_none_or(|used| !used.contains(*field)))
                .find(|field| record.fields.get(**field).and_then(name_of).is_some())
                .map(|field| (*field).to_owned());
        }
        let Some(field) = &self.label_field else {
            return Ok(None);
        };
        self.label_seen |= record.fields.contains_key(field);
        name_in(record, field)
    }

    fn source(&self, record: &Record) -> Result<Option<String>, DataError> {
        let Some(field) = &self.options.source_field else {
            return Ok(None);
        };
        if !record.fields.contains_key(field) {
            return Err(missing(record, field));
        }
        name_in(record, field)
    }
}

/// The name in a field that may be absent or null.
fn name_in(record: &Record, field: &str) -> Result<Option<String>, DataError> {
    match record.fields.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) if name.is_empty() => Ok(None),
        Some(value) => match name_of(value) {
            Some(name) => Ok(Some(name)),
            None => Err(DataError::FieldKind {
                origin: record.origin.clone(),
                field: field.to_owned(),
                found: kind(value),
                expected: "a string, an integer or a boolean",
            }),
        },
    }
}

fn name_of(value: &Value) -> Option<String> {
    match value {
        Value::String(name) => Some(name.clone()),
        Value::Bool(name) => Some(name.to_string()),
        Value::Number(name) if !name.is_f64() => Some(name.to_string()),
        _ => None,
    }
}

/// A prompt and its answer, separated by white space.
pub(super) fn joined(prompt: String, answer: &str) -> (String, Exchange) {
    let mut text = prompt;
    let condition = 0..text.len();
    let is_apart = text.ends_with(char::is_whitespace) || answer.starts_with(char::is_whitespace);
    if !is_apart && !text.is_empty() {
        text.push('\n');
    }
    let answer_start = text.len();
    text.push_str(answer);
    let exchange = Exchange {
        condition,
        answer_start,
        end: AnswerEnd::Unwritten,
    };
    (text, exchange)
}
