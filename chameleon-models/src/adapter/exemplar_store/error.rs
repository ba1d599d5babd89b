//! Errors of storing exemplars.

use std::path::PathBuf;

use crate::error::ModelError;

/// Errors of storing exemplars.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExemplarStoreError {
    // Files and folders.
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file of a key cannot be written.
    #[error(transparent)]
    Write(#[from] ModelError),
    /// The folder of the exemplars cannot be created.
    #[error("cannot make the folder {}", path.display())]
    CreateFolder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file cannot be removed.
    #[error("cannot remove {}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The names of files that were created or removed cannot be written to the disk.
    #[error("cannot sync the folder {}", path.display())]
    Sync {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file that allows only one writer cannot be locked.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// Another writer has the folder open.
    #[error("{} is used by another process", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },

    // Contents of a file.
    /// A folder, a link or a device has the name of a key's file.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// Its path.
        path: PathBuf,
    },
    /// A file is too large to be read, or would be if it were written.
    #[error("{} has {found} bytes, expected at most {max}", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        found: u64,
        /// The largest number of bytes of a file.
        max: u64,
    },
    /// A file is not valid JSON of the expected layout.
    #[error("{} is not a file of exemplars", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// A file was written by another version.
    #[error("{} has format version {found}, this build reads {expected}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version of this build.
        expected: u32,
    },
    /// The contents of a file have changed since it was written.
    #[error("{} is damaged: its checksum does not match its contents", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
    },
    /// A file has the name of another key.
    #[error("{} has the exemplars of another key, whose file is {expected}", path.display())]
    OtherKey {
        /// The file.
        path: PathBuf,
        /// The file name of the key in the file.
        expected: String,
    },
    /// A file has invalid exemplars.
    #[error("{} describes impossible exemplars", path.display())]
    Impossible {
        /// The file.
        path: PathBuf,
        /// The invalid part.
        source: ImpossibleExemplars,
    },

    // Additions.
    /// The key is not valid.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// Both texts of a new exemplar are empty or white space.
    #[error("exemplar {exemplar_idx} has neither a prompt nor an answer")]
    Blank {
        /// Its position among the new ones.
        exemplar_idx: usize,
    },
    /// A new exemplar alone exceeds the bytes of a key.
    #[error("exemplar {exemplar_idx} has {found} bytes, expected at most {max}")]
    ExemplarTooLarge {
        /// Its position among the new ones.
        exemplar_idx: usize,
        /// Its bytes.
        found: usize,
        /// The largest number of bytes of a key.
        max: usize,
    },
    /// The largest number of keys is reached.
    #[error("there are exemplars of {max} keys already, which is the limit")]
    TooManyKeys {
        /// The limit.
        max: usize,
    },
    /// The largest id is in use.
    #[error("there are no ids left for new exemplars of this key")]
    IdsExhausted,
}

impl ExemplarStoreError {
    /// Whether the texts or the key of an addition are at fault, and not the disk.
    pub fn is_of_addition(&self) -> bool {
        matches!(
            self,
            Self::Key(_)
                | Self::Blank { .. }
                | Self::ExemplarTooLarge { .. }
                | Self::TooManyKeys { .. }
                | Self::IdsExhausted
        )
    }
}

/// A key that exemplars cannot be stored by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// The key is empty.
    #[error("the key is empty")]
    Empty,
    /// The key is too long.
    #[error("the key has {found} bytes, expected at most {max}")]
    TooLong {
        /// Its bytes.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// The key contains a control character.
    #[error("the key has a control character")]
    ControlCharacter,
}

/// Exemplars of a file that the store does not write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImpossibleExemplars {
    /// The key is not valid.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// There are no exemplars.
    #[error("there are no exemplars")]
    Empty,
    /// Both texts of an exemplar are empty or white space.
    #[error("exemplar {id} has neither a prompt nor an answer")]
    Blank {
        /// The id.
        id: u64,
    },
    /// An id does not exceed the one before.
    #[error("id {found} follows id {previous}")]
    IdOrder {
        /// The id before.
        previous: u64,
        /// The id.
        found: u64,
    },
    /// The id of the next exemplar is in use, or too large.
    #[error("the next id is {next_id}, expected above {last_id} and at most {max}")]
    NextId {
        /// The id of the next exemplar.
        next_id: u64,
        /// The largest id in use.
        last_id: u64,
        /// The largest possible one.
        max: u64,
    },
}
