//! The bytes of a file: memory-mapped, or given by a test.
//!
//! Nothing here depends on the meaning of the bytes.

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};

use chameleon_core::stored::TensorDtype;
use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use rayon::prelude::*;

use crate::error::ModelError;

/// A file's bytes and where they came from (the path is only for messages).
#[derive(Debug)]
pub(crate) struct FileBytes {
    path: PathBuf,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl FileBytes {
    /// Maps a file into memory.
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let read_error = |source| ModelError::Read {
            path: path.to_path_buf(),
            source,
        };
        let file = File::open(path).map_err(read_error)?;
        let metadata = file.metadata().map_err(read_error)?;
        if metadata.is_dir() {
            return Err(read_error(std::io::ErrorKind::IsADirectory.into()));
        }
        let content = if metadata.len() == 0 {
            Content::Owned(Vec::new()) // an empty file cannot be mapped
        } else {
            map(&file).map(Content::Mapped).map_err(read_error)?
        };
        let bytes = Self {
            path: path.to_path_buf(),
            content,
        };
        refuse_pointer(path, &bytes)?;
        Ok(bytes)
    }

    /// Wraps bytes that are in memory already; `path` appears in messages.
    pub(crate) fn from_vec(path: &Path, bytes: Vec<u8>) -> Self {
        Self {
            path: path.to_path_buf(),
            content: Content::Owned(bytes),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Decodes whole blocks, whose bytes are then marked as used.
    pub(crate) fn decode(&self, dtype: TensorDtype, range: Range<usize>) -> Vec<f32> {
        /// Values that one thread decodes at a time; a multiple of every block length.
        const CHUNK: usize = 1 << 16;
        let bytes = &self[range.clone()];
        let mut values = vec![0.0; bytes.len() / dtype.block_bytes() * dtype.block_len()];
        let chunk_bytes = CHUNK / dtype.block_len() * dtype.block_bytes();
        values
            .par_chunks_mut(CHUNK)
            .zip(bytes.par_chunks(chunk_bytes))
            .for_each(|(values, bytes)| dtype.decode(bytes, values));
        self.release(range);
        values
    }

    /// Marks bytes as used: their pages need not stay in memory, and can be read again.
    pub(crate) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Content::Mapped(mapped) = &self.content
            && range.end <= mapped.len()
        {
            release(mapped, range);
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}

/// Refuses the few lines of text that Git leaves in the place of a large file that it has not fetched.
pub(crate) fn refuse_pointer(path: &Path, content: &[u8]) -> Result<(), ModelError> {
    if content.starts_with(b"version https://git-lfs.github.com/spec/") {
        return Err(ModelError::LfsPointer {
            path: path.to_path_buf(),
        });
    }
    Ok(())
}

impl AsRef<[u8]> for FileBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Deref for FileBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.content {
            Content::Mapped(mapped) => mapped,
            Content::Owned(bytes) => bytes,
        }
    }
}

/// Maps a file for reading.
#[expect(
    unsafe_code,
    reason = "mapping is how gigabytes of weights are read without a second copy"
)]
pub(crate) fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: the mapping is read-only and private to this process. Should another process shorten
    // the file meanwhile, reading it stops the program; it cannot make us read foreign memory. Files
    // that this crate writes are replaced by renaming, or have no name, and are never shortened.
    unsafe { Mmap::map(file) }
}

/// Gives pages of a mapping back, without which a model that is loaded is in memory twice.
#[cfg(unix)]
#[expect(
    unsafe_code,
    reason = "the advice would lose what was written to a private mapping, and to this one nothing is"
)]
fn release(mapped: &Mmap, range: Range<usize>) {
    // SAFETY: the mapping is of a file and read-only, so pages that are dropped come back from the file.
    let advised = unsafe {
        mapped.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len())
    };
    if let Err(error) = advised {
        tracing::debug!(%error, "pages of a mapped file stay in memory");
    }
}
