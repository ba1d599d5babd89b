//! Errors in the command line and in the config file.

#[cfg(feature = "serve")]
use std::net::SocketAddr;
use std::{borrow::Cow, io, path::PathBuf};

/// A rule between flags that does not hold.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum FlagError {
    #[error("the system has no cache folder for this user")]
    NoCacheFolder,
    #[error(
        "`--prefix` is {prefix} and `--seq-len` is {seq_len}: no token is left to score after the prompt"
    )]
    NothingToScore { prefix: usize, seq_len: usize },
    #[error(
        "`--prefix` is {prefix} and `--context` is {context}: no token is left to score in a window"
    )]
    PrefixFillsWindow { prefix: usize, context: usize },
    #[error(
        "`--stride` is {stride} and `--context` is {context}: tokens between the windows would be left out"
    )]
    StrideSkipsTokens { stride: usize, context: usize },
    #[error("`--{flag}` names `{value}` twice")]
    Twice { flag: &'static str, value: String },
    #[error("`--answers` needs alpaca: wikitext has no answers")]
    NoAnswers,
    #[error(
        "the control of a hypernetwork needs the conditions of other groups, and `--clusters` is 1"
    )]
    NoOtherCluster,
    #[error("`--sweep group-size` has no effect with `--condition {condition}`")]
    GroupSizeWithoutEffect { condition: String },
    #[error("`--sweep` needs a hypernetwork, and `--methods` names none")]
    NothingToSweep,
    #[cfg(feature = "serve")]
    #[error("the variable `{variable}` is empty")]
    EmptyKey { variable: &'static str },
    #[cfg(feature = "serve")]
    #[error("a model cannot be served under the name `{name}`")]
    ServedName { name: String },
    #[cfg(feature = "serve")]
    #[error("`--listen` is {listen}, which other machines can reach, and there is no API key")]
    OpenToOthers { listen: SocketAddr },
}

impl FlagError {
    /// What to do about it.
    pub(crate) fn help(&self) -> Cow<'static, str> {
        match self {
            Self::NoCacheFolder => "name one with `--cache-dir`".into(),
            Self::NothingToScore { seq_len, .. } => format!(
                "make `--prefix` smaller than {seq_len}, or `--seq-len` larger; a quarter of the text is a good prompt"
            )
            .into(),
            Self::PrefixFillsWindow { context, .. } => {
                format!("make `--prefix` smaller than {context}, or `--context` larger").into()
            }
            Self::StrideSkipsTokens { context, .. } => {
                format!("make `--stride` at most {context}, which means no overlap").into()
            }
            Self::Twice { flag, .. } => format!("name each entry of `--{flag}` once").into(),
            Self::NoOtherCluster => {
                "make `--clusters` at least 2, or compare `--methods lora` alone".into()
            }
            Self::GroupSizeWithoutEffect { .. } => {
                "add `--condition batch` or `--condition blend`".into()
            }
            Self::NothingToSweep => "add `core` or `dense` to `--methods`".into(),
            Self::NoAnswers => "leave `--answers` out".into(),
            #[cfg(feature = "serve")]
            Self::EmptyKey { variable } => {
                format!("unset `{variable}`, or set it to an API key").into()
            }
            #[cfg(feature = "serve")]
            Self::ServedName { .. } => {
                "give `--name` 1 to 64 letters, digits, `-`, `_` and `.`".into()
            }
            #[cfg(feature = "serve")]
            Self::OpenToOthers { .. } => {
                "set a key with `--api-key` or `CHAMELEON_API_KEY`, or add `--insecure-listen`"
                    .into()
            }
        }
    }
}

/// Why a config file could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigFileError {
    #[error("cannot read the config file `{}`", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the config file `{}` is not UTF-8 at byte {position}", path.display())]
    NotUtf8 { path: PathBuf, position: usize },
    #[error("the config file `{}` is not TOML: line {line}: {reason}", path.display())]
    Syntax {
        path: PathBuf,
        line: usize,
        reason: String,
    },
    #[error("the config file `{}` has an unknown key: `{key}`", path.display())]
    UnknownKey {
        path: PathBuf,
        key: String,
        nearest: Option<String>,
    },
    #[error("the config file `{}` has an invalid `{key}`: {reason}", path.display())]
    BadValue {
        path: PathBuf,
        key: String,
        reason: String,
    },
}

impl ConfigFileError {
    /// What to do about it.
    pub(crate) fn help(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            Self::Unreadable { .. } => "check the path after `--config`".into(),
            Self::NotUtf8 { .. } => "save the file as UTF-8".into(),
            Self::Syntax { .. } => {
                "write one `flag = value` per line, text in quotes, lists in square brackets".into()
            }
            Self::UnknownKey {
                nearest: Some(nearest),
                ..
            } => format!("the nearest flag is `{nearest}`").into(),
            Self::UnknownKey { nearest: None, .. } => {
                "keys are the long flags of the command without the dashes; see `--help`".into()
            }
            Self::BadValue { .. } => return None,
        })
    }
}
