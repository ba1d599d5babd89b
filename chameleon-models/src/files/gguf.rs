//! The GGUF container: metadata and tensors by name.
//!
//! Nothing in the file is trusted: every length is checked against the bytes that are left, every
//! tensor must lie inside the file, apart from the others, under a name of its own. What the names
//! mean is defined by [`name_table`](super::name_table), what the values mean by [`gguf_config`](super::gguf_config).
//!
//! A model may be in several files, its parts: the first has the metadata, each has some of the tensors.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use chameleon_core::stored::{StoredBytes, TensorDtype};

use crate::error::ModelError;
use crate::files::file_bytes::FileBytes;

const MAGIC: &[u8; 4] = b"GGUF";
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_DIMS: u32 = 4;

/// A GGUF file, or all parts of one, whose headers have been read and checked.
#[derive(Debug)]
pub(crate) struct GgufFile {
    /// The file, or its parts in order.
    parts: Vec<Arc<FileBytes>>,
    metadata: BTreeMap<String, MetadataValue>,
    tensors: BTreeMap<String, GgufTensor>,
}

/// A metadata value. Numbers of all widths are one kind: writers do not agree on widths.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MetadataValue {
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    Bools(Vec<bool>),
    Integers(Vec<i64>),
    Floats(Vec<f32>),
    Texts(Vec<String>),
}

/// Where a tensor is and what it looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GgufTensor {
    /// Outermost axis first, as everywhere in this crate (the file has it the other way round).
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: TensorDtype,
    part_idx: usize,
    start: usize,
    end: usize,
}

impl GgufFile {
    /// Reads the header of a file.
    pub(crate) fn parse(bytes: FileBytes) -> Result<Self, ModelError> {
        let mut cursor = Cursor {
            path: bytes.path(),
            rest: &bytes,
            file_len: bytes.len(),
        };
        let (num_tensors, num_values) = cursor.preamble()?;

        let mut metadata = BTreeMap::new();
        for index in 0..num_values {
            let key = cursor.text(|| format!("the key of metadata value {index}"))?;
            let value_type = cursor.u32(|| format!("metadata `{key}`"))?;
            let value = cursor.value(&key, value_type)?;
            cursor.insert_once(&mut metadata, key, value)?;
        }

        let alignment = alignment(bytes.path(), &metadata)?;
        let mut declared = BTreeMap::new();
        for index in 0..num_tensors {
            let name = cursor.text(|| format!("the name of tensor {index}"))?;
            let tensor = cursor.tensor(&name)?;
            cursor.insert_once(&mut declared, name, tensor)?;
        }

        let data_start = (cursor.position() as u64).next_multiple_of(alignment);
        let tensors = place(&bytes, declared, data_start, alignment)?;
        Ok(Self {
            parts: vec![Arc::new(bytes)],
            metadata,
            tensors,
        })
    }

    /// Adds the tensors of the next part.
    pub(crate) fn add_part(&mut self, part: Self) -> Result<(), ModelError> {
        let part_idx = self.parts.len();
        for (name, mut tensor) in part.tensors {
            tensor.part_idx = part_idx;
            if self.tensors.insert(name.clone(), tensor).is_some() {
                return Err(ModelError::DuplicateName {
                    path: part.parts[0].path().to_path_buf(),
                    name,
                });
            }
        }
        self.parts.extend(part.parts);
        Ok(())
    }

    /// The file, or its first part.
    pub(crate) fn path(&self) -> &Path {
        self.parts[0].path()
    }

    pub(crate) fn tensors(&self) -> &BTreeMap<String, GgufTensor> {
        &self.tensors
    }

    /// A tensor's values, row by row.
    pub(crate) fn read_f32(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let tensor = self
            .tensors
            .get(name)
            .ok_or_else(|| ModelError::TensorMissing {
                path: self.path().to_path_buf(),
                name: name.to_owned(),
            })?;
        Ok(self.parts[tensor.part_idx].decode(tensor.dtype, tensor.start..tensor.end))
    }

    /// The bytes of a tensor as they are stored.
    pub(crate) fn stored(&self, name: &str) -> Option<StoredBytes> {
        let tensor = self.tensors.get(name)?;
        let part = Arc::clone(&self.parts[tensor.part_idx]);
        StoredBytes::new(part, tensor.start..tensor.end)
    }

    /// Whether two tensors are the same bytes in the same shape.
    pub(crate) fn stored_alike(&self, first: &str, second: &str) -> bool {
        let tensor = |name| self.tensors.get(name).zip(self.stored(name));
        let (Some((first, first_bytes)), Some((second, second_bytes))) =
            (tensor(first), tensor(second))
        else {
            return false;
        };
        first.shape == second.shape && first.dtype == second.dtype && *first_bytes == *second_bytes
    }

    pub(crate) fn value(&self, key: &str) -> Option<&MetadataValue> {
        self.metadata.get(key)
    }

    /// A text, if the key is there.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>, ModelError> {
        match self.value(key) {
            None => Ok(None),
            Some(MetadataValue::Text(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong_value(key, "a text")),
        }
    }

    /// A yes or no, if the key is there.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, ModelError> {
        match self.value(key) {
            None => Ok(None),
            Some(MetadataValue::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.wrong_value(key, "true or false")),
        }
    }

    /// A count, if the key is there.
    pub(crate) fn count(&self, key: &str) -> Result<Option<usize>, ModelError> {
        match self.value(key) {
            None => Ok(None),
            Some(MetadataValue::Integer(count)) if u32::try_from(*count).is_ok() => {
                Ok(usize::try_from(*count).ok())
            }
            Some(_) => Err(self.wrong_value(key, "a count")),
        }
    }

    /// A token id, if the key is there. Files in the wild write -1 for "none".
    pub(crate) fn token_id(&self, key: &str) -> Result<Option<u32>, ModelError> {
        match self.value(key) {
            None | Some(MetadataValue::Integer(-1)) => Ok(None),
            Some(MetadataValue::Integer(id)) => match u32::try_from(*id) {
                Ok(u32::MAX) => Ok(None),
                Ok(id) => Ok(Some(id)),
                Err(_) => Err(self.wrong_value(key, "a token id")),
            },
            Some(_) => Err(self.wrong_value(key, "a token id")),
        }
    }

    /// A number, if the key is there.
    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>, ModelError> {
        match self.value(key) {
            None => Ok(None),
            Some(MetadataValue::Float(number)) if number.is_finite() => Ok(Some(*number)),
            Some(MetadataValue::Integer(number)) => Ok(Some(*number as f64)),
            Some(_) => Err(self.wrong_value(key, "a finite number")),
        }
    }

    /// A list of texts, if the key is there.
    pub(crate) fn texts(&self, key: &str) -> Result<Option<&[String]>, ModelError> {
        match self.value(key) {
            None => Ok(None),
            Some(MetadataValue::Texts(texts)) => Ok(Some(texts)),
            Some(_) => Err(self.wrong_value(key, "a list of texts")),
        }
    }

    /// The error for a key that holds the wrong thing, or nothing.
    pub(crate) fn wrong_value(&self, key: &str, expected: &'static str) -> ModelError {
        ModelError::ConfigValue {
            path: self.path().to_path_buf(),
            key: key.to_owned(),
            expected,
            found: self
                .value(key)
                .map_or_else(|| "nothing".to_owned(), describe),
        }
    }
}

fn describe(value: &MetadataValue) -> String {
    match value {
        MetadataValue::Bool(flag) => flag.to_string(),
        MetadataValue::Integer(number) => number.to_string(),
        MetadataValue::Float(number) => number.to_string(),
        MetadataValue::Text(text) => {
            format!("the text `{}`", text.chars().take(40).collect::<String>())
        }
        MetadataValue::Bools(list) => format!("a list of {} flags", list.len()),
        MetadataValue::Integers(list) => format!("a list of {} integers", list.len()),
        MetadataValue::Floats(list) => format!("a list of {} numbers", list.len()),
        MetadataValue::Texts(list) => format!("a list of {} texts", list.len()),
    }
}

fn alignment(path: &Path, metadata: &BTreeMap<String, MetadataValue>) -> Result<u64, ModelError> {
    const KEY: &str = "general.alignment";
    let found = match metadata.get(KEY) {
        None => return Ok(DEFAULT_ALIGNMENT),
        Some(MetadataValue::Integer(found)) => *found,
        Some(other) => {
            return Err(ModelError::ConfigValue {
                path: path.to_path_buf(),
                key: KEY.to_owned(),
                expected: "a count",
                found: describe(other),
            });
        }
    };
    match u32::try_from(found) {
        Ok(alignment) if alignment > 0 && alignment.is_multiple_of(8) => Ok(u64::from(alignment)),
        _ => Err(ModelError::GgufHeader {
            path: path.to_path_buf(),
            problem: format!("general.alignment is {found}, expected a positive multiple of 8"),
        }),
    }
}

/// A tensor as the header declares it.
struct DeclaredTensor {
    shape: Vec<usize>,
    dtype: TensorDtype,
    num_bytes: u64,
    offset: u64,
}

/// Turns offsets into places in the file, and checks that these are inside and apart.
fn place(
    bytes: &FileBytes,
    declared: BTreeMap<String, DeclaredTensor>,
    data_start: u64,
    alignment: u64,
) -> Result<BTreeMap<String, GgufTensor>, ModelError> {
    let path = bytes.path();
    let mut tensors = BTreeMap::new();
    for (name, tensor) in declared {
        if !tensor.offset.is_multiple_of(alignment) {
            let offset = tensor.offset;
            return Err(ModelError::GgufHeader {
                path: path.to_path_buf(),
                problem: format!(
                    "tensor `{name}` starts at offset {offset}, expected a multiple of {alignment}"
                ),
            });
        }
        let start = data_start.saturating_add(tensor.offset);
        let end = start.saturating_add(tensor.num_bytes);
        if end > bytes.len() as u64 {
            return Err(ModelError::TensorOutsideFile {
                path: path.to_path_buf(),
                name,
                end,
                file_len: bytes.len() as u64,
            });
        }
        let fits = "a place inside the file fits in memory";
        let placed = GgufTensor {
            shape: tensor.shape,
            dtype: tensor.dtype,
            part_idx: 0,
            start: usize::try_from(start).expect(fits),
            end: usize::try_from(end).expect(fits),
        };
        tensors.insert(name, placed);
    }

    let mut in_order: Vec<_> = tensors.iter().collect();
    in_order.sort_by_key(|(_, tensor)| tensor.start);
    for pair in in_order.windows(2) {
        let [(first, before), (second, after)] = [pair[0], pair[1]];
        if after.start < before.end {
            return Err(ModelError::TensorsOverlap {
                path: path.to_path_buf(),
                first: first.clone(),
                second: second.clone(),
            });
        }
    }
    Ok(tensors)
}

/// Reads the header front to back. Every read names its part, for the message when the file ends.
struct Cursor<'a> {
    path: &'a Path,
    rest: &'a [u8],
    file_len: usize,
}

impl<'a> Cursor<'a> {
    fn position(&self) -> usize {
        self.file_len - self.rest.len()
    }

    fn take(&mut self, len: u64, part: impl Fn() -> String) -> Result<&'a [u8], ModelError> {
        let split = usize::try_from(len)
            .ok()
            .and_then(|len| self.rest.split_at_checked(len));
        let Some((taken, rest)) = split else {
            return Err(ModelError::Truncated {
                path: self.path.to_path_buf(),
                part: part(),
                needed: len,
                available: self.rest.len() as u64,
            });
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, part: impl Fn() -> String) -> Result<[u8; N], ModelError> {
        let taken = self.take(N as u64, part)?;
        Ok(taken.try_into().expect("as many bytes as asked for"))
    }

    fn u32(&mut self, part: impl Fn() -> String) -> Result<u32, ModelError> {
        Ok(u32::from_le_bytes(self.array(part)?))
    }

    fn u64(&mut self, part: impl Fn() -> String) -> Result<u64, ModelError> {
        Ok(u64::from_le_bytes(self.array(part)?))
    }

    fn text(&mut self, part: impl Fn() -> String) -> Result<String, ModelError> {
        let len = self.u64(&part)?;
        let bytes = self.take(len, &part)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(self.header_error(format!("{} is not valid UTF-8", part()))),
        }
    }

    /// Magic, version and the two counts: tensors, metadata values.
    fn preamble(&mut self) -> Result<(u64, u64), ModelError> {
        if !self.rest.starts_with(MAGIC) {
            return Err(ModelError::NotGguf {
                path: self.path.to_path_buf(),
                found: self.rest[..self.rest.len().min(4)].to_vec(),
            });
        }
        self.take(4, || "the magic".to_owned())?;
        let version = self.u32(|| "the version".to_owned())?;
        if !(2..=3).contains(&version) {
            return Err(self.header_error(format!(
                "GGUF version {version}; versions 2 and 3 (little-endian) are supported"
            )));
        }
        let num_tensors = self.u64(|| "the number of tensors".to_owned())?;
        let num_values = self.u64(|| "the number of metadata values".to_owned())?;
        Ok((num_tensors, num_values))
    }

    fn value(&mut self, key: &str, value_type: u32) -> Result<MetadataValue, ModelError> {
        let part = || format!("metadata `{key}`");
        Ok(match value_type {
            0 => MetadataValue::Integer(u8::from_le_bytes(self.array(part)?).into()),
            1 => MetadataValue::Integer(i8::from_le_bytes(self.array(part)?).into()),
            2 => MetadataValue::Integer(u16::from_le_bytes(self.array(part)?).into()),
            3 => MetadataValue::Integer(i16::from_le_bytes(self.array(part)?).into()),
            4 => MetadataValue::Integer(u32::from_le_bytes(self.array(part)?).into()),
            5 => MetadataValue::Integer(i32::from_le_bytes(self.array(part)?).into()),
            6 => MetadataValue::Float(shortest_decimal(f32::from_le_bytes(self.array(part)?))),
            7 => MetadataValue::Bool(self.array::<1>(part)? != [0]),
            8 => MetadataValue::Text(self.text(part)?),
            9 => self.list(key)?,
            10 => MetadataValue::Integer(u64::from_le_bytes(self.array(part)?).into()),
            11 => MetadataValue::Integer(i64::from_le_bytes(self.array(part)?).into()),
            12 => MetadataValue::Float(f64::from_le_bytes(self.array(part)?)),
            _ => return Err(self.unknown_type(key, value_type)),
        })
    }

    /// A list of plain values; lists of lists are refused, no model has them.
    fn list(&mut self, key: &str) -> Result<MetadataValue, ModelError> {
        let part = || format!("metadata `{key}`");
        let item_type = self.u32(part)?;
        let len = self.u64(part)?;
        Ok(match item_type {
            0 => MetadataValue::Integers(
                self.items(len, part, |b: [u8; 1]| u8::from_le_bytes(b).into())?,
            ),
            1 => MetadataValue::Integers(self.items(len, part, |b| i8::from_le_bytes(b).into())?),
            2 => MetadataValue::Integers(self.items(len, part, |b| u16::from_le_bytes(b).into())?),
            3 => MetadataValue::Integers(self.items(len, part, |b| i16::from_le_bytes(b).into())?),
            4 => MetadataValue::Integers(self.items(len, part, |b| u32::from_le_bytes(b).into())?),
            5 => MetadataValue::Integers(self.items(len, part, |b| i32::from_le_bytes(b).into())?),
            6 => MetadataValue::Floats(self.items(len, part, f32::from_le_bytes)?),
            7 => MetadataValue::Bools(self.items(len, part, |b: [u8; 1]| b != [0])?),
            8 => {
                let mut texts = Vec::new(); // grown as bytes are found, never from the length alone
                for index in 0..len {
                    texts.push(self.text(|| format!("text {index} of metadata `{key}`"))?);
                }
                MetadataValue::Texts(texts)
            }
            10 | 11 => MetadataValue::Integers(self.items(len, part, i64::from_le_bytes)?),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "no list needs more than 24 bits"
            )]
            12 => MetadataValue::Floats(self.items(len, part, |b| f64::from_le_bytes(b) as f32)?),
            _ => return Err(self.unknown_type(key, item_type)),
        })
    }

    fn items<const N: usize, T>(
        &mut self,
        len: u64,
        part: impl Fn() -> String,
        decode: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, ModelError> {
        let bytes = self.take(len.saturating_mul(N as u64), part)?;
        let (items, _) = bytes.as_chunks::<N>();
        Ok(items.iter().map(|item| decode(*item)).collect())
    }

    fn tensor(&mut self, name: &str) -> Result<DeclaredTensor, ModelError> {
        let part = || format!("the description of tensor `{name}`");
        let num_dims = self.u32(part)?;
        let mut dims = Vec::new();
        for _ in 0..num_dims.min(MAX_DIMS) {
            dims.push(self.u64(part)?);
        }
        let impossible = |dims: Vec<u64>| ModelError::ImpossibleShape {
            path: self.path.to_path_buf(),
            name: name.to_owned(),
            found: dims,
        };
        if num_dims == 0 || num_dims > MAX_DIMS || dims.contains(&0) {
            return Err(impossible(dims));
        }
        let num_values = dims
            .iter()
            .try_fold(1_u64, |product, &dim| product.checked_mul(dim));
        let shape: Option<Vec<usize>> = dims
            .iter()
            .rev()
            .map(|&dim| usize::try_from(dim).ok())
            .collect();
        // 2^48 values are a petabyte; below that no later product can overflow.
        let (Some(num_values @ 1..=0x1_0000_0000_0000), Some(shape)) = (num_values, shape) else {
            return Err(impossible(dims));
        };

        let number = self.u32(part)?;
        let Some(dtype) = TensorDtype::from_gguf(number) else {
            return Err(ModelError::UnsupportedDtype {
                path: self.path.to_path_buf(),
                name: name.to_owned(),
                found: dtype_name(number),
            });
        };
        let row_len = shape[shape.len() - 1];
        if !row_len.is_multiple_of(dtype.block_len()) {
            let block_len = dtype.block_len();
            return Err(self.header_error(format!(
                "rows of tensor `{name}` have {row_len} values, {dtype} comes in blocks of {block_len}"
            )));
        }
        Ok(DeclaredTensor {
            shape,
            dtype,
            num_bytes: num_values / dtype.block_len() as u64 * dtype.block_bytes() as u64,
            offset: self.u64(part)?,
        })
    }

    fn insert_once<T>(
        &self,
        map: &mut BTreeMap<String, T>,
        name: String,
        value: T,
    ) -> Result<(), ModelError> {
        match map.entry(name) {
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(value);
                Ok(())
            }
            std::collections::btree_map::Entry::Occupied(taken) => Err(ModelError::DuplicateName {
                path: self.path.to_path_buf(),
                name: taken.key().clone(),
            }),
        }
    }

    fn unknown_type(&self, key: &str, found: u32) -> ModelError {
        self.header_error(format!(
            "metadata `{key}` has the unknown value type {found}"
        ))
    }

    fn header_error(&self, problem: String) -> ModelError {
        ModelError::GgufHeader {
            path: self.path.to_path_buf(),
            problem,
        }
    }
}

/// The double nearest to what the float was written as: 1e-5, not 9.999999747378752e-6.
fn shortest_decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// What a tensor type that is not read here is called elsewhere.
fn dtype_name(number: u32) -> String {
    let known = match number {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        40 => "NVFP4",
        _ => return format!("the unknown type {number}"),
    };
    known.to_owned()
}
