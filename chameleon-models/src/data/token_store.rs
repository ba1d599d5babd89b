//! Token ids of a corpus in one place: in memory while they are few, else in a temporary file that is mapped.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use super::error::DataError;
use crate::files::file_bytes;

/// Ids held in memory before they go to a file: 16 MiB.
const MAX_IDS_IN_MEMORY: usize = 4 << 20;

/// Collects ids, one sequence after the other.
#[derive(Debug)]
pub(super) struct TokenWriter {
    folder: PathBuf,
    memory: Vec<u32>,
    file: Option<BufWriter<File>>,
    len: usize,
}

impl TokenWriter {
    /// A store without ids, which makes its file in `folder` once it needs one. The file has no name there: whatever
    /// happens to the program, nothing is left behind.
    pub(super) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            memory: Vec::new(),
            file: None,
            len: 0,
        }
    }

    /// Appends ids and says where they are.
    pub(super) fn push(&mut self, token_ids: &[u32]) -> Result<Range<usize>, DataError> {
        let start = self.len;
        self.len += token_ids.len();
        let pushed = if let Some(file) = &mut self.file {
            write(file, token_ids)
        } else {
            self.memory.extend_from_slice(token_ids);
            self.spill()
        };
        pushed.map_err(|source| self.failed(source))?;
        Ok(start..self.len)
    }

    /// All ids, to be read.
    pub(super) fn finish(mut self) -> Result<Arc<StoredTokens>, DataError> {
        let content = match self.file.take() {
            None => Content::Memory(std::mem::take(&mut self.memory)),
            Some(file) => {
                let mapped = file
                    .into_inner()
                    .map_err(io::IntoInnerError::into_error)
                    .and_then(|file| file_bytes::map(&file));
                Content::Mapped(mapped.map_err(|source| self.failed(source))?)
            }
        };
        Ok(Arc::new(StoredTokens { content }))
    }

    fn spill(&mut self) -> io::Result<()> {
        if self.memory.len() <= MAX_IDS_IN_MEMORY {
            return Ok(());
        }
        std::fs::create_dir_all(&self.folder)?;
        let mut file = BufWriter::with_capacity(1 << 20, tempfile::tempfile_in(&self.folder)?);
        write(&mut file, &std::mem::take(&mut self.memory))?;
        self.file = Some(file);
        Ok(())
    }

    fn failed(&self, source: io::Error) -> DataError {
        DataError::TokenFile {
            folder: self.folder.clone(),
            source,
        }
    }
}

fn write(file: &mut BufWriter<File>, token_ids: &[u32]) -> io::Result<()> {
    file.write_all(bytemuck::cast_slice(token_ids))
}

/// Ids that many sequences share.
#[derive(Debug)]
pub struct StoredTokens {
    content: Content,
}

#[derive(Debug)]
enum Content {
    Memory(Vec<u32>),
    /// Written by this process with its own byte order; pages begin at multiples of four.
    Mapped(Mmap),
}

impl StoredTokens {
    /// All of them.
    pub fn token_ids(&self) -> &[u32] {
        match &self.content {
            Content::Memory(token_ids) => token_ids,
            Content::Mapped(bytes) => bytemuck::cast_slice(bytes),
        }
    }
}

impl AsRef<[u32]> for StoredTokens {
    fn as_ref(&self) -> &[u32] {
        self.token_ids()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_from_memory_and_from_a_file_that_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        for num_pushes in [0, 3, 70] {
            let mut writer = TokenWriter::new(&folder.path().join("ids"));
            let ids: Vec<u32> = (0..100_000).collect();
            for idx in 0..num_pushes {
                let range = writer.push(&ids).unwrap();
                assert_eq!(range, idx * 100_000..(idx + 1) * 100_000);
            }
            let is_in_file = writer.file.is_some();
            assert_eq!(is_in_file, num_pushes == 70);
            let stored = writer.finish().unwrap();
            assert_eq!(stored.token_ids().len(), num_pushes * 100_000);
            assert!(stored.token_ids().chunks(100_000).all(|found| found == ids));
        }
        assert_eq!(folder.path().join("ids").read_dir().unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        File::create(&file).unwrap();
        let mut writer = TokenWriter::new(&file);
        let error = writer.push(&vec![0; MAX_IDS_IN_MEMORY + 1]).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
    }
}
