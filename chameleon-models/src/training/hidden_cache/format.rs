//! The bytes of a cache file: header, table of examples, values.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use thiserror::Error;

use super::fingerprint::Fingerprint;
use super::{CacheSpec, HiddenCacheError};

const MAGIC: &[u8; 8] = b"CHAMHIDN";
const VERSION: u32 = 1;
const HEADER_LEN: usize = 128;
const CHECKED_LEN: usize = 72;
const ALIGNMENT: usize = 64;
pub(super) const JOURNAL_POSITION: u64 = 72;

/// How a value is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowType {
    /// 4 bytes, exact.
    F32,
    /// 2 bytes, 11 significant bits, at most 65504.
    F16,
    /// 2 bytes, 8 significant bits, the range of f32.
    Bf16,
}

impl RowType {
    /// Bytes of a value.
    pub fn num_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Appends `values` to `bytes`, or returns the first value that is not finite once converted.
    pub(super) fn encode(self, values: &[f32], bytes: &mut Vec<u8>) -> Result<(), f32> {
        bytes.reserve(values.len() * self.num_bytes());
        let bad = match self {
            Self::F32 => {
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                values.iter().position(|value| !value.is_finite())
            }
            Self::F16 => {
                let mut halves = vec![f16::ZERO; values.len()];
                halves.convert_from_f32_slice(values);
                bytes.extend(halves.iter().flat_map(|value| value.to_le_bytes()));
                halves.iter().position(|value| !value.is_finite())
            }
            Self::Bf16 => {
                let mut halves = vec![bf16::ZERO; values.len()];
                halves.convert_from_f32_slice(values);
                bytes.extend(halves.iter().flat_map(|value| value.to_le_bytes()));
                halves.iter().position(|value| !value.is_finite())
            }
        };
        bad.map_or(Ok(()), |value_idx| Err(values[value_idx]))
    }

    /// Appends the values in `bytes` to `values`.
    pub(super) fn decode(self, bytes: &[u8], values: &mut Vec<f32>) {
        let pairs = || bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
        match self {
            Self::F32 => values.extend(
                bytes
                    .chunks_exact(4)
                    .map(|quad| f32::from_le_bytes([quad[0], quad[1], quad[2], quad[3]])),
            ),
            Self::F16 => {
                let halves = pairs().map(f16::from_le_bytes).collect::<Vec<_>>();
                let start = values.len();
                values.resize(start + halves.len(), 0.0);
                halves.convert_to_f32_slice(&mut values[start..]);
            }
            // A bf16 is the upper half of an f32.
            Self::Bf16 => values.extend(
                pairs().map(|pair| f32::from_bits(u32::from(u16::from_le_bytes(pair)) << 16)),
            ),
        }
    }

    fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Bf16 => 2,
        }
    }

    fn from_code(code: u32) -> Option<Self> {
        [Self::F32, Self::F16, Self::Bf16]
            .into_iter()
            .find(|dtype| dtype.code() == code)
    }
}

impl fmt::Display for RowType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

/// Why a file is no cache that can be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CacheDefect {
    /// The first bytes are not ours.
    #[error("it does not start with the mark of a hidden-state cache")]
    NotACache,
    /// Written by another version of this program.
    #[error("it has format version {found}, expected {VERSION}")]
    Version {
        /// Version in the file.
        found: u32,
    },
    /// Bytes of the header were changed.
    #[error("its header is damaged")]
    Header,
    /// The table of examples contradicts itself or the header.
    #[error("its table of examples is damaged")]
    Table,
    /// Too short, or too long.
    #[error("it has {found} bytes, expected {expected}")]
    Length {
        /// Bytes of the file.
        found: u64,
        /// Bytes that its header announces.
        expected: u64,
    },
    /// Renamed before it was finished.
    #[error("it has {written} of {expected} examples")]
    Unfinished {
        /// Examples that are there.
        written: u64,
        /// Examples announced.
        expected: u64,
    },
    /// The model, the data or an option changed.
    #[error(
        "it was made from other data or another model: fingerprint {found}, expected {expected}"
    )]
    Fingerprint {
        /// Fingerprint in the file.
        found: Fingerprint,
        /// Fingerprint asked for.
        expected: Fingerprint,
    },
    /// The same fingerprint, and other sizes or another type.
    #[error("it holds other rows: {found}, expected {expected}")]
    Contents {
        /// What is in the file.
        found: String,
        /// What was asked for.
        expected: String,
    },
}

/// Reading failed, or it succeeded and the bytes are wrong.
#[derive(Debug)]
pub(super) enum ReadLayoutError {
    Read(io::Error),
    Defect(CacheDefect),
}

impl From<io::Error> for ReadLayoutError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl From<CacheDefect> for ReadLayoutError {
    fn from(defect: CacheDefect) -> Self {
        Self::Defect(defect)
    }
}

/// Where everything is. Holds: offsets start at 0, never fall, and all positions fit `u64` and `usize`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    fingerprint: Fingerprint,
    dtype: RowType,
    hidden_size: usize,
    /// First row of every example, then the number of rows.
    row_offsets: Vec<u64>,
}

/// The layout in a file and what its journal says.
#[derive(Debug)]
pub(super) struct FoundLayout {
    pub(super) layout: Layout,
    /// `None` if the journal is damaged.
    pub(super) num_written: Option<u64>,
    pub(super) file_bytes: u64,
}

impl Layout {
    pub(super) fn new(spec: &CacheSpec) -> Result<Self, HiddenCacheError> {
        assert!(spec.hidden_size > 0, "a row has at least one value");
        let too_large = || HiddenCacheError::TooLarge {
            num_examples: spec.rows_per_example.len(),
            hidden_size: spec.hidden_size,
        };
        let mut row_offsets = Vec::with_capacity(spec.rows_per_example.len() + 1);
        let mut num_rows = 0_u64;
        row_offsets.push(0);
        for &rows in &spec.rows_per_example {
            num_rows = num_rows.checked_add(rows as u64).ok_or_else(too_large)?;
            row_offsets.push(num_rows);
        }
        let layout = Self {
            fingerprint: spec.fingerprint,
            dtype: spec.dtype,
            hidden_size: spec.hidden_size,
            row_offsets,
        };
        checked_file_bytes(
            spec.rows_per_example.len() as u64,
            num_rows,
            spec.hidden_size as u64,
            spec.dtype,
        )
        .ok_or_else(too_large)?;
        Ok(layout)
    }

    /// Reads header and table, believing nothing before it is checked against the length of the file.
    pub(super) fn read(file: &File) -> Result<FoundLayout, ReadLayoutError> {
        let file_bytes = file.metadata()?.len();
        let mut header = [0; HEADER_LEN];
        let present = usize::try_from(file_bytes).map_or(HEADER_LEN, |len| len.min(HEADER_LEN));
        read_exact_at(file, &mut header[..present], 0)?;
        if &header[..8] != MAGIC {
            return Err(CacheDefect::NotACache.into());
        }
        let short = |expected| CacheDefect::Length {
            found: file_bytes,
            expected,
        };
        if present < HEADER_LEN {
            return Err(short(HEADER_LEN as u64).into());
        }
        let version = u32_at(&header, 8);
        if version != VERSION {
            return Err(CacheDefect::Version { found: version }.into());
        }
        let dtype = RowType::from_code(u32_at(&header, 12)).ok_or(CacheDefect::Header)?;
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(&header[16..48]);
        let hidden_size = u64_at(&header, 48);
        let num_examples = u64_at(&header, 56);
        let num_rows = u64_at(&header, 64);
        let written = u64_at(&header, 72);
        let num_written =
            (u64_at(&header, 80) == !written && written <= num_examples).then_some(written);

        if hidden_size == 0
            || checked_file_bytes(num_examples, num_rows, hidden_size, dtype).is_none()
        {
            return Err(CacheDefect::Header.into());
        }
        let table_end = rows_position(num_examples).ok_or(CacheDefect::Header)?;
        if file_bytes < table_end {
            return Err(short(table_end).into());
        }
        let table = read_table(file, num_examples)?;
        let intact = u64_at(&header, 88) == checksum(&[&header[..CHECKED_LEN], &table])
            && header[96..].iter().all(|&byte| byte == 0);
        if !intact {
            return Err(CacheDefect::Header.into());
        }
        let row_offsets = sound_offsets(&table, num_rows).ok_or(CacheDefect::Table)?;
        Ok(FoundLayout {
            layout: Self {
                fingerprint: Fingerprint::from_bytes(fingerprint),
                dtype,
                hidden_size: usize::try_from(hidden_size).map_err(|_| CacheDefect::Header)?,
                row_offsets,
            },
            num_written,
            file_bytes,
        })
    }

    /// Header and table with an empty journal, up to the first row.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + 8 * self.row_offsets.len() + 64);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.dtype.code().to_le_bytes());
        bytes.extend(self.fingerprint.as_bytes());
        bytes.extend((self.hidden_size as u64).to_le_bytes());
        bytes.extend((self.num_examples() as u64).to_le_bytes());
        bytes.extend((self.num_rows() as u64).to_le_bytes());
        let mut table = Vec::with_capacity(8 * self.row_offsets.len());
        table.extend(self.row_offsets.iter().flat_map(|row| row.to_le_bytes()));
        let sum = checksum(&[&bytes, &table]);
        bytes.extend(journal(0));
        bytes.extend(sum.to_le_bytes());
        bytes.resize(HEADER_LEN, 0);
        bytes.extend(table);
        bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
        bytes
    }

    /// How this file differs from what is wanted.
    pub(super) fn differs_from(&self, wanted: &Self) -> Option<CacheDefect> {
        if self.fingerprint != wanted.fingerprint {
            return Some(CacheDefect::Fingerprint {
                found: self.fingerprint,
                expected: wanted.fingerprint,
            });
        }
        (self != wanted).then(|| CacheDefect::Contents {
            found: self.summary(),
            expected: wanted.summary(),
        })
    }

    pub(super) fn num_examples(&self) -> usize {
        self.row_offsets.len() - 1
    }

    pub(super) fn num_rows(&self) -> usize {
        as_index(self.row_offsets[self.num_examples()])
    }

    pub(super) fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    pub(super) fn dtype(&self) -> RowType {
        self.dtype
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(super) fn row_bytes(&self) -> usize {
        self.hidden_size * self.dtype.num_bytes()
    }

    pub(super) fn example_rows(&self, example_idx: usize) -> Range<usize> {
        as_index(self.row_offsets[example_idx])..as_index(self.row_offsets[example_idx + 1])
    }

    /// Where a row begins in the file; for one past the last, where the file ends.
    pub(super) fn row_position(&self, row: usize) -> u64 {
        let table_end = (HEADER_LEN as u64) + 8 * self.row_offsets.len() as u64;
        table_end.next_multiple_of(ALIGNMENT as u64) + row as u64 * self.row_bytes() as u64
    }

    /// Where the rows of the first `num_written` examples end in the file.
    pub(super) fn end_of_examples(&self, num_written: usize) -> u64 {
        self.row_position(as_index(self.row_offsets[num_written]))
    }

    pub(super) fn finished_bytes(&self) -> u64 {
        self.row_position(self.num_rows())
    }

    fn summary(&self) -> String {
        format!(
            "{} examples, {} rows of {} {}",
            self.num_examples(),
            self.num_rows(),
            self.hidden_size,
            self.dtype
        )
    }
}

impl FoundLayout {
    /// The layout, if all rows and nothing else are there.
    pub(super) fn finished(self) -> Result<Layout, ReadLayoutError> {
        let expected = self.layout.num_examples() as u64;
        match self.num_written {
            Some(written) if written == expected => {}
            Some(written) => return Err(CacheDefect::Unfinished { written, expected }.into()),
            None => return Err(CacheDefect::Header.into()),
        }
        let expected = self.layout.finished_bytes();
        if self.file_bytes != expected {
            return Err(CacheDefect::Length {
                found: self.file_bytes,
                expected,
            }
            .into());
        }
        Ok(self.layout)
    }
}

/// The two numbers that say how many examples are written.
pub(super) fn journal(num_written: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&num_written.to_le_bytes());
    bytes[8..].copy_from_slice(&(!num_written).to_le_bytes());
    bytes
}

#[cfg(unix)]
pub(super) fn read_exact_at(file: &File, bytes: &mut [u8], position: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, position)
}

#[cfg(windows)]
pub(super) fn read_exact_at(
    file: &File,
    mut bytes: &mut [u8],
    mut position: u64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, position) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(num_read) => {
                bytes = &mut bytes[num_read..];
                position += num_read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The bytes of the table; its length was checked against that of the file.
fn read_table(file: &File, num_examples: u64) -> Result<Vec<u8>, ReadLayoutError> {
    let len = usize::try_from(num_examples).map_err(|_| CacheDefect::Header)? + 1;
    let mut bytes = vec![0; len * 8];
    read_exact_at(file, &mut bytes, HEADER_LEN as u64)?;
    Ok(bytes)
}

/// The offsets in the table, if they start at 0, never fall and end at `num_rows`.
fn sound_offsets(table: &[u8], num_rows: u64) -> Option<Vec<u64>> {
    let row_offsets = (0..table.len() / 8)
        .map(|idx| u64_at(table, idx * 8))
        .collect::<Vec<_>>();
    let sound = row_offsets.first() == Some(&0)
        && row_offsets.is_sorted()
        && row_offsets.last() == Some(&num_rows);
    sound.then_some(row_offsets)
}

/// Where the first row begins.
fn rows_position(num_examples: u64) -> Option<u64> {
    num_examples
        .checked_add(1)?
        .checked_mul(8)?
        .checked_add(HEADER_LEN as u64)?
        .checked_next_multiple_of(ALIGNMENT as u64)
}

/// Bytes of a finished file, or `None` if no file, or no memory, has so many.
fn checked_file_bytes(
    num_examples: u64,
    num_rows: u64,
    hidden_size: u64,
    dtype: RowType,
) -> Option<u64> {
    let bytes = num_rows
        .checked_mul(hidden_size)?
        .checked_mul(dtype.num_bytes() as u64)?
        .checked_add(rows_position(num_examples)?)?;
    // File positions are signed in every system, and rows are counted in `usize`.
    let fits = i64::try_from(bytes).is_ok() && usize::try_from(bytes).is_ok();
    fits.then_some(bytes)
}

/// Only for counts that [`checked_file_bytes`] has found to fit.
fn as_index(count: u64) -> usize {
    usize::try_from(count).expect("the layout is checked to fit")
}

fn u32_at(bytes: &[u8], position: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[position..position + 4]);
    u32::from_le_bytes(four)
}

fn u64_at(bytes: &[u8], position: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[position..position + 8]);
    u64::from_le_bytes(eight)
}

/// FNV-1a over the parts one after the other: finds accidents, not attackers.
pub(super) fn checksum(parts: &[&[u8]]) -> u64 {
    let bytes = parts.iter().copied().flatten();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
