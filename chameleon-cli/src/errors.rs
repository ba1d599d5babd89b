//! Errors for the user: one sentence, one hint, one exit code.
//!
//! Libraries report errors; only this module adds help on what to do about them.

mod flags;
mod help;

use std::{
    borrow::Cow,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use chameleon_cluster::ClusterError;
use chameleon_core::device::DeviceError;
use chameleon_models::ModelError;
use chameleon_models::adapter::AdapterError;
use chameleon_models::data::DataError;
use chameleon_models::engine::{EngineError, RequestFailure};
use chameleon_models::training::TrainingError;

pub(crate) use flags::{ConfigFileError, FlagError};

/// The exit code of a command that could not run.
pub(crate) const COULD_NOT_RUN: u8 = 2;

/// The exit code that shells expect of a program that was interrupted.
pub(crate) const INTERRUPTED: u8 = 130;

/// The outcome of a command that could run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// Everything was done.
    Done,
    /// The command ran, and its check failed.
    CheckFailed,
    /// The user interrupted the command, and everything so far is saved.
    Interrupted,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Done => Self::SUCCESS,
            ExitStatus::CheckFailed => Self::from(1),
            ExitStatus::Interrupted => Self::from(INTERRUPTED),
        }
    }
}

/// An error because of which a command could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CliError {
    #[error(transparent)]
    Flags(#[from] clap::Error),
    #[error(transparent)]
    Rule(#[from] FlagError),
    #[error(transparent)]
    ConfigFile(#[from] ConfigFileError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    #[error(transparent)]
    Training(#[from] TrainingError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("cannot {action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("`--tui` draws on standard error, which is not a terminal or is silenced by `-q`")]
    NoTerminal,
    #[error("cannot read prompts from {place}")]
    PromptsUnreadable { place: String, source: io::Error },
    #[error("{place} is not UTF-8 at byte {position}")]
    PromptsNotUtf8 { place: String, position: usize },
    #[error("there is no prompt")]
    NoPrompts,
    #[error("prompt {number} is empty")]
    EmptyPrompt { number: usize },
    #[error("prompt {number} cannot be answered")]
    Prompt { number: usize, source: EngineError },
    #[error("the answer to prompt {number} could not be completed")]
    Answer {
        number: usize,
        source: RequestFailure,
    },
    #[error("the model has no chat template")]
    NoChatTemplate,
    #[error("{} exists already", path.display())]
    OutTaken { path: PathBuf },
    #[error("{} belongs to a run with other prompts or flags", path.display())]
    OtherJournal { path: PathBuf },
    #[error("{source}")]
    ScoredField {
        flag: &'static str,
        source: DataError,
    },
    #[error("there are {answers} answers and {references} references")]
    UnequalAnswers { answers: usize, references: usize },
    #[error("{} holds no answers", path.display())]
    NoAnswers { path: PathBuf },
    #[error("the row at {origin} names no group")]
    NoGroup { origin: String },
    #[error("there are no exemplars of group `{key}`")]
    NoSuchGroup { key: String },
    #[error("cannot write the results")]
    Output(#[source] io::Error),
    #[error("cannot listen for Ctrl-C")]
    Interrupt(#[source] ctrlc::Error),
    #[error("cannot start {threads} threads")]
    Threads {
        threads: usize,
        source: rayon::ThreadPoolBuildError,
    },
    #[cfg(feature = "serve")]
    #[error("cannot listen on {address}")]
    Listen {
        address: std::net::SocketAddr,
        source: io::Error,
    },
    #[cfg(feature = "serve")]
    #[error("cannot use {} as the folder of adapters", path.display())]
    AdapterDir { path: PathBuf, source: io::Error },
    #[cfg(feature = "serve")]
    #[error("the adapter `{name}` cannot be served: {reason}")]
    AdapterRefused { name: String, reason: String },
    #[cfg(feature = "serve")]
    #[error("cannot start the threads that serve clients")]
    Runtime(#[source] io::Error),
}

impl CliError {
    /// An error of `action` on a file or folder, such as `write`.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self::File {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// What to do about it.
    pub(crate) fn help(&self) -> Option<Cow<'static, str>> {
        let help = match self {
            Self::Rule(error) => return Some(error.help()),
            Self::ConfigFile(error) => return error.help(),
            Self::Device(error) => return help::device(error),
            Self::Cluster(error) => return Some(help::cluster(error)),
            Self::Training(error) => return help::training(error),
            Self::ScoredField { flag, source } => return Some(help::scored_field(flag, source)),
            Self::Model(error) => help::model(error)?,
            Self::Adapter(error) => help::adapter(error)?,
            Self::Engine(refusal)
            | Self::Prompt {
                source: refusal, ..
            } => help::refusal(refusal)?,
            Self::Data(error) => help::data(error),
            Self::File { .. } => "check the permissions and the free space on the disk",
            Self::NoTerminal => "leave `--tui` out, or do not redirect or silence standard error",
            Self::PromptsUnreadable { .. } => "check the path after `--file`",
            Self::PromptsNotUtf8 { .. } => "save the prompts as UTF-8",
            Self::NoPrompts => {
                "write prompts after the flags, name a file with `--file`, or pipe them in"
            }
            Self::EmptyPrompt { .. } => {
                "write at least one token into it: a model and an adapter need one to start from"
            }
            Self::Answer { .. } => "leave this prompt out, or try another model",
            Self::NoChatTemplate => "leave `--chat` out, or use a chat model",
            Self::OutTaken { .. } => "name another file with `--out`, or remove this one",
            Self::OtherJournal { .. } => {
                "repeat the flags of that run to continue it, or remove the file to start again"
            }
            Self::UnequalAnswers { .. } => {
                "each answer needs its reference, in the same order; blank lines count"
            }
            Self::NoAnswers { .. } => "name a file with one answer per line, or a table",
            Self::NoGroup { .. } => "give every row its group, or name one for all with `--group`",
            Self::NoSuchGroup { .. } => "add some with `chameleon remember`",
            Self::Threads { .. } => "make `--threads` smaller",
            #[cfg(feature = "serve")]
            Self::Listen { .. } => "name another address with `--listen`",
            #[cfg(feature = "serve")]
            Self::AdapterDir { .. } => "check the path after `--adapter-dir`",
            #[cfg(feature = "serve")]
            Self::AdapterRefused { .. } => "name each adapter once, as in `--adapter NAME=DIR`",
            #[cfg(feature = "serve")]
            Self::Runtime(_) => "check the memory and the number of processes of this machine",
            Self::Flags(_) | Self::Output(_) | Self::Interrupt(_) => return None,
        };
        Some(help.into())
    }

    /// The error and its causes in one sentence. A cause whose text is already in the sentence is not repeated.
    pub(crate) fn sentence(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let reason = error.to_string();
            if !text.contains(&reason) {
                text.push_str(": ");
                text.push_str(&reason);
            }
            cause = error.source();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once_and_in_order() {
        let inner = io::Error::new(io::ErrorKind::NotFound, "no such file");
        let error = CliError::from(ConfigFileError::Unreadable {
            path: "run.toml".into(),
            source: inner,
        });
        assert_eq!(
            error.sentence(),
            "cannot read the config file `run.toml`: no such file"
        );
    }
}
