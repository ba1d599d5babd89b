//! The name of a model on the hub.

use std::fmt;
use std::path::Path;

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

    /// `owner/name`, with an optional `@revision` and an optional `:file.gguf`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
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
