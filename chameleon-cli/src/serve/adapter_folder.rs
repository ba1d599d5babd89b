//! The folder of adapters: clients load adapters from it and from nowhere else.

use std::{
    io,
    path::{Component, Path, PathBuf},
};

use axum::http::StatusCode;
use chameleon_models::adapter::AdapterError;

use super::error::ApiError;
use crate::errors::CliError;

/// The folder from which clients may load.
#[derive(Debug)]
pub(crate) struct AdapterFolder {
    /// Without symbolic links.
    root: PathBuf,
}

impl AdapterFolder {
    pub(crate) fn open(folder: &Path) -> Result<Self, CliError> {
        match folder.canonicalize() {
            Ok(root) if root.is_dir() => Ok(Self { root }),
            Ok(root) => Err(CliError::AdapterDir {
                path: root,
                source: io::ErrorKind::NotADirectory.into(),
            }),
            Err(source) => Err(CliError::AdapterDir {
                path: folder.to_owned(),
                source,
            }),
        }
    }

    /// The folder of an adapter inside this one. A path that leaves it is reported as missing.
    pub(crate) fn find(&self, path: &str) -> Result<PathBuf, ApiError> {
        let path = Path::new(path);
        let is_inside = path.components().next().is_some()
            && path
                .components()
                .all(|part| matches!(part, Component::Normal(_)))
            && !path.as_os_str().as_encoded_bytes().contains(&0);
        if !is_inside {
            return Err(ApiError::invalid(
                "path",
                "expected a path inside the folder of adapters: relative, without `..`",
            ));
        }
        let found = self.inside(&self.root.join(path))?;
        // The entries may be links as well, and must be regular files: opening a named pipe would block.
        for entry in ["adapter_config.json", "adapter.safetensors"] {
            if !self.inside(&found.join(entry))?.is_file() {
                return Err(missing());
            }
        }
        let memory = found.join("memory.safetensors");
        if memory.symlink_metadata().is_ok() && !self.inside(&memory)?.is_file() {
            return Err(missing());
        }
        Ok(found)
    }

    fn inside(&self, path: &Path) -> Result<PathBuf, ApiError> {
        let path = path.canonicalize().map_err(|_| missing())?;
        if path.starts_with(&self.root) {
            Ok(path)
        } else {
            Err(missing())
        }
    }

    /// The error of an adapter that cannot be loaded, without the path of the folder.
    pub(crate) fn refused(&self, error: &AdapterError) -> ApiError {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        let root = format!("{}{}", self.root.display(), std::path::MAIN_SEPARATOR);
        let message = message.replace(&root, "");
        let (status, code) = match error {
            AdapterError::OtherBase { .. } => (StatusCode::CONFLICT, "wrong_base"),
            _ => (StatusCode::BAD_REQUEST, "broken_adapter"),
        };
        ApiError::new(status, code, message).about("path")
    }
}

fn missing() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "adapter_not_found",
        "there is no adapter at this path in the folder of adapters",
    )
    .about("path")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter_in(folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        for name in ["adapter_config.json", "adapter.safetensors"] {
            std::fs::File::create(folder.join(name)).unwrap();
        }
    }

    #[test]
    fn only_what_lies_inside_is_found() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("adapters");
        adapter_in(&root.join("law"));
        adapter_in(&outer.path().join("secret"));
        let folder = AdapterFolder::open(&root).unwrap();
        assert!(folder.find("law").is_ok());
        let absolute = outer.path().join("secret");
        for path in [
            "",
            ".",
            "/",
            "..",
            "../secret",
            "law/../../secret",
            "law/..",
            "./law",
            absolute.to_str().unwrap(),
            "law\0",
            "\0",
            "none",
            "law/adapter_config.json",
            &"a/".repeat(5000),
        ] {
            assert!(folder.find(path).is_err(), "{path:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_that_lead_out_are_not_followed() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("adapters");
        let secret = outer.path().join("secret");
        adapter_in(&root.join("law"));
        adapter_in(&secret);
        std::os::unix::fs::symlink(&secret, root.join("link")).unwrap();
        let half = root.join("half");
        std::fs::create_dir(&half).unwrap();
        for name in ["adapter_config.json", "adapter.safetensors"] {
            std::os::unix::fs::symlink(secret.join(name), half.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(root.join("law"), root.join("same")).unwrap();
        let folder = AdapterFolder::open(&root).unwrap();
        assert!(folder.find("link").is_err());
        assert!(folder.find("half").is_err());
        assert_eq!(folder.find("same"), folder.find("law"));
    }
}
