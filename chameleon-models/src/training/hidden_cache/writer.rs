//! Filling a cache, and continuing one that was left unfinished.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use burn::tensor::Tensor;

use super::format::{CacheDefect, JOURNAL_POSITION, Layout, ReadLayoutError, RowType, journal};
use super::{HiddenCache, HiddenCacheError};

/// Rows are collected up to this many bytes before they are written; killed, a process loses no more than these.
const CHUNK_BYTES: usize = 4 << 20;

/// The file `NAME.partial`, locked.
#[derive(Debug)]
pub(super) struct PartialFile {
    file: File,
    path: PathBuf,
    finished_bytes: u64,
}

impl PartialFile {
    pub(super) fn lock(cache_path: &Path, finished_bytes: u64) -> Result<Self, HiddenCacheError> {
        let mut name = OsString::from(cache_path);
        name.push(".partial");
        let path = PathBuf::from(name);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(source) => {
                return Err(HiddenCacheError::Write {
                    path,
                    finished_bytes,
                    source,
                });
            }
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(HiddenCacheError::Busy { path }),
            Err(TryLockError::Error(error)) => {
                // Some network file systems have no locks; better a cache without one than none.
                tracing::warn!(path = %path.display(), %error, "cannot lock the hidden-state cache");
            }
        }
        Ok(Self {
            file,
            path,
            finished_bytes,
        })
    }

    pub(super) fn remove_if_empty(self) {
        if self
            .file
            .metadata()
            .is_ok_and(|metadata| metadata.len() == 0)
        {
            self.remove();
        }
    }

    fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the partial cache");
        }
    }

    fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(position))?;
        self.file.write_all(bytes)
    }

    fn write_error(&self, source: io::Error) -> HiddenCacheError {
        HiddenCacheError::Write {
            path: self.path.clone(),
            finished_bytes: self.finished_bytes,
            source,
        }
    }
}

/// Takes the rows of one example after the other.
///
/// Dropping it before the end keeps what was given so far, for the next [`HiddenCache::open_or_create`].
#[derive(Debug)]
pub struct CacheWriter {
    partial: PartialFile,
    path: PathBuf,
    layout: Layout,
    discarded: Option<CacheDefect>,
    /// Examples given, on disk or in `buffer`.
    num_written: usize,
    /// Examples of which the journal in the file knows; an example may have no rows, so `buffer` does not tell.
    num_journaled: usize,
    /// Where `buffer` goes.
    position: u64,
    buffer: Vec<u8>,
}

impl CacheWriter {
    pub(super) fn resume(
        partial: PartialFile,
        path: &Path,
        layout: Layout,
        discarded: Option<CacheDefect>,
    ) -> Result<Self, HiddenCacheError> {
        let mut writer = Self {
            position: layout.end_of_examples(0),
            partial,
            path: path.to_owned(),
            layout,
            discarded,
            num_written: 0,
            num_journaled: 0,
            buffer: Vec::new(),
        };
        match writer.find_written() {
            Ok(Some(num_written)) => {
                writer.num_written = num_written;
                writer.num_journaled = num_written;
                writer.position = writer.layout.end_of_examples(num_written);
                let cut = writer.partial.file.set_len(writer.position);
                cut.map_err(|source| writer.partial.write_error(source))?;
            }
            Ok(None) => writer.start()?,
            Err(ReadLayoutError::Read(source)) => {
                return Err(HiddenCacheError::Read {
                    path: writer.partial.path.clone(),
                    source,
                });
            }
            Err(ReadLayoutError::Defect(CacheDefect::NotACache)) => {
                return Err(HiddenCacheError::NotACache {
                    path: writer.partial.path.clone(),
                });
            }
            Err(ReadLayoutError::Defect(defect)) => {
                writer.discarded.get_or_insert(defect);
                writer.start()?;
            }
        }
        Ok(writer)
    }

    /// Examples that are there already: the next one to append.
    pub fn num_written(&self) -> usize {
        self.num_written
    }

    /// Examples of the finished cache.
    pub fn num_examples(&self) -> usize {
        self.layout.num_examples()
    }

    /// Bytes of the finished cache.
    pub fn finished_bytes(&self) -> u64 {
        self.layout.finished_bytes()
    }

    /// Why a cache, or a beginning of one, that was found is not used; `None` if there was none or it is continued.
    pub fn discarded(&self) -> Option<&CacheDefect> {
        self.discarded.as_ref()
    }

    /// Appends the rows of the next example.
    ///
    /// # Shapes
    /// - `rows`: `[rows, hidden]`, as many rows as were announced for the example
    ///
    /// # Errors
    /// If the rows are others than announced or not finite, or the disk is full. The example is not counted then, and
    /// may be appended again.
    ///
    /// # Panics
    /// If the device fails while the rows are copied from it.
    pub fn append(&mut self, rows: Tensor<2>) -> Result<(), HiddenCacheError> {
        let [_, hidden_size] = rows.dims();
        let values = rows.into_data_as::<f32>();
        let values = values.as_slice::<f32>().expect("just converted to f32");
        self.append_values(values, hidden_size)
    }

    /// Writes what was appended so far to the disk; also done on its own whenever a few megabytes are together.
    ///
    /// # Errors
    /// If the disk is full.
    pub fn flush(&mut self) -> Result<(), HiddenCacheError> {
        if self.num_journaled == self.num_written {
            return Ok(());
        }
        let flushed = self.try_flush();
        flushed.map_err(|source| self.partial.write_error(source))
    }

    /// Gives the finished file its name.
    ///
    /// # Errors
    /// If examples are missing, or the disk is full.
    pub fn finish(mut self) -> Result<HiddenCache, HiddenCacheError> {
        if self.num_written < self.num_examples() {
            return Err(HiddenCacheError::Unfinished {
                written: self.num_written,
                num_examples: self.num_examples(),
            });
        }
        self.flush()?;
        let named = self
            .partial
            .file
            .sync_all()
            .and_then(|()| fs::rename(&self.partial.path, &self.path))
            .and_then(|()| sync_folder(&self.path));
        named.map_err(|source| self.partial.write_error(source))?;
        HiddenCache::open(&self.path)
    }

    /// Removes the unfinished file, for callers that would rather have the space than continue later.
    pub fn discard(mut self) {
        self.buffer.clear();
        self.num_journaled = self.num_written;
        self.partial.remove();
    }

    /// How many examples the partial file holds; `None` if it is empty.
    fn find_written(&self) -> Result<Option<usize>, ReadLayoutError> {
        if self.partial.file.metadata()?.len() == 0 {
            return Ok(None);
        }
        let found = Layout::read(&self.partial.file)?;
        if let Some(defect) = found.layout.differs_from(&self.layout) {
            return Err(defect.into());
        }
        let num_written = found
            .num_written
            .and_then(|count| usize::try_from(count).ok())
            .ok_or(CacheDefect::Header)?;
        let expected = self.layout.end_of_examples(num_written);
        if found.file_bytes < expected {
            return Err(CacheDefect::Length {
                found: found.file_bytes,
                expected,
            }
            .into());
        }
        Ok(Some(num_written))
    }

    /// Empties the partial file and writes header and table.
    fn start(&mut self) -> Result<(), HiddenCacheError> {
        let started = self
            .partial
            .file
            .set_len(0)
            .and_then(|()| self.partial.write_at(&self.layout.to_bytes(), 0))
            .and_then(|()| self.partial.file.sync_all());
        started.map_err(|source| {
            // Nothing of use is in it yet.
            self.partial.remove();
            self.partial.write_error(source)
        })
    }

    pub(super) fn append_values(
        &mut self,
        values: &[f32],
        hidden_size: usize,
    ) -> Result<(), HiddenCacheError> {
        let example_idx = self.num_written;
        if example_idx == self.num_examples() {
            return Err(HiddenCacheError::TooManyExamples {
                num_examples: example_idx,
            });
        }
        let num_rows = self.layout.example_rows(example_idx).len();
        if hidden_size != self.layout.hidden_size() || values.len() != num_rows * hidden_size {
            return Err(HiddenCacheError::ExampleSize {
                example_idx,
                found: values.len(),
                num_rows,
                hidden_size: self.layout.hidden_size(),
            });
        }
        let start = self.buffer.len();
        let dtype: RowType = self.layout.dtype();
        if let Err(value) = dtype.encode(values, &mut self.buffer) {
            self.buffer.truncate(start);
            return Err(HiddenCacheError::NotFinite {
                example_idx,
                value,
                dtype,
            });
        }
        self.num_written += 1;
        if self.buffer.len() >= CHUNK_BYTES
            && let Err(error) = self.flush()
        {
            self.buffer.truncate(start);
            self.num_written -= 1;
            return Err(error);
        }
        Ok(())
    }

    /// Rows first, and the journal only when they are on the disk.
    fn try_flush(&mut self) -> io::Result<()> {
        self.partial.write_at(&self.buffer, self.position)?;
        self.partial.file.sync_data()?;
        let journal = journal(self.num_written as u64);
        self.partial.write_at(&journal, JOURNAL_POSITION)?;
        self.num_journaled = self.num_written;
        self.position += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl Drop for CacheWriter {
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "the last rows of the hidden-state cache are lost");
        }
    }
}

/// Makes the new name survive a power failure.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}
