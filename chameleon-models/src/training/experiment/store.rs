//! Finished runs on disk, which are not computed again.
//!
//! Each record has a key: a fingerprint of all settings, the model and the texts it depends on. A record with another
//! key belongs to another experiment; it is an error and is never overwritten.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::files::atomic_file;
use crate::training::error::TrainingError;
use crate::training::session::Start;

/// A folder of finished runs, `OUT/runs`.
#[derive(Debug)]
pub struct RunStore {
    folder: PathBuf,
}

/// A record with its key.
#[derive(Serialize, Deserialize)]
struct Keyed<'a, T> {
    key: std::borrow::Cow<'a, str>,
    #[serde(flatten)]
    record: T,
}

impl RunStore {
    /// The runs in `out`.
    pub fn of(out: &Path) -> Self {
        Self {
            folder: out.join("runs"),
        }
    }

    /// Rejects a store that has runs, unless the experiment is resumed.
    ///
    /// # Errors
    ///
    /// When the store has runs.
    pub fn check_start(&self, start: Start) -> Result<(), TrainingError> {
        if start == Start::Fresh && self.folder.exists() {
            return Err(TrainingError::Exists {
                path: self.folder.parent().unwrap_or(&self.folder).to_owned(),
                what: "finished runs",
            });
        }
        Ok(())
    }

    /// The path of a file or folder of a run.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A record, if it exists. `name` is its path inside the folder.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is not a record, or has another key.
    pub fn find<T: DeserializeOwned>(
        &self,
        name: &str,
        key: &str,
    ) -> Result<Option<T>, TrainingError> {
        let path = self.path(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(TrainingError::file("read", &path)(source)),
        };
        let found: Keyed<'_, T> = match serde_json::from_slice(&bytes) {
            Ok(found) => found,
            Err(source) => return Err(TrainingError::RunRecord { path, source }),
        };
        if found.key != key {
            return Err(TrainingError::OtherRun {
                path: path.parent().unwrap_or(&path).to_owned(),
            });
        }
        Ok(Some(found.record))
    }

    /// Writes a record.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn keep(
        &self,
        name: &str,
        key: &str,
        record: &impl Serialize,
    ) -> Result<(), TrainingError> {
        let path = self.path(name);
        create_folder(path.parent().unwrap_or(&self.folder))?;
        write(&path, key, record)
    }

    /// Writes a folder with a record in it; `save` writes the other files. The folder appears complete or not at all.
    ///
    /// # Errors
    ///
    /// When something cannot be written.
    pub fn keep_folder(
        &self,
        name: &str,
        file: &str,
        key: &str,
        record: &impl Serialize,
        save: impl FnOnce(&Path) -> Result<(), TrainingError>,
    ) -> Result<(), TrainingError> {
        create_folder(&self.folder)?;
        atomic_file::write_folder(&self.path(name), |folder| {
            save(folder)?;
            write(&folder.join(file), key, record)
        })
    }

    /// Deletes a file, if it exists.
    ///
    /// # Errors
    ///
    /// When it cannot be deleted.
    pub fn drop_file(&self, name: &str) -> Result<(), TrainingError> {
        let path = self.path(name);
        deleted(&path, fs::remove_file(&path))
    }

    /// Deletes the files of a run, if they exist.
    ///
    /// # Errors
    ///
    /// When it cannot be deleted.
    pub fn forget(&self, name: &str) -> Result<(), TrainingError> {
        let path = self.path(name);
        deleted(&path, fs::remove_dir_all(&path))
    }
}

fn create_folder(folder: &Path) -> Result<(), TrainingError> {
    fs::create_dir_all(folder).map_err(TrainingError::file("make the folder", folder))
}

/// A missing file counts as deleted.
fn deleted(path: &Path, result: io::Result<()>) -> Result<(), TrainingError> {
    match result {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(TrainingError::file("delete", path)(source))
        }
        _ => Ok(()),
    }
}

fn write(path: &Path, key: &str, record: &impl Serialize) -> Result<(), TrainingError> {
    let keyed = Keyed {
        key: key.into(),
        record,
    };
    let json = serde_json::to_vec(&keyed).expect("a run is plain data");
    Ok(atomic_file::write(path, &json)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Run {
        loss: f64,
    }

    const RUN: Run = Run { loss: 0.5 };

    #[test]
    fn a_finished_run_is_found_by_its_key_and_another_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = RunStore::of(folder.path());
        store.check_start(Start::Fresh).unwrap();
        assert_eq!(store.find::<Run>("a/run.json", "a").unwrap(), None);
        let save = |_: &Path| Ok(());
        store.keep_folder("a", "run.json", "a", &RUN, save).unwrap();
        assert_eq!(store.find("a/run.json", "a").unwrap(), Some(RUN));
        assert!(matches!(
            store.find::<Run>("a/run.json", "b"),
            Err(TrainingError::OtherRun { .. })
        ));
        assert!(matches!(
            store.check_start(Start::Fresh),
            Err(TrainingError::Exists { .. })
        ));
        store.check_start(Start::Resume).unwrap();
    }

    #[test]
    fn dropped_files_and_forgotten_runs_may_be_dropped_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = RunStore::of(folder.path());
        store.keep("a/scores.json", "a", &RUN).unwrap();
        store.keep("a/run.json", "a", &RUN).unwrap();
        store.drop_file("a/scores.json").unwrap();
        store.drop_file("a/scores.json").unwrap();
        assert_eq!(store.find("a/run.json", "a").unwrap(), Some(RUN));
        store.forget("a").unwrap();
        store.forget("a").unwrap();
        assert_eq!(store.find::<Run>("a/run.json", "a").unwrap(), None);
    }

    #[test]
    fn a_damaged_record_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = RunStore::of(folder.path());
        store.keep("a/run.json", "a", &RUN).unwrap();
        atomic_file::write(&store.path("a/run.json"), b"{\"key\":\"a\"").unwrap();
        let error = store.find::<Run>("a/run.json", "a").unwrap_err();
        assert!(error.to_string().contains("run.json"), "{error}");
    }
}
