//! Data sets from the Hugging Face hub, through the cache that its Python library shares.
//!
//! Only parquet files are fetched: the hub keeps every public data set in that form as well. Large files are cached
//! under their SHA-256, which is checked before they are used.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::api::sync::ApiError;
use hf_hub::{Repo, RepoType};
use sha2::{Digest as _, Sha256};

use crate::files::fingerprint::hexadecimal;
use crate::files::hub::{HubOptions, HubRepo, file_names};

/// A part of a data set on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubDataset {
    /// `owner/name`.
    pub id: &'static str,
    /// A branch, a tag or a commit.
    pub revision: &'static str,
    /// The folder of its files.
    pub folder: &'static str,
}

impl HubDataset {
    /// WikiText-2 raw: one row for each line, in three parts.
    pub const WIKITEXT_2_RAW: Self = Self {
        id: "Salesforce/wikitext",
        revision: "main",
        folder: "wikitext-2-raw-v1",
    };

    /// Alpaca with corrected answers, in the parquet form that the hub makes.
    pub const ALPACA_CLEANED: Self = Self {
        id: "yahma/alpaca-cleaned",
        revision: "refs/convert/parquet",
        folder: "default/train",
    };

    fn repo(&self) -> Repo {
        Repo::with_revision(
            self.id.to_owned(),
            RepoType::Dataset,
            self.revision.to_owned(),
        )
    }
}

/// An error of downloading or reading a data set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubDatasetError {
    /// The cache lacks it, and the hub may not be used.
    #[error("the data set {id} is not in the cache {}, and the hub may not be asked", cache_folder.display())]
    NotCached {
        /// The data set.
        id: &'static str,
        /// The cache.
        cache_folder: PathBuf,
    },
    /// The hub does not provide it.
    #[error("cannot fetch the data set {id} from {endpoint}")]
    Request {
        /// The data set.
        id: &'static str,
        /// The hub's address.
        endpoint: String,
        /// The cause.
        #[source]
        source: Box<ApiError>,
    },
    /// The folder holds nothing to read.
    #[error("the data set {id} has no parquet file in {folder}")]
    NoFiles {
        /// The data set.
        id: &'static str,
        /// The folder.
        folder: &'static str,
    },
    /// A cached file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A cached file differs from the hub's.
    #[error("{} has another SHA-256 than the one it is cached under", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
    },
}

/// The folder with the parquet files of a data set, downloaded if needed and allowed.
///
/// # Errors
///
/// When the cache lacks the data set and the hub may not be used or does not provide it, or a file is damaged.
pub(crate) fn resolve(
    dataset: &HubDataset,
    options: &HubOptions,
) -> Result<PathBuf, HubDatasetError> {
    let repo = HubRepo {
        repo: dataset.repo(),
        options,
    };
    let folder = repo.fetch_or_cached(
        |repo| fetch(dataset, repo),
        |repo| cached(dataset, repo),
        |error| matches!(error, HubDatasetError::NoFiles { .. }),
    )?;
    for path in parquet_files(&folder)? {
        check(&path)?;
    }
    Ok(folder)
}

fn cached(dataset: &HubDataset, repo: &HubRepo<'_>) -> Result<PathBuf, HubDatasetError> {
    let missing = || HubDatasetError::NotCached {
        id: dataset.id,
        cache_folder: repo.options.cache_folder.clone(),
    };
    let folder = repo.snapshot().ok_or_else(missing)?.join(dataset.folder);
    match parquet_files(&folder) {
        Ok(files) if !files.is_empty() => Ok(folder),
        _ => Err(missing()),
    }
}

fn fetch(dataset: &HubDataset, repo: &HubRepo<'_>) -> Result<PathBuf, HubDatasetError> {
    let failed = |source| HubDatasetError::Request {
        id: dataset.id,
        endpoint: repo.options.endpoint.clone(),
        source: Box::new(source),
    };
    let repo = repo.api().map_err(failed)?;
    let files = file_names(&repo).map_err(failed)?;
    let wanted = files.into_iter().filter(|file| {
        let path = Path::new(file);
        path.starts_with(dataset.folder) && is_parquet(path)
    });
    let mut folder = None;
    for file in wanted {
        let path = repo.get(&file).map_err(failed)?;
        folder = path.parent().map(Path::to_path_buf);
    }
    folder.ok_or(HubDatasetError::NoFiles {
        id: dataset.id,
        folder: dataset.folder,
    })
}

fn is_parquet(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "parquet")
}

/// The parquet files of a folder, in the order of their names.
///
/// # Errors
///
/// When the folder cannot be read.
pub(crate) fn parquet_files(folder: &Path) -> Result<Vec<PathBuf>, HubDatasetError> {
    let failed = |source| HubDatasetError::Read {
        path: folder.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if is_parquet(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The name of a large file is its SHA-256; that of a small one is a Git hash, which does not cover its bytes alone.
fn check(path: &Path) -> Result<(), HubDatasetError> {
    let failed = |source| HubDatasetError::Read {
        path: path.to_owned(),
        source,
    };
    let blob = std::fs::canonicalize(path).map_err(failed)?;
    let name = blob.file_name().unwrap_or_default().to_string_lossy();
    let is_sha256 = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_sha256 {
        return Ok(());
    }
    let mut hasher = Sha256::new();
    let mut file = File::open(&blob).map_err(failed)?;
    io::copy(&mut file, &mut hasher).map_err(failed)?;
    let found = hexadecimal(&hasher.finalize());
    if found.eq_ignore_ascii_case(&name) {
        Ok(())
    } else {
        Err(HubDatasetError::Checksum {
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::atomic_file;
    use crate::files::hub::{HubAccess, HubProgress};

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    const WIKITEXT: HubDataset = HubDataset::WIKITEXT_2_RAW;

    fn options(cache: &Path, access: HubAccess) -> HubOptions {
        HubOptions {
            access,
            cache_folder: cache.to_path_buf(),
            token: None,
            endpoint: "http://127.0.0.1:9".to_owned(),
            progress: HubProgress::Silent,
        }
    }

    fn put(path: &Path, bytes: &[u8]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        atomic_file::write(path, bytes).unwrap();
    }

    fn cache_with(file: &str) -> tempfile::TempDir {
        let cache = tempfile::tempdir().unwrap();
        let repo = cache.path().join("datasets--Salesforce--wikitext");
        put(&repo.join("refs/main"), COMMIT.as_bytes());
        put(&repo.join("snapshots").join(COMMIT).join(file), b"rows");
        cache
    }

    #[test]
    fn a_cached_data_set_is_found_with_and_without_the_hub() {
        let cache = cache_with("wikitext-2-raw-v1/train-00000-of-00001.parquet");
        for access in [HubAccess::CacheOnly, HubAccess::Online] {
            let folder = resolve(&WIKITEXT, &options(cache.path(), access)).unwrap();
            assert!(
                folder.ends_with("wikitext-2-raw-v1"),
                "{}",
                folder.display()
            );
            assert_eq!(parquet_files(&folder).unwrap().len(), 1);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let cache = cache_with("wikitext-103-raw-v1/train.parquet");
        let message = |access| {
            let error = resolve(&WIKITEXT, &options(cache.path(), access)).unwrap_err();
            error.to_string()
        };
        let offline = message(HubAccess::CacheOnly);
        assert!(
            offline.contains("Salesforce/wikitext") && offline.contains("not in the cache"),
            "{offline}"
        );
        let online = message(HubAccess::Online);
        assert!(
            online.contains("cannot fetch") && online.contains("127.0.0.1:9"),
            "{online}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_damaged_file_is_refused() {
        let cache = cache_with("README.md");
        let repo = cache.path().join("datasets--Salesforce--wikitext");
        let name = hexadecimal(&Sha256::digest(b"rows"));
        let blob = repo.join("blobs").join(name);
        let folder = repo.join("snapshots").join(COMMIT).join(WIKITEXT.folder);
        std::fs::create_dir_all(&folder).unwrap();
        let options = options(cache.path(), HubAccess::CacheOnly);
        put(&blob, b"rows");
        std::os::unix::fs::symlink(&blob, folder.join("train.parquet")).unwrap();
        resolve(&WIKITEXT, &options).unwrap();
        put(&blob, b"rowz");
        let error = resolve(&WIKITEXT, &options).unwrap_err();
        assert!(matches!(error, HubDatasetError::Checksum { .. }), "{error}");
    }
}
