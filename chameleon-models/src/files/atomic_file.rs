//! Files and folders that appear whole or not at all.
//!
//! Everything is written beside its destination and renamed at the end, because a full disk or a
//! killed program must not leave half a model, and because a reader may have the old file mapped.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::ModelError;

/// Writes a file, replacing what was there.
///
/// # Errors
/// [`ModelError::Write`]; the old file is then still there.
pub fn write(path: &Path, contents: &[u8]) -> Result<(), ModelError> {
    write_with(path, |file| file.write_all(contents))
}

/// Writes a file piece by piece, replacing what was there once all pieces are on disk.
///
/// # Errors
/// [`ModelError::Write`], also when `write` fails; the old file is then still there.
pub fn write_with(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<(), ModelError> {
    write_sibling(path, write).map_err(|source| ModelError::Write {
        path: path.to_path_buf(),
        source,
    })
}

/// Writes a folder: `fill` gets an empty one and puts files into it; then it replaces what was there.
///
/// There is a moment, between two renames, at which an old folder is gone and the new one not yet
/// there; a program killed right then leaves both complete, the old one under a hidden name.
///
/// # Errors
/// Those of `fill`, and [`ModelError::Write`] when the folder cannot be made or renamed. In every
/// case the old folder is still there.
pub fn write_folder<E: From<ModelError>>(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let write_error = |source| ModelError::Write {
        path: path.to_path_buf(),
        source,
    };
    let sibling = sibling_folder(path).map_err(write_error)?;
    fill(sibling.path())?;
    sync_folder(sibling.path()).map_err(write_error)?;
    replace_folder(sibling, path).map_err(write_error)?;
    Ok(())
}

fn write_sibling(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> io::Result<()> {
    let parent = parent(path);
    let prefix = hidden_prefix(path)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix);
    // Temporary files are private by default; this one becomes an ordinary file.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let sibling = builder.tempfile_in(&parent)?;
    let mut writer = BufWriter::new(sibling.as_file());
    write(&mut writer)?;
    writer.flush()?;
    drop(writer);
    sibling.as_file().sync_all()?;
    sibling.persist(path).map_err(|error| error.error)?;
    sync_directory(&parent)
}

fn sibling_folder(path: &Path) -> io::Result<tempfile::TempDir> {
    let prefix = hidden_prefix(path)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    builder.tempdir_in(parent(path))
}

fn replace_folder(sibling: tempfile::TempDir, path: &Path) -> io::Result<()> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    match metadata {
        Some(metadata) if !metadata.is_dir() => return Err(io::ErrorKind::NotADirectory.into()),
        None => std::fs::rename(sibling.path(), path)?,
        Some(_) => {
            // A second sibling to move the old folder into; it is deleted when it goes out of scope.
            let attic = sibling_folder(path)?;
            let old = attic.path().join("old");
            std::fs::rename(path, &old)?;
            if let Err(error) = std::fs::rename(sibling.path(), path) {
                if std::fs::rename(&old, path).is_err() {
                    let _kept = attic.keep(); // better a stray folder than a lost one
                }
                return Err(error);
            }
        }
    }
    let _renamed = sibling.keep(); // nothing is left at its old name to delete
    sync_directory(&parent(path))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    for entry in walkdir::WalkDir::new(folder).contents_first(true) {
        let entry = entry?;
        if entry.file_type().is_file() {
            File::open(entry.path())?.sync_all()?;
        } else if entry.file_type().is_dir() {
            sync_directory(entry.path())?;
        }
    }
    Ok(())
}

/// Puts the names of a directory on disk. Other systems than Unix cannot open directories, and need not.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn hidden_prefix(path: &Path) -> io::Result<String> {
    match path.file_name() {
        Some(name) => Ok(format!(".{}.", name.to_string_lossy())),
        None => Err(io::ErrorKind::InvalidFilename.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_replaces_the_old_one_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write(&path, b"old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a.json"]);
    }

    #[test]
    fn a_write_that_fails_half_way_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        write(&path, b"old").unwrap();
        let failed = write_with(&path, |file| {
            file.write_all(b"ne")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert!(matches!(failed, Err(ModelError::Write { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a.json"]);
    }

    #[test]
    fn a_folder_replaces_the_old_one_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter");
        let fill = |file: &'static str| {
            move |folder: &Path| {
                std::fs::create_dir(folder.join("state")).unwrap();
                write(&folder.join("state").join(file), b"x")
            }
        };
        write_folder(&path, fill("one")).unwrap();
        write_folder(&path, fill("two")).unwrap();
        assert_eq!(names(&path.join("state")), ["two"]);
        assert_eq!(names(folder.path()), ["adapter"]);
    }

    #[test]
    fn a_folder_that_fails_half_way_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter");
        write_folder(&path, |folder| write(&folder.join("one"), b"x")).unwrap();
        let failed: Result<(), ModelError> = write_folder(&path, |folder| {
            write(&folder.join("two"), b"x")?;
            write(&folder.join("no such folder").join("three"), b"x")
        });
        assert!(failed.is_err());
        assert_eq!(names(&path), ["one"]);
        assert_eq!(names(folder.path()), ["adapter"]);
    }

    #[test]
    fn a_file_is_not_replaced_by_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("adapter");
        write(&path, b"precious").unwrap();
        let refused = write_folder(&path, |folder| write(&folder.join("one"), b"x"));
        assert!(matches!(refused, Err(ModelError::Write { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        assert_eq!(names(folder.path()), ["adapter"]);
    }

    #[cfg(unix)]
    #[test]
    fn files_and_folders_get_ordinary_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("plain");
        File::create(&plain).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let ours = folder.path().join("ours");
        write(&ours, b"").unwrap();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
