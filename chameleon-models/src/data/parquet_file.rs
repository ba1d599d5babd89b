//! Tables in Parquet files, row by row.
//!
//! Each wanted column is assembled by the row reader of the parquet crate on its own, so that an error can name it and
//! no other column is decoded. A file is untrusted: what would make the crate reserve memory for values that are not
//! there is refused in `pages`, and where it panics, the file is reported as broken.

mod pages;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{ConvertedType, Repetition};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::PageReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::record::Field;
use parquet::record::reader::{ReaderIter, RowIter, TreeBuilder};
use parquet::schema::types::{SchemaDescPtr, SchemaDescriptor, Type, TypePtr};
use serde_json::{Map, Value};

use super::document::{Origin, Place};
use super::error::DataError;
use super::record::{Record, VisitRecord};
use pages::CheckedPages;

/// Values of a column decoded at once.
const BATCH_VALUES: usize = 64;

pub(super) fn visit(
    path: &Path,
    wanted: &[&str],
    visit: &mut VisitRecord<'_>,
) -> std::result::Result<(), DataError> {
    let broken = |place: String, source: ParquetError| DataError::BrokenTable {
        path: path.to_owned(),
        place,
        source: Box::new(source),
    };
    let file = File::open(path).map_err(|source| DataError::Read {
        path: path.to_owned(),
        source,
    })?;
    let reader = caught(|| SerializedFileReader::new(file))
        .map_err(|source| broken("its footer".to_owned(), source))?;
    let fields = reader.metadata().file_metadata().schema().get_fields();
    let names: Arc<[String]> = fields.iter().map(|field| field.name().to_owned()).collect();
    let columns = fields
        .iter()
        .filter(|field| wanted.contains(&field.name()))
        .map(|field| caught(|| Column::new(field)))
        .collect::<Result<Vec<_>>>()
        .map_err(|source| broken("its schema".to_owned(), source))?;
    let shared_path = Arc::<Path>::from(path);
    let mut row_idx = 0;
    for group_idx in 0..reader.num_row_groups() {
        let group_place = || format!("row group {group_idx}");
        let column_place =
            |column: &Column| format!("row group {group_idx}, column `{}`", column.name);
        let group = caught(|| reader.get_row_group(group_idx))
            .map_err(|source| broken(group_place(), source))?;
        let claimed = usize::try_from(group.metadata().num_rows())
            .map_err(|error| broken(group_place(), ParquetError::External(error.into())))?;
        let mut open = columns
            .iter()
            .map(|column| {
                caught(|| column.open(group.as_ref()))
                    .map(|values| (column, values))
                    .map_err(|source| broken(column_place(column), source))
            })
            .collect::<std::result::Result<Vec<_>, _>>()?;
        // The row count of the file is an upper bound only: rows end with their values.
        let num_rows = if open.is_empty() {
            claimed.min(1)
        } else {
            claimed
        };
        for _ in 0..num_rows {
            row_idx += 1;
            let origin = Origin {
                path: Arc::clone(&shared_path),
                place: Place::Row(row_idx),
            };
            let mut fields = Map::new();
            for (column, values) in &mut open {
                let value = caught(|| column.next(values)).map_err(|source| {
                    if is_bad_utf8(&source) {
                        return DataError::ColumnNotUtf8 {
                            origin: origin.clone(),
                            field: column.name.clone(),
                        };
                    }
                    broken(column_place(column), source)
                })?;
                fields.insert(column.name.clone(), value);
            }
            visit(Record {
                fields,
                origin,
                columns: Some(Arc::clone(&names)),
            })?;
        }
    }
    Ok(())
}

/// One field of the schema.
struct Column {
    name: String,
    is_list: bool,
    /// A schema that has this field alone.
    schema: SchemaDescPtr,
}

impl Column {
    fn new(field: &TypePtr) -> Result<Self> {
        let info = field.get_basic_info();
        let schema = Type::group_type_builder("schema")
            .with_fields(vec![Arc::clone(field)])
            .build()?;
        Ok(Self {
            name: field.name().to_owned(),
            is_list: info.converted_type() == ConvertedType::LIST
                || info.repetition() == Repetition::REPEATED,
            schema: Arc::new(SchemaDescriptor::new(Arc::new(schema))),
        })
    }

    fn open(&self, group: &dyn RowGroupReader) -> Result<ReaderIter> {
        TreeBuilder::new()
            .with_batch_size(BATCH_VALUES)
            .as_iter(Arc::clone(&self.schema), &CheckedGroup(group))
    }

    /// The value of the next row. A list that is missing is an empty one.
    fn next(&self, values: &mut ReaderIter) -> Result<Value> {
        let row = values.next().transpose()?;
        let field = row.and_then(|row| row.into_columns().pop());
        match field {
            Some((_, Field::Null)) if self.is_list => Ok(Value::Array(Vec::new())),
            Some((_, field)) => Ok(json(&field)),
            None => Err(ParquetError::EOF("fewer rows than claimed".to_owned())),
        }
    }
}

/// Bytes that the schema does not declare to be text are taken for text if they are UTF-8.
fn json(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => (*value).into(),
        Field::Byte(value) => (*value).into(),
        Field::Short(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::UByte(value) => (*value).into(),
        Field::UShort(value) => (*value).into(),
        Field::UInt(value) => (*value).into(),
        Field::ULong(value) => (*value).into(),
        Field::Float16(value) => value.to_f32().into(),
        Field::Float(value) => (*value).into(),
        Field::Double(value) => (*value).into(),
        Field::Str(text) => text.as_str().into(),
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).ok().into(),
        Field::Group(row) => {
            let fields = row.get_column_iter();
            fields
                .map(|(name, field)| (name.clone(), json(field)))
                .collect()
        }
        Field::ListInternal(list) => list.elements().iter().map(json).collect(),
        Field::MapInternal(map) => {
            let entries = map.entries().iter();
            entries
                .map(|(key, value)| Value::Array(vec![json(key), json(value)]))
                .collect()
        }
        Field::Decimal(_)
        | Field::Date(_)
        | Field::TimeMillis(_)
        | Field::TimeMicros(_)
        | Field::TimestampMillis(_)
        | Field::TimestampMicros(_) => field.to_string().into(),
    }
}

/// The parquet crate has no kind of error for this; a test pins its wording.
fn is_bad_utf8(error: &ParquetError) -> bool {
    matches!(error, ParquetError::General(text) if text.starts_with("Error reading BYTE_ARRAY as String"))
}

/// The parquet crate panics where a file contradicts itself. The panic hook still reports it: every such place deserves a
/// check in `pages`.
fn caught<T>(decode: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        Err(ParquetError::General(
            "its bytes contradict themselves".to_owned(),
        ))
    })
}

/// A row group whose pages are checked before they are decoded.
struct CheckedGroup<'a>(&'a dyn RowGroupReader);

impl RowGroupReader for CheckedGroup<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.0.metadata()
    }

    fn num_columns(&self) -> usize {
        self.0.num_columns()
    }

    fn get_column_page_reader(&self, column_idx: usize) -> Result<Box<dyn PageReader>> {
        let descriptor = self.metadata().column(column_idx).column_descr();
        Ok(Box::new(CheckedPages::new(
            self.0.get_column_page_reader(column_idx)?,
            descriptor.physical_type(),
            descriptor.max_rep_level() > 0,
        )))
    }

    fn get_column_bloom_filter(&self, column_idx: usize) -> Option<&Sbbf> {
        self.0.get_column_bloom_filter(column_idx)
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        self.0.get_row_iter(projection)
    }
}

#[cfg(test)]
mod tests;
