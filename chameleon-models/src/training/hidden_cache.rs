//! Frozen hidden states, computed once and stored on disk.
//!
//! When only the head of a model adapts, the states before it are the same in every epoch, for every method and every
//! seed. This module owns the folder in which they are stored; the caller decides how they are computed and which
//! positions of a sequence are stored.
//!
//! The folder holds one safetensors file for each chunk of consecutive examples, `0-64.safetensors` and so on, with
//! one tensor, `states` of shape `[rows, hidden]`. Its metadata names the fingerprint and the examples. A file is
//! written atomically, and one that is missing, truncated or has another fingerprint is computed again: an interrupted
//! fill continues after the chunks that exist, and two processes that fill one folder write identical files. Values are
//! not verified. Files are mapped into memory: a batch of rows is read without reading its chunk, and its pages are
//! given back.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use half::f16;
use half::slice::HalfFloatSliceExt as _;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use thiserror::Error;

use crate::error::ModelError;
use crate::files::atomic_file;
use crate::files::file_bytes::FileBytes;
use crate::files::fingerprint::Fingerprint;

/// Examples whose states are computed together: the fastest of 4, 8 and 16 on two cores.
const EXAMPLES_PER_PASS: usize = 8;
/// A chunk ends with the pass that brings it to this size; an interrupted process loses at most one chunk.
const CHUNK_BYTES: usize = 4 << 20;

const TENSOR: &str = "states";
const FINGERPRINT: &str = "fingerprint";
const EXAMPLES: &str = "examples";

/// The stored type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowType {
    /// 4 bytes, exact.
    F32,
    /// 2 bytes, 11 significant bits, at most 65504.
    F16,
}

/// Description of a cache.
#[derive(Debug, Clone)]
pub(crate) struct CacheSpec {
    /// The fingerprint of the states' inputs.
    pub(crate) fingerprint: Fingerprint,
    /// Values of a row, at least 1.
    pub(crate) hidden_size: usize,
    /// The stored type of a value.
    pub(crate) row_type: RowType,
    /// Rows of every example, in order.
    pub(crate) rows_per_example: Vec<usize>,
}

/// An error of filling a cache.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HiddenCacheError {
    /// The disk is full, or the folder may not be written. Chunks that were written before are kept.
    #[error("cannot write hidden-state cache {}, which takes {total_bytes} bytes when finished", folder.display())]
    Write {
        /// The folder of the cache.
        folder: PathBuf,
        /// The size of all rows.
        total_bytes: usize,
        /// The cause.
        #[source]
        source: ModelError,
    },
    /// A chunk that was written is missing or changed.
    #[error("{} was changed while the hidden-state cache was filled", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The model gave a NaN or an infinite value, or one too large for the stored type.
    #[error("example {example_idx} has the value {value}, which {row_type} cannot hold")]
    NotFinite {
        /// The example.
        example_idx: usize,
        /// The first such value.
        value: f32,
        /// The stored type.
        row_type: RowType,
    },
}

/// A complete cache, open for reading; it may be shared between threads.
#[derive(Debug)]
pub struct HiddenCache {
    hidden_size: usize,
    row_type: RowType,
    /// The first row of every example, then the number of rows.
    row_offsets: Vec<usize>,
    chunks: Vec<Chunk>,
    /// Rows at the start of each example that are left out.
    skipped_rows: usize,
}

impl HiddenCache {
    /// Opens the cache in `folder`, after computing its missing chunks; `None` if `compute` returns `None`.
    ///
    /// `compute` receives the next examples, and the number of examples whose states are finished. It returns
    /// their rows one after the other, `[rows, hidden]`, or `None` to stop.
    ///
    /// # Panics
    /// If `compute` returns rows of another number or size than `spec` has.
    pub(crate) fn open_or_fill(
        folder: &Path,
        spec: &CacheSpec,
        mut compute: impl FnMut(Range<usize>, usize) -> Option<Tensor<2>>,
    ) -> Result<Option<Self>, HiddenCacheError> {
        let row_offsets = spec.row_offsets();
        let total_bytes = row_offsets[row_offsets.len() - 1] * spec.row_bytes();
        let write_error = |source| HiddenCacheError::Write {
            folder: folder.to_owned(),
            total_bytes,
            source,
        };
        std::fs::create_dir_all(folder).map_err(|source| {
            write_error(ModelError::Write {
                path: folder.to_owned(),
                source,
            })
        })?;
        let places = spec.chunks(folder, &row_offsets);
        let mut found: Vec<_> = places
            .iter()
            .map(|place| Chunk::open(place, spec))
            .collect();
        let there = places
            .iter()
            .zip(&found)
            .filter(|(_, found)| found.is_some());
        let mut num_done = there.map(|(place, _)| place.examples.len()).sum();
        for (place, chunk) in places.iter().zip(&mut found) {
            if chunk.is_some() {
                continue;
            }
            let mut values = Vec::with_capacity(place.rows.len() * spec.row_bytes());
            for pass in passes(place.examples.clone()) {
                let Some(rows) = compute(pass.clone(), num_done) else {
                    return Ok(None);
                };
                spec.encode(rows, &row_offsets, pass.clone(), &mut values)?;
                num_done += pass.len();
            }
            place.write(&values, spec).map_err(write_error)?;
            *chunk = Chunk::open(place, spec);
            if chunk.is_none() {
                return Err(HiddenCacheError::Changed {
                    path: place.path.clone(),
                });
            }
        }
        Ok(Some(Self {
            hidden_size: spec.hidden_size,
            row_type: spec.row_type,
            row_offsets,
            chunks: found.into_iter().flatten().collect(),
            skipped_rows: 0,
        }))
    }

    /// The same states without the first rows of each example, for a later first scored token.
    ///
    /// # Panics
    /// If an example has only that many rows or fewer.
    #[must_use]
    pub fn without_first(mut self, num_rows: usize) -> Self {
        self.skipped_rows += num_rows;
        for (example_idx, rows) in self.row_offsets.windows(2).enumerate() {
            let found = rows[1] - rows[0];
            assert!(
                found > self.skipped_rows,
                "example {example_idx} has {found} rows, {} were to be left out",
                self.skipped_rows
            );
        }
        self
    }

    /// The rows of some examples, one after the other in the order given.
    ///
    /// # Shapes
    /// - output: `[rows, hidden]`, the rows of all the examples together
    ///
    /// # Panics
    /// If there is no such example.
    pub fn gather(&self, example_indices: &[usize], device: &Device) -> Tensor<2> {
        let rows_of = |&example_idx: &usize| {
            self.row_offsets[example_idx] + self.skipped_rows..self.row_offsets[example_idx + 1]
        };
        let num_rows = example_indices
            .iter()
            .map(|idx| rows_of(idx).len())
            .sum::<usize>();
        let mut values = Vec::with_capacity(num_rows * self.hidden_size);
        for rows in example_indices.iter().map(rows_of) {
            if rows.is_empty() {
                continue;
            }
            let (file, place) = self.place(&rows);
            self.row_type.decode(&file[place.clone()], &mut values);
            // They are needed again in the next epoch, and until then not in memory.
            file.release(place);
        }
        let shape = [num_rows, self.hidden_size];
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// The file of some rows of one example, and where in it they are.
    fn place(&self, rows: &Range<usize>) -> (&FileBytes, Range<usize>) {
        let chunk_idx = self
            .chunks
            .partition_point(|chunk| chunk.rows.end <= rows.start);
        let chunk = &self.chunks[chunk_idx];
        let row_bytes = self.hidden_size * self.row_type.num_bytes();
        let start = chunk.data_start + (rows.start - chunk.rows.start) * row_bytes;
        (&chunk.file, start..start + rows.len() * row_bytes)
    }
}

/// A valid chunk file.
#[derive(Debug)]
struct Chunk {
    file: FileBytes,
    /// Among the rows of all examples.
    rows: Range<usize>,
    /// Their offset in the file.
    data_start: usize,
}

impl Chunk {
    /// `None` if the file is missing, unreadable or has other contents.
    fn open(place: &ChunkPlace, spec: &CacheSpec) -> Option<Self> {
        let file = FileBytes::open(&place.path).ok()?;
        // This also compares the length of the file with that of its tensors.
        let (header_len, header) = SafeTensors::read_metadata(&file).ok()?;
        let tensor = header.info(TENSOR)?;
        let as_expected = header.metadata().as_ref() == Some(&place.metadata(spec))
            && tensor.dtype == spec.row_type.stored()
            && tensor.shape == [place.rows.len(), spec.hidden_size];
        as_expected.then(|| Self {
            rows: place.rows.clone(),
            data_start: size_of::<u64>() + header_len + tensor.data_offsets.0,
            file,
        })
    }
}

/// Path and rows of a chunk.
struct ChunkPlace {
    path: PathBuf,
    examples: Range<usize>,
    rows: Range<usize>,
}

impl ChunkPlace {
    fn metadata(&self, spec: &CacheSpec) -> HashMap<String, String> {
        HashMap::from([
            (FINGERPRINT.to_owned(), spec.fingerprint.to_string()),
            (EXAMPLES.to_owned(), range_text(&self.examples)),
        ])
    }

    fn write(&self, values: &[u8], spec: &CacheSpec) -> Result<(), ModelError> {
        let shape = vec![self.rows.len(), spec.hidden_size];
        let view = TensorView::new(spec.row_type.stored(), shape, values)
            .expect("the number of rows was checked");
        let bytes = safetensors::serialize([(TENSOR, view)], Some(self.metadata(spec)))
            .expect("the only tensor has a valid name");
        atomic_file::write(&self.path, &bytes)
    }
}

fn range_text(examples: &Range<usize>) -> String {
    format!("{}-{}", examples.start, examples.end)
}

/// Splits examples into passes.
fn passes(examples: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = examples.end;
    examples
        .step_by(EXAMPLES_PER_PASS)
        .map(move |start| start..(start + EXAMPLES_PER_PASS).min(end))
}

impl CacheSpec {
    fn row_bytes(&self) -> usize {
        self.hidden_size * self.row_type.num_bytes()
    }

    fn row_offsets(&self) -> Vec<usize> {
        let ends = self.rows_per_example.iter().scan(0, |end, rows| {
            *end += rows;
            Some(*end)
        });
        std::iter::once(0).chain(ends).collect()
    }

    /// Groups whole passes into chunks of at least [`CHUNK_BYTES`].
    fn chunks(&self, folder: &Path, row_offsets: &[usize]) -> Vec<ChunkPlace> {
        let num_examples = self.rows_per_example.len();
        let mut chunks = Vec::new();
        let mut start = 0;
        for pass in passes(0..num_examples) {
            let rows = row_offsets[start]..row_offsets[pass.end];
            if rows.len() * self.row_bytes() >= CHUNK_BYTES || pass.end == num_examples {
                let examples = start..pass.end;
                start = pass.end;
                chunks.push(ChunkPlace {
                    path: folder.join(format!("{}.safetensors", range_text(&examples))),
                    examples,
                    rows,
                });
            }
        }
        chunks
    }

    /// Appends the rows of some examples to `bytes`.
    fn encode(
        &self,
        rows: Tensor<2>,
        row_offsets: &[usize],
        examples: Range<usize>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), HiddenCacheError> {
        let first_row = row_offsets[examples.start];
        let num_rows = row_offsets[examples.end] - first_row;
        assert_eq!(
            rows.dims(),
            [num_rows, self.hidden_size],
            "rows of examples {examples:?}"
        );
        let data = rows.into_data_as::<f32>();
        let values = data.as_slice::<f32>().expect("just converted to f32");
        self.row_type.encode(values, bytes).map_err(|value_idx| {
            let row = first_row + value_idx / self.hidden_size;
            HiddenCacheError::NotFinite {
                example_idx: row_offsets.partition_point(|&offset| offset <= row) - 1,
                value: values[value_idx],
                row_type: self.row_type,
            }
        })
    }
}

impl RowType {
    fn num_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }

    fn stored(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::F16 => Dtype::F16,
        }
    }

    /// Appends `values` to `bytes`, or returns the position of the first that is not finite once converted.
    fn encode(self, values: &[f32], bytes: &mut Vec<u8>) -> Result<(), usize> {
        let not_finite = match self {
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
        };
        not_finite.map_or(Ok(()), Err)
    }

    /// Appends the values in `bytes` to `values`.
    fn decode(self, bytes: &[u8], values: &mut Vec<f32>) {
        match self {
            Self::F32 => {
                let stored = bytes.as_chunks().0;
                values.extend(stored.iter().map(|&value| f32::from_le_bytes(value)));
            }
            Self::F16 => {
                let stored = bytes.as_chunks().0;
                let halves: Vec<_> = stored
                    .iter()
                    .map(|&value| f16::from_le_bytes(value))
                    .collect();
                let start = values.len();
                values.resize(start + halves.len(), 0.0);
                halves.convert_to_f32_slice(&mut values[start..]);
            }
        }
    }
}

impl fmt::Display for RowType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        })
    }
}

#[cfg(test)]
mod tests;
