//! Why flags were refused that are fine one by one.

#[cfg(feature = "serve")]
use std::net::SocketAddr;

/// A rule between flags that does not hold.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    #[error("the system names no folder for caches")]
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
    #[error("`--answers` is for alpaca: wikitext has no answers")]
    NoAnswers,
    #[error(
        "a hypernetwork is compared with one that gets the conditions of other groups, and `--clusters` is 1"
    )]
    NoOtherCluster,
    #[error("with `--condition {condition}` the size of a group changes nothing")]
    GroupSizeWithoutEffect { condition: String },
    #[error("a sweep shows the gain of a hypernetwork, and `--methods` names none")]
    NothingToSweep,
    #[cfg(feature = "serve")]
    #[error("the variable `{variable}` is empty")]
    EmptyKey { variable: &'static str },
    #[cfg(feature = "serve")]
    #[error("`{name}` is no name that a model can be served by")]
    ServedName { name: String },
    #[cfg(feature = "serve")]
    #[error("`--listen` is {listen}, which others can reach, and there is no key")]
    OpenToOthers { listen: SocketAddr },
}

impl ConfigError {
    /// What to do about it.
    pub(crate) fn help(&self) -> String {
        match self {
            Self::NoCacheFolder => "name one with `--cache-dir`".to_owned(),
            Self::NothingToScore { seq_len, .. } => format!(
                "make `--prefix` smaller than {seq_len}, or `--seq-len` larger; a quarter of the text is a good prompt"
            ),
            Self::PrefixFillsWindow { context, .. } => {
                format!("make `--prefix` smaller than {context}, or `--context` larger")
            }
            Self::StrideSkipsTokens { context, .. } => {
                format!("make `--stride` {context} or less; {context} is no overlap at all")
            }
            Self::Twice { flag, .. } => format!("name each entry of `--{flag}` once"),
            Self::NoOtherCluster => {
                "give `--clusters` 2 or more, or compare `--methods lora` alone".to_owned()
            }
            Self::GroupSizeWithoutEffect { .. } => {
                "add `--condition batch` or `--condition blend`".to_owned()
            }
            Self::NothingToSweep => "add `core` or `dense` to `--methods`".to_owned(),
            Self::NoAnswers => "leave `--answers` out".to_owned(),
            #[cfg(feature = "serve")]
            Self::EmptyKey { variable } => format!("unset `{variable}`, or set it to an API key"),
            #[cfg(feature = "serve")]
            Self::ServedName { .. } => {
                "give `--name` 1 to 64 letters, digits, `-`, `_` and `.`".to_owned()
            }
            #[cfg(feature = "serve")]
            Self::OpenToOthers { .. } => {
                "set a key with `--api-key` or `CHAMELEON_API_KEY`, or add `--insecure-listen`"
                    .to_owned()
            }
        }
    }
}
