//! Columns of a table, as JSON values.

use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as PhysicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::DataType;
use parquet::errors::Result;
use parquet::file::reader::RowGroupReader;
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor, Type};
use serde_json::{Map, Value};

use super::super::record::Wanted;
use super::pages::CheckedPages;

/// How one field of the schema is read.
#[derive(Debug)]
pub(super) struct ColumnPlan {
    name: String,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    /// One value a row.
    Flat { leaf_idx: usize },
    /// A list of records a row.
    List { leaves: Vec<ListLeaf> },
    /// Something we have no value for; its rows hold an empty object.
    Other,
}

/// One string field of the records in a list.
#[derive(Debug)]
struct ListLeaf {
    name: String,
    leaf_idx: usize,
    /// Definition level from which on there is an element.
    element_level: i16,
}

/// One value.
#[derive(Debug)]
pub(super) enum Cell {
    Value(Value),
    /// A string column holds bytes that are no text.
    NotUtf8,
}

/// The plans of the wanted fields.
pub(super) fn plans(schema: &SchemaDescriptor, wanted: Wanted<'_>) -> Vec<ColumnPlan> {
    let fields = schema.root_schema().get_fields().iter().enumerate();
    fields
        .filter(|(_, field)| wanted.includes(field.name()))
        .map(|(field_idx, field)| ColumnPlan {
            name: field.name().to_owned(),
            shape: shape(schema, field_idx),
        })
        .collect()
}

impl ColumnPlan {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The leaf columns that are read.
    pub(super) fn leaves(&self) -> Vec<usize> {
        match &self.shape {
            Shape::Flat { leaf_idx } => vec![*leaf_idx],
            Shape::List { leaves } => leaves.iter().map(|leaf| leaf.leaf_idx).collect(),
            Shape::Other => Vec::new(),
        }
    }
}

fn shape(schema: &SchemaDescriptor, field_idx: usize) -> Shape {
    let leaves: Vec<usize> = (0..schema.num_columns())
        .filter(|&leaf_idx| schema.get_column_root_idx(leaf_idx) == field_idx)
        .collect();
    let descriptor = |leaf_idx: usize| schema.column(leaf_idx);
    if let [leaf_idx] = leaves[..] {
        let leaf = descriptor(leaf_idx);
        if leaf.path().parts().len() == 1 && leaf.max_rep_level() == 0 && has_value(&leaf) {
            return Shape::Flat { leaf_idx };
        }
    }
    let is_list_of_strings = leaves.iter().all(|&leaf_idx| {
        let leaf = descriptor(leaf_idx);
        leaf.max_rep_level() == 1 && leaf.physical_type() == PhysicalType::BYTE_ARRAY
    });
    if leaves.is_empty() || !is_list_of_strings {
        return Shape::Other;
    }
    let leaves = leaves
        .into_iter()
        .map(|leaf_idx| {
            let path = descriptor(leaf_idx).path().parts().to_vec();
            ListLeaf {
                name: path.last().cloned().unwrap_or_default(),
                leaf_idx,
                element_level: element_level(schema.root_schema(), &path),
            }
        })
        .collect();
    Shape::List { leaves }
}

fn has_value(leaf: &ColumnDescriptor) -> bool {
    match leaf.physical_type() {
        PhysicalType::BOOLEAN
        | PhysicalType::INT32
        | PhysicalType::INT64
        | PhysicalType::FLOAT
        | PhysicalType::DOUBLE
        | PhysicalType::BYTE_ARRAY => true,
        PhysicalType::INT96 | PhysicalType::FIXED_LEN_BYTE_ARRAY => false,
    }
}

/// The definition level at which the repeated field of `path` is there.
fn element_level(root: &Type, path: &[String]) -> i16 {
    let mut level = 0;
    let mut fields = root.get_fields();
    for part in path {
        let Some(field) = fields.iter().find(|field| field.name() == part) else {
            break;
        };
        match field.get_basic_info().repetition() {
            Repetition::REQUIRED => {}
            Repetition::OPTIONAL => level += 1,
            Repetition::REPEATED => return level + 1,
        }
        if field.is_primitive() {
            break;
        }
        fields = field.get_fields();
    }
    level
}

/// A column whose values are being read, of one row group.
pub(super) struct OpenColumn<'p> {
    plan: &'p ColumnPlan,
    leaves: Vec<Leaf>,
}

struct Leaf {
    reader: ColumnReader,
    max_def_level: i16,
    text: TextKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextKind {
    /// The schema says that the bytes are text.
    Declared,
    /// They may be.
    Guessed,
}

impl<'p> OpenColumn<'p> {
    pub(super) fn new(plan: &'p ColumnPlan, group: &dyn RowGroupReader) -> Result<Self> {
        let leaves = plan.leaves().into_iter().map(|leaf_idx| {
            let descriptor = group.metadata().column(leaf_idx).column_descr_ptr();
            let pages = CheckedPages::new(
                group.get_column_page_reader(leaf_idx)?,
                descriptor.physical_type(),
                descriptor.max_rep_level() > 0,
            );
            Ok(Leaf {
                max_def_level: descriptor.max_def_level(),
                text: text_kind(&descriptor),
                reader: get_column_reader(descriptor, Box::new(pages)),
            })
        });
        Ok(Self {
            plan,
            leaves: leaves.collect::<Result<_>>()?,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.plan.name
    }

    pub(super) fn place(&self, group_idx: usize) -> String {
        format!("row group {group_idx}, column `{}`", self.plan.name)
    }

    /// The next rows, fewer than `count` only at the end.
    pub(super) fn read(&mut self, count: usize) -> Result<Vec<Cell>> {
        match &self.plan.shape {
            Shape::Flat { .. } => self.leaves[0].read_flat(count),
            Shape::List { leaves } => {
                let mut rows: Vec<Vec<Map<String, Value>>> = Vec::new();
                let mut not_utf8 = vec![false; count];
                for (plan, leaf) in leaves.iter().zip(&mut self.leaves) {
                    let lists = leaf.read_lists(count, plan.element_level)?;
                    rows.resize_with(rows.len().max(lists.len()), Vec::new);
                    for (row_idx, list) in lists.into_iter().enumerate() {
                        let row = &mut rows[row_idx];
                        row.resize_with(row.len().max(list.len()), Map::new);
                        for (element, cell) in row.iter_mut().zip(list) {
                            match cell {
                                Cell::Value(value) => {
                                    element.insert(plan.name.clone(), value);
                                }
                                Cell::NotUtf8 => not_utf8[row_idx] = true,
                            }
                        }
                    }
                }
                let cells = rows.into_iter().zip(not_utf8).map(|(row, not_utf8)| {
                    if not_utf8 {
                        return Cell::NotUtf8;
                    }
                    Cell::Value(row.into_iter().map(Value::Object).collect())
                });
                Ok(cells.collect())
            }
            Shape::Other => Ok((0..count)
                .map(|_| Cell::Value(Value::Object(Map::new())))
                .collect()),
        }
    }
}

fn text_kind(descriptor: &ColumnDescriptor) -> TextKind {
    let is_declared = matches!(
        descriptor.logical_type_ref(),
        Some(LogicalType::String | LogicalType::Enum | LogicalType::Json)
    ) || matches!(
        descriptor.converted_type(),
        ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON
    );
    if is_declared {
        TextKind::Declared
    } else {
        TextKind::Guessed
    }
}

impl Leaf {
    fn read_flat(&mut self, count: usize) -> Result<Vec<Cell>> {
        let max_def_level = self.max_def_level;
        let text = self.text;
        match &mut self.reader {
            ColumnReader::BoolColumnReader(reader) => flat(reader, count, max_def_level, |value| {
                Cell::Value((*value).into())
            }),
            ColumnReader::Int32ColumnReader(reader) => {
                flat(reader, count, max_def_level, |value| {
                    Cell::Value((*value).into())
                })
            }
            ColumnReader::Int64ColumnReader(reader) => {
                flat(reader, count, max_def_level, |value| {
                    Cell::Value((*value).into())
                })
            }
            ColumnReader::FloatColumnReader(reader) => {
                flat(reader, count, max_def_level, |value| {
                    Cell::Value((*value).into())
                })
            }
            ColumnReader::DoubleColumnReader(reader) => {
                flat(reader, count, max_def_level, |value| {
                    Cell::Value((*value).into())
                })
            }
            ColumnReader::ByteArrayColumnReader(reader) => {
                flat(reader, count, max_def_level, |value| {
                    text_cell(value.data(), text)
                })
            }
            ColumnReader::Int96ColumnReader(_) | ColumnReader::FixedLenByteArrayColumnReader(_) => {
                unreachable!("no plan reads these types")
            }
        }
    }

    /// One list for each row.
    fn read_lists(&mut self, count: usize, element_level: i16) -> Result<Vec<Vec<Cell>>> {
        let ColumnReader::ByteArrayColumnReader(reader) = &mut self.reader else {
            unreachable!("lists are planned for strings only")
        };
        let (mut def_levels, mut rep_levels, mut values) = (Vec::new(), Vec::new(), Vec::new());
        read_rows(reader, count, |reader, missing| {
            reader.read_records(
                missing,
                Some(&mut def_levels),
                Some(&mut rep_levels),
                &mut values,
            )
        })?;
        let mut values = values.iter();
        let mut rows: Vec<Vec<Cell>> = Vec::new();
        for (&def_level, &rep_level) in def_levels.iter().zip(&rep_levels) {
            if rep_level == 0 || rows.is_empty() {
                rows.push(Vec::new());
            }
            if def_level < element_level {
                continue;
            }
            let value = if def_level == self.max_def_level {
                values.next()
            } else {
                None
            };
            let cell = value.map_or(Cell::Value(Value::Null), |value| {
                text_cell(value.data(), self.text)
            });
            if let Some(row) = rows.last_mut() {
                row.push(cell);
            }
        }
        Ok(rows)
    }
}

fn flat<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    count: usize,
    max_def_level: i16,
    to_cell: impl Fn(&T::T) -> Cell,
) -> Result<Vec<Cell>> {
    let (mut def_levels, mut values) = (Vec::new(), Vec::new());
    read_rows(reader, count, |reader, missing| {
        reader.read_records(missing, Some(&mut def_levels), None, &mut values)
    })?;
    if max_def_level == 0 {
        return Ok(values.iter().map(to_cell).collect());
    }
    let mut values = values.iter();
    let cells = def_levels.iter().map(|&level| {
        let value = if level == max_def_level {
            values.next()
        } else {
            None
        };
        value.map_or(Cell::Value(Value::Null), &to_cell)
    });
    Ok(cells.collect())
}

/// Calls `read` until `count` rows are there or no more come; one call may end at the border of a page.
fn read_rows<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    count: usize,
    mut read: impl FnMut(&mut ColumnReaderImpl<T>, usize) -> Result<(usize, usize, usize)>,
) -> Result<()> {
    let mut num_rows = 0;
    while num_rows < count {
        let (records, _, _) = read(reader, count - num_rows)?;
        if records == 0 {
            break;
        }
        num_rows += records;
    }
    Ok(())
}

fn text_cell(bytes: &[u8], kind: TextKind) -> Cell {
    match (std::str::from_utf8(bytes), kind) {
        (Ok(text), _) => Cell::Value(Value::String(text.to_owned())),
        (Err(_), TextKind::Declared) => Cell::NotUtf8,
        (Err(_), TextKind::Guessed) => Cell::Value(Value::Null),
    }
}
