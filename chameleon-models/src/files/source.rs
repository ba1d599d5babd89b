//! Where a model comes from, named by one text on a command line or in a configuration file.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::ModelError;
use crate::files::hub_model::{HubModel, is_gguf};

/// Where a model comes from.
///
/// [`find`](Self::find) takes one text: a path that ends in `.gguf` is a GGUF file; a path that exists is a folder
/// (or a GGUF file under another name); `owner/name`, with an optional `@revision` and an optional
/// `:file.gguf`, is a model on the hub. `hf:` in front says "hub" where a folder has the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelSource {
    /// A Hugging Face folder.
    Folder(PathBuf),
    /// A GGUF file.
    Gguf(PathBuf),
    /// A model on the hub.
    Hub(HubModel),
}

impl ModelSource {
    /// The source that a text names. Looks whether there is a file or a folder of this name, because a folder may be
    /// named like a hub id.
    ///
    /// # Errors
    /// When the text is a path at which there is nothing, or is neither a path nor a hub id.
    pub fn find(text: &str) -> Result<Self, ModelError> {
        let unknown = || ModelError::NotAModelSource {
            text: text.to_owned(),
        };
        if let Some(hub) = text.strip_prefix("hf:") {
            return HubModel::parse(hub).map(Self::Hub).ok_or_else(unknown);
        }
        let path = Path::new(text);
        if path.is_dir() {
            Ok(Self::Folder(path.to_path_buf()))
        } else if path.exists() {
            Ok(Self::Gguf(path.to_path_buf()))
        } else if let Some(hub) =
            HubModel::parse(text).filter(|_| !is_gguf(path) || text.contains(':'))
        {
            Ok(Self::Hub(hub))
        } else if is_gguf(path) || path.components().count() > 1 {
            Err(ModelError::ModelMissing {
                path: path.to_path_buf(),
            })
        } else {
            Err(unknown())
        }
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) | Self::Gguf(path) => path.display().fmt(f),
            Self::Hub(hub) => hub.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_ids_may_name_a_revision_and_a_file() {
        for (text, revision, file) in [
            ("owner/name", "main", None),
            ("hf:owner/name@v1", "v1", None),
            ("owner/name@refs/pr/1", "refs/pr/1", None),
            ("owner/name:q4.gguf", "main", Some("q4.gguf")),
            ("owner/name@v1:sub/q4.gguf", "v1", Some("sub/q4.gguf")),
        ] {
            let ModelSource::Hub(model) = ModelSource::find(text).unwrap() else {
                panic!("{text} is a hub id");
            };
            let found = (model.id(), model.revision(), model.file());
            assert_eq!(found, ("owner/name", revision, file));
        }
    }

    #[test]
    fn a_source_prints_as_it_is_written() {
        for text in ["hf:owner/name", "hf:owner/name@v1:q4.gguf"] {
            assert_eq!(ModelSource::find(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn paths_that_exist_win_over_hub_ids() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().to_str().unwrap();
        assert_eq!(
            ModelSource::find(text).unwrap(),
            ModelSource::Folder(folder.path().to_path_buf())
        );
        let file = folder.path().join("m.gguf");
        crate::files::atomic_file::write(&file, b"").unwrap();
        let parsed = ModelSource::find(file.to_str().unwrap()).unwrap();
        assert_eq!(parsed, ModelSource::Gguf(file));
    }

    #[test]
    fn missing_paths_and_other_texts_are_errors() {
        let parse = |text: &str| ModelSource::find(text).unwrap_err();
        assert!(matches!(
            parse("no/such.gguf"),
            ModelError::ModelMissing { .. }
        ));
        assert!(matches!(
            parse("/no/such/folder"),
            ModelError::ModelMissing { .. }
        ));
        assert!(matches!(
            parse("./no/such"),
            ModelError::ModelMissing { .. }
        ));
        for text in [
            "",
            "word",
            "hf:word",
            "hf:a/b@",
            "hf:a/../b",
            "hf:../b",
            "hf:a/b:x.bin",
            "hf:a/b@../x",
        ] {
            assert!(
                matches!(parse(text), ModelError::NotAModelSource { .. }),
                "{text}"
            );
        }
    }
}
