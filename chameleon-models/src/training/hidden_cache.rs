//! Frozen hidden states, computed once and kept on disk.
//!
//! When only the head of a model adapts, the states before it are the same in every epoch, for every method and every
//! seed. This module owns the file in which they are kept; what computes them, and which positions of a sequence are
//! kept, is the caller's.
//!
//! ```no_run
//! use burn::tensor::{Device, Tensor};
//! use chameleon_models::training::hidden_cache::{CacheSpec, Fingerprint, HiddenCache, OpenedCache, RowType};
//!
//! # fn states_of(_example_idx: usize) -> Tensor<2> { unimplemented!() }
//! # let device = Device::default();
//! let spec = CacheSpec {
//!     fingerprint: Fingerprint::builder().part("model", b"...").part("positions", b"scored").finish(),
//!     hidden_size: 576,
//!     dtype: RowType::Bf16,
//!     rows_per_example: vec![96, 96, 40],
//! };
//! let cache = match HiddenCache::open_or_create("states.hidden".as_ref(), &spec)? {
//!     OpenedCache::Ready(cache) => cache,
//!     OpenedCache::Fill(mut writer) => {
//!         for example_idx in writer.num_written()..writer.num_examples() {
//!             writer.append(states_of(example_idx))?;
//!         }
//!         writer.finish()?
//!     }
//! };
//! let batch: Tensor<2> = cache.gather(&[2, 0], &device)?; // [40 + 96, 576]
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The file
//! All numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | magic `CHAMHIDN` |
//! | 8..12 | version of the format, 1 |
//! | 12..16 | type of a value: 0 f32, 1 f16, 2 bf16 |
//! | 16..48 | fingerprint of model, data and options |
//! | 48..56 | `hidden_size`: values of a row |
//! | 56..64 | number of examples |
//! | 64..72 | number of rows |
//! | 72..88 | journal: examples written so far, then the same number with every bit flipped |
//! | 88..96 | FNV-1a of bytes 0..72 followed by the table |
//! | 96..128 | zero |
//! | 128.. | one `u64` for each example: its first row; then the number of rows |
//! | next multiple of 64.. | the rows, `hidden_size` values each, in the order of the examples; nothing after them |
//!
//! A file is filled under the name `NAME.partial` and renamed when its last row is on the disk. Rows are written in
//! chunks, and the journal only after a chunk is on the disk; so a process that is killed loses at most a chunk, and
//! the next one continues where the journal ends. An advisory lock keeps two processes from filling one file.
//!
//! Rows are read at their position, without a memory map: as fast for rows that lie together, no `unsafe`, and a file
//! that somebody truncates meanwhile is an error instead of a signal.

mod fingerprint;
mod format;
mod writer;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use thiserror::Error;

pub use fingerprint::{Fingerprint, FingerprintBuilder};
pub use format::{CacheDefect, RowType};
use format::{FoundLayout, Layout, ReadLayoutError};
pub use writer::CacheWriter;

/// What a cache must hold to be of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheSpec {
    /// Everything the states depend on.
    pub fingerprint: Fingerprint,
    /// Values of a row, at least 1.
    pub hidden_size: usize,
    /// How a value is kept.
    pub dtype: RowType,
    /// Rows of every example, in order.
    pub rows_per_example: Vec<usize>,
}

/// What [`HiddenCache::open_or_create`] found.
#[derive(Debug)]
pub enum OpenedCache {
    /// All states are there.
    Ready(HiddenCache),
    /// States are missing, perhaps all: the writer says from where on.
    Fill(CacheWriter),
}

/// Why a cache cannot be read or filled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HiddenCacheError {
    /// The file is there and cannot be read.
    #[error("cannot read hidden-state cache {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk is full, or the folder may not be written. What was written before is kept, and filling can be resumed.
    #[error("cannot write hidden-state cache {}, which takes {finished_bytes} bytes when finished", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Its size when all rows are in it.
        finished_bytes: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The name is taken by something else, which is not overwritten.
    #[error("{} is not a hidden-state cache and is not overwritten", path.display())]
    NotACache {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be used.
    #[error("hidden-state cache {} cannot be used", path.display())]
    Defective {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: CacheDefect,
    },
    /// Another process fills the file.
    #[error("{} is being filled by another process", path.display())]
    Busy {
        /// The partial file.
        path: PathBuf,
    },
    /// More bytes than a file can have.
    #[error(
        "a cache of {num_examples} examples with {hidden_size} values for each row passes the size of any file"
    )]
    TooLarge {
        /// Number of examples asked for.
        num_examples: usize,
        /// Values of a row.
        hidden_size: usize,
    },
    /// More examples than were announced.
    #[error("the cache is for {num_examples} examples and has them all")]
    TooManyExamples {
        /// Number of examples announced.
        num_examples: usize,
    },
    /// Rows that are not those announced for the next example.
    #[error("example {example_idx} has {found} values, expected {num_rows} rows of {hidden_size}")]
    ExampleSize {
        /// The example.
        example_idx: usize,
        /// Values that were given.
        found: usize,
        /// Rows announced for it.
        num_rows: usize,
        /// Values of a row.
        hidden_size: usize,
    },
    /// The model gave a NaN or an infinite value, or one too large for the type that is kept.
    #[error("example {example_idx} has the value {value}, which {dtype} cannot hold")]
    NotFinite {
        /// The example.
        example_idx: usize,
        /// The first such value.
        value: f32,
        /// How values are kept.
        dtype: RowType,
    },
    /// Examples are missing.
    #[error("{written} of {num_examples} examples are in the cache")]
    Unfinished {
        /// Examples that are there.
        written: usize,
        /// Examples announced.
        num_examples: usize,
    },
}

/// A finished cache, open for reading; may be shared among threads.
#[derive(Debug)]
pub struct HiddenCache {
    file: File,
    path: PathBuf,
    layout: Layout,
    /// Rows at the start of each example that are passed over.
    skipped_rows: usize,
}

impl HiddenCache {
    /// Opens a finished cache, whatever it holds.
    ///
    /// # Errors
    /// If the file cannot be read, is something else, or is damaged.
    pub fn open(path: &Path) -> Result<Self, HiddenCacheError> {
        let failed = |source| HiddenCacheError::Read {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        let layout = match Layout::read(&file).and_then(FoundLayout::finished) {
            Ok(layout) => layout,
            Err(ReadLayoutError::Read(source)) => return Err(failed(source)),
            Err(ReadLayoutError::Defect(CacheDefect::NotACache)) => {
                return Err(HiddenCacheError::NotACache {
                    path: path.to_owned(),
                });
            }
            Err(ReadLayoutError::Defect(source)) => {
                return Err(HiddenCacheError::Defective {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        Ok(Self {
            file,
            path: path.to_owned(),
            layout,
            skipped_rows: 0,
        })
    }

    /// The same states without the first rows of each example: what is left when less is scored.
    ///
    /// # Panics
    /// If an example has no more rows than that.
    #[must_use]
    pub fn without_first(self, num_rows: usize) -> Self {
        let skipped_rows = self.skipped_rows + num_rows;
        for example_idx in 0..self.num_examples() {
            let found = self.layout.example_rows(example_idx).len();
            assert!(
                found > skipped_rows,
                "example {example_idx} has {found} rows, {skipped_rows} were to be left out"
            );
        }
        Self {
            skipped_rows,
            ..self
        }
    }

    /// Opens the cache at `path` if it is finished and holds what `spec` asks for; else opens `path` with `.partial`
    /// appended and continues it if that is for `spec`, or starts it anew.
    ///
    /// A cache that is damaged, of another version or for another `spec` stays until the new one is finished;
    /// [`CacheWriter::discarded`] says why it is not used.
    ///
    /// # Errors
    /// If either name is taken by a file of another kind, another process fills the cache, or the system refuses.
    ///
    /// # Panics
    /// If `spec.hidden_size` is 0.
    pub fn open_or_create(path: &Path, spec: &CacheSpec) -> Result<OpenedCache, HiddenCacheError> {
        let wanted = Layout::new(spec)?;
        if let Ok(cache) = Self::open_matching(path, &wanted)? {
            return Ok(OpenedCache::Ready(cache));
        }
        let partial = writer::PartialFile::lock(path, wanted.finished_bytes())?;
        // Whoever held the lock may have finished the cache meanwhile.
        match Self::open_matching(path, &wanted)? {
            Ok(cache) => {
                partial.remove_if_empty();
                Ok(OpenedCache::Ready(cache))
            }
            Err(defect) => Ok(OpenedCache::Fill(CacheWriter::resume(
                partial, path, wanted, defect,
            )?)),
        }
    }

    /// Number of examples.
    pub fn num_examples(&self) -> usize {
        self.layout.num_examples()
    }

    /// Number of rows of all examples in the file.
    pub fn num_rows(&self) -> usize {
        self.layout.num_rows()
    }

    /// Values of a row.
    pub fn hidden_size(&self) -> usize {
        self.layout.hidden_size()
    }

    /// How a value is kept.
    pub fn dtype(&self) -> RowType {
        self.layout.dtype()
    }

    /// What the states were computed from.
    pub fn fingerprint(&self) -> Fingerprint {
        self.layout.fingerprint()
    }

    /// The rows of one example, which lie together.
    ///
    /// # Panics
    /// If there is no such example.
    pub fn example_rows(&self, example_idx: usize) -> Range<usize> {
        let rows = self.layout.example_rows(example_idx);
        rows.start + self.skipped_rows..rows.end
    }

    /// A range of rows.
    ///
    /// # Shapes
    /// - output: `[rows, hidden]`
    ///
    /// # Errors
    /// If the file cannot be read any more.
    ///
    /// # Panics
    /// If the range reaches past the last row.
    pub fn rows(
        &self,
        range: Range<usize>,
        device: &Device,
    ) -> Result<Tensor<2>, HiddenCacheError> {
        let mut values = Vec::with_capacity(range.len() * self.hidden_size());
        self.read_rows(range, &mut Vec::new(), &mut values)?;
        Ok(self.tensor(values, device))
    }

    /// The rows of some examples, one after the other in the order given.
    ///
    /// # Shapes
    /// - output: `[rows, hidden]`, the rows of all the examples together
    ///
    /// # Errors
    /// If the file cannot be read any more.
    ///
    /// # Panics
    /// If there is no such example.
    pub fn gather(
        &self,
        example_indices: &[usize],
        device: &Device,
    ) -> Result<Tensor<2>, HiddenCacheError> {
        let num_rows = example_indices
            .iter()
            .map(|&example_idx| self.example_rows(example_idx).len())
            .sum::<usize>();
        let mut values = Vec::with_capacity(num_rows * self.hidden_size());
        let mut bytes = Vec::new();
        for &example_idx in example_indices {
            self.read_rows(self.example_rows(example_idx), &mut bytes, &mut values)?;
        }
        Ok(self.tensor(values, device))
    }

    fn tensor(&self, values: Vec<f32>, device: &Device) -> Tensor<2> {
        let shape = [values.len() / self.hidden_size(), self.hidden_size()];
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    fn read_rows(
        &self,
        range: Range<usize>,
        bytes: &mut Vec<u8>,
        values: &mut Vec<f32>,
    ) -> Result<(), HiddenCacheError> {
        assert!(
            range.start <= range.end && range.end <= self.num_rows(),
            "rows {range:?} of a cache of {}",
            self.num_rows()
        );
        bytes.resize(range.len() * self.layout.row_bytes(), 0);
        format::read_exact_at(&self.file, bytes, self.layout.row_position(range.start)).map_err(
            |source| HiddenCacheError::Read {
                path: self.path.clone(),
                source,
            },
        )?;
        self.dtype().decode(bytes, values);
        Ok(())
    }

    /// The cache at `path` if it is what is wanted, or why not; `None` if there is no file.
    fn open_matching(
        path: &Path,
        wanted: &Layout,
    ) -> Result<Result<Self, Option<CacheDefect>>, HiddenCacheError> {
        match Self::open(path) {
            Ok(cache) => Ok(match cache.layout.differs_from(wanted) {
                None => Ok(cache),
                Some(defect) => Err(Some(defect)),
            }),
            Err(HiddenCacheError::Defective { source, .. }) => Ok(Err(Some(source))),
            Err(HiddenCacheError::Read { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                Ok(Err(None))
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
