//! Small file helpers: walking a folder in a fixed order, writing atomically, the user's cache.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// All files below `dir`, sorted, symbolic links not followed.
pub(crate) fn walk(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(folder) = pending.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Writes to a sibling and renames it, so that a reader sees the old file or the new one.
pub(crate) fn write_atomically(path: &Path, contents: &[u8]) -> anyhow::Result<()> {
    let mut sibling = path.as_os_str().to_owned();
    sibling.push(".tmp");
    let sibling = PathBuf::from(sibling);
    let written = fs::File::create(&sibling).and_then(|mut file| {
        file.write_all(contents)?;
        file.sync_all()
    });
    written
        .and_then(|()| fs::rename(&sibling, path))
        .inspect_err(|_| {
            let _ = fs::remove_file(&sibling);
        })
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Our folder in the user's cache.
pub(crate) fn user_cache() -> anyhow::Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(dirs::cache_dir)
        .context("no cache folder for this user; set XDG_CACHE_HOME")?;
    Ok(cache.join("chameleon"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_no_sibling() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("a-folder");
        fs::create_dir(&taken).unwrap();
        assert!(write_atomically(&taken, b"x").is_err());
        assert_eq!(walk(dir.path()).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn walking_is_sorted_and_deep() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("b")).unwrap();
        write_atomically(&dir.path().join("b/one"), b"1").unwrap();
        write_atomically(&dir.path().join("a"), b"2").unwrap();
        let names: Vec<_> = walk(dir.path()).unwrap();
        assert_eq!(names, [dir.path().join("a"), dir.path().join("b/one")]);
    }
}
