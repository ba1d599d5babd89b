//! The folder of all files of keys: creation, the lock of its writer, listing, deletion.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::error::ExemplarStoreError;
use crate::files::atomic_file;

pub(super) const LOCK_FILE: &str = "lock";

/// A locked folder, until it is dropped.
#[derive(Debug)]
pub(super) struct FolderLock(pub(super) File);

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that was being started at this moment has a copy of it. If
        // unlocking fails, the lock ends with the last copy.
        let _ = self.0.unlock();
    }
}

/// Whether there is such a folder, or a file with its name.
pub(super) fn exists(folder: &Path) -> Result<bool, ExemplarStoreError> {
    folder
        .try_exists()
        .map_err(|source| ExemplarStoreError::Read {
            path: folder.to_owned(),
            source,
        })
}

/// Creates the folder, but not that of the adapter.
pub(super) fn create(folder: &Path) -> Result<(), ExemplarStoreError> {
    let failed = |source| ExemplarStoreError::CreateFolder {
        path: folder.to_owned(),
        source,
    };
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        created => created.map_err(failed)?,
    }
    sync(parent(folder))
}

/// Locks the folder for the only writer.
pub(super) fn lock(folder: &Path) -> Result<FolderLock, ExemplarStoreError> {
    let path = folder.join(LOCK_FILE);
    let opened = File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&path);
    let failed = |source| ExemplarStoreError::Lock { path, source };
    let file = match opened {
        Ok(file) => file,
        Err(error) => return Err(failed(error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(FolderLock(file)),
        Err(TryLockError::WouldBlock) => Err(ExemplarStoreError::InUse {
            path: folder.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Deletes the files whose names are `unwanted`.
pub(super) fn remove_files(
    folder: &Path,
    unwanted: fn(&str) -> bool,
) -> Result<(), ExemplarStoreError> {
    for path in files(folder, unwanted)? {
        remove_file(&path)?;
    }
    Ok(())
}

/// Paths of the entries whose names are `wanted`, in the order of their names. A missing folder has none.
pub(super) fn files(
    folder: &Path,
    wanted: fn(&str) -> bool,
) -> Result<Vec<PathBuf>, ExemplarStoreError> {
    let failed = |source| ExemplarStoreError::Read {
        path: folder.to_owned(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_str().is_some_and(wanted) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// Removes a file and syncs its folder; returns whether there was one.
pub(super) fn remove_file(path: &Path) -> Result<bool, ExemplarStoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        removed => removed.map_err(|source| ExemplarStoreError::Remove {
            path: path.to_owned(),
            source,
        })?,
    }
    sync(parent(path))?;
    Ok(true)
}

/// Puts the names of a folder on disk.
pub(super) fn sync(folder: &Path) -> Result<(), ExemplarStoreError> {
    atomic_file::sync_directory(folder).map_err(|source| ExemplarStoreError::Sync {
        path: folder.to_owned(),
        source,
    })
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
