//! Which model is meant: one text on a command line or in a configuration file.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::ModelError;

/// Where a model comes from.
///
/// Parsed from one text: a path that ends in `.gguf` is a GGUF file; a path that exists is a folder
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

/// A model on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubModel {
    id: String,
    revision: String,
    file: Option<String>,
}

impl HubModel {
    /// The revision that is meant when none is named.
    pub const DEFAULT_REVISION: &str = "main";

    /// `owner/name`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A branch, a tag or a commit.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The one GGUF file that is meant, if not the folder.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    fn parse(text: &str) -> Option<Self> {
        let (text, file) = match text.split_once(':') {
            Some((text, file)) => (text, Some(file)),
            None => (text, None),
        };
        let (id, revision) = text
            .split_once('@')
            .unwrap_or((text, Self::DEFAULT_REVISION));
        let (owner, name) = id.split_once('/')?;
        // All of these become parts of paths and addresses.
        let valid = is_name(owner)
            && is_name(name)
            && revision.split('/').all(is_name)
            && file.is_none_or(|file| is_gguf(Path::new(file)) && file.split('/').all(is_name));
        valid.then(|| Self {
            id: id.to_owned(),
            revision: revision.to_owned(),
            file: file.map(str::to_owned),
        })
    }
}

impl FromStr for ModelSource {
    type Err = ModelError;

    /// Looks whether a path of this name exists, because a folder may be named like a hub id.
    fn from_str(text: &str) -> Result<Self, ModelError> {
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

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}", self.id)?;
        if self.revision != Self::DEFAULT_REVISION {
            write!(f, "@{}", self.revision)?;
        }
        match &self.file {
            Some(file) => write!(f, ":{file}"),
            None => Ok(()),
        }
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(allowed)
}

pub(crate) fn is_gguf(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(id: &str, revision: &str, file: Option<&str>) -> ModelSource {
        ModelSource::Hub(HubModel {
            id: id.to_owned(),
            revision: revision.to_owned(),
            file: file.map(str::to_owned),
        })
    }

    #[test]
    fn hub_ids_may_name_a_revision_and_a_file() {
        let parse = |text: &str| text.parse::<ModelSource>().unwrap();
        assert_eq!(parse("owner/name"), hub("owner/name", "main", None));
        assert_eq!(parse("hf:owner/name@v1"), hub("owner/name", "v1", None));
        assert_eq!(
            parse("owner/name@refs/pr/1"),
            hub("owner/name", "refs/pr/1", None)
        );
        assert_eq!(
            parse("owner/name:q4.gguf"),
            hub("owner/name", "main", Some("q4.gguf"))
        );
        assert_eq!(
            parse("owner/name@v1:sub/q4.gguf"),
            hub("owner/name", "v1", Some("sub/q4.gguf"))
        );
    }

    #[test]
    fn a_source_prints_as_it_is_parsed() {
        for text in ["hf:owner/name", "hf:owner/name@v1:q4.gguf"] {
            assert_eq!(text.parse::<ModelSource>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn paths_that_exist_win_over_hub_ids() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().to_str().unwrap();
        assert_eq!(
            text.parse::<ModelSource>().unwrap(),
            ModelSource::Folder(folder.path().to_path_buf())
        );
        let file = folder.path().join("m.gguf");
        crate::files::atomic_file::write(&file, b"").unwrap();
        let parsed = file.to_str().unwrap().parse::<ModelSource>().unwrap();
        assert_eq!(parsed, ModelSource::Gguf(file));
    }

    #[test]
    fn missing_paths_and_other_texts_are_errors() {
        let parse = |text: &str| text.parse::<ModelSource>().unwrap_err();
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
