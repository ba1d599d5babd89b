//! Tables in Parquet files, a few rows at a time.
//!
//! Read are columns of strings, numbers and booleans, and lists of records of strings (conversations). A file is
//! untrusted: what its footer claims is compared with what is there before anything is reserved for it, so a lying
//! file ends in an error that names its row group and column.

mod column;
mod pages;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;
use serde_json::Map;

use super::corpus::{Origin, Place};
use super::error::DataError;
use super::record::{Record, VisitRecord, Wanted};
use column::{Cell, ColumnPlan, OpenColumn};

/// Rows decoded at once.
const BATCH_ROWS: usize = 64;

pub(super) fn visit(
    path: &Path,
    wanted: Wanted<'_>,
    visit: &mut VisitRecord<'_>,
) -> Result<(), DataError> {
    let table = Table { path };
    let failed = |source| DataError::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let file_len = file.metadata().map_err(failed)?.len();
    let reader =
        SerializedFileReader::new(file).map_err(|source| table.broken("its footer", source))?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let columns = column_names(schema);
    let plans = column::plans(schema, wanted);
    let shared_path = Arc::<Path>::from(path);
    let mut num_rows = 0;
    for group_idx in 0..reader.num_row_groups() {
        let metadata = reader.metadata().row_group(group_idx);
        let rows = table.check_group(group_idx, metadata, &plans, file_len)?;
        let group = reader
            .get_row_group(group_idx)
            .map_err(|source| table.broken(&format!("row group {group_idx}"), source))?;
        let mut open = table.open(group_idx, group.as_ref(), &plans)?;
        let mut done = 0;
        while done < rows {
            let count = BATCH_ROWS.min(rows - done);
            let mut batch = vec![Map::new(); count];
            for column in &mut open {
                let cells = caught(|| column.read(count))
                    .map_err(|source| table.broken(&column.place(group_idx), source))?;
                if cells.len() < count {
                    return Err(DataError::ShortColumn {
                        path: path.to_owned(),
                        group_idx,
                        column: column.name().to_owned(),
                        claimed: rows,
                        found: done + cells.len(),
                    });
                }
                for (row_idx, (fields, cell)) in batch.iter_mut().zip(cells).enumerate() {
                    let value = match cell {
                        Cell::Value(value) => value,
                        Cell::NotUtf8 => {
                            return Err(DataError::ColumnNotUtf8 {
                                origin: origin(&shared_path, num_rows + row_idx),
                                field: column.name().to_owned(),
                            });
                        }
                    };
                    fields.insert(column.name().to_owned(), value);
                }
            }
            for fields in batch {
                visit(Record {
                    fields,
                    origin: origin(&shared_path, num_rows),
                    columns: Some(Arc::clone(&columns)),
                })?;
                num_rows += 1;
            }
            done += count;
        }
    }
    Ok(())
}

fn origin(path: &Arc<Path>, row_idx: usize) -> Origin {
    Origin {
        path: Arc::clone(path),
        place: Place::Row(row_idx + 1),
    }
}

fn column_names(schema: &SchemaDescriptor) -> Arc<[String]> {
    let fields = schema.root_schema().get_fields().iter();
    fields.map(|field| field.name().to_owned()).collect()
}

#[derive(Clone, Copy)]
struct Table<'a> {
    path: &'a Path,
}

impl Table<'_> {
    /// How many rows a group has, if what it claims can be true.
    fn check_group(
        self,
        group_idx: usize,
        group: &RowGroupMetaData,
        plans: &[ColumnPlan],
        file_len: u64,
    ) -> Result<usize, DataError> {
        let impossible = |what: String| DataError::ImpossibleTable {
            path: self.path.to_owned(),
            group_idx,
            what,
        };
        let rows = usize::try_from(group.num_rows())
            .map_err(|_| impossible(format!("{} rows", group.num_rows())))?;
        for leaf_idx in plans.iter().flat_map(ColumnPlan::leaves) {
            let chunk = group.columns().get(leaf_idx).ok_or_else(|| {
                impossible(format!(
                    "{} columns, fewer than the schema",
                    group.columns().len()
                ))
            })?;
            let range = chunk_range(chunk);
            if range
                .is_none_or(|(start, len)| start.checked_add(len).is_none_or(|end| end > file_len))
            {
                return Err(impossible(format!(
                    "column `{}` outside of the file's {file_len} bytes",
                    chunk.column_path().string()
                )));
            }
        }
        Ok(rows)
    }

    fn open<'p>(
        self,
        group_idx: usize,
        group: &dyn RowGroupReader,
        plans: &'p [ColumnPlan],
    ) -> Result<Vec<OpenColumn<'p>>, DataError> {
        plans
            .iter()
            .map(|plan| {
                let place = format!("row group {group_idx}, column `{}`", plan.name());
                caught(|| OpenColumn::new(plan, group))
                    .map_err(|source| self.broken(&place, source))
            })
            .collect()
    }

    fn broken(self, place: &str, source: ParquetError) -> DataError {
        DataError::BrokenTable {
            path: self.path.to_owned(),
            place: place.to_owned(),
            source: Box::new(source),
        }
    }
}

/// The decoders of the parquet crate hold some facts about a file for certain; where it lies, they panic, and the file
/// is to blame. The panic hook still reports it: every such place deserves a check in `pages`.
fn caught<T>(decode: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| {
        Err(ParquetError::General(
            "its bytes contradict themselves".to_owned(),
        ))
    })
}

/// Start and length of a column chunk; `None` if one is negative.
fn chunk_range(chunk: &ColumnChunkMetaData) -> Option<(u64, u64)> {
    let dictionary = chunk.dictionary_page_offset();
    let start = dictionary.unwrap_or_else(|| chunk.data_page_offset());
    let data = u64::try_from(chunk.data_page_offset()).ok();
    let len = u64::try_from(chunk.compressed_size()).ok()?;
    data.and(Some((u64::try_from(start).ok()?, len)))
}

#[cfg(test)]
mod tests;
