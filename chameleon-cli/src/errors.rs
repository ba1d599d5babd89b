//! Errors as the user meets them: one sentence, one hint, one exit code.
//!
//! Libraries say what is wrong; this module, and no other, adds what to do about it.

mod help;

use std::{fmt, io, path::PathBuf, process::ExitCode};

use chameleon_cluster::ClusterError;
use chameleon_core::DeviceError;
use chameleon_hypernet::HypernetError;
use chameleon_models::{
    AdapterError, HubDatasetError, MemoryError, ModelError, TrainError,
    adapter::ImpossibleAdapter,
    data::DataError,
    engine::{Refusal, RequestFailure},
    training::hidden_cache::HiddenCacheError,
};
use miette::Diagnostic;

use self::help::{
    adapter_help, cache_help, cluster_help, config_file_help, data_help, device_help,
    impossible_help, memory_help, model_help, refusal_help, scored_help,
};
use crate::{
    interrupt, output,
    resolve::{ConfigError, ConfigFileError},
};

/// How a command that could run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
    /// Everything was done.
    Done,
    /// The command ran, and what it checks does not hold.
    CheckFailed,
    /// The user asked to stop, and everything so far is safe.
    Interrupted,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Done => Self::SUCCESS,
            ExitStatus::CheckFailed => Self::from(1),
            ExitStatus::Interrupted => Self::from(interrupt::EXIT_CODE),
        }
    }
}

/// The exit code of a command that could not run.
const COULD_NOT_RUN: u8 = 2;

/// Why a command could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CliError {
    #[error(transparent)]
    Flags(#[from] clap::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
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
    HiddenCache(#[from] HiddenCacheError),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Hypernet(#[from] HypernetError),
    #[error("{} holds an adapter already", path.display())]
    FolderTaken { path: PathBuf },
    #[error("{} holds finished runs already", path.display())]
    ResultsTaken { path: PathBuf },
    #[error("the recipe `{recipe}` scores none of these rows")]
    NothingScored { recipe: String },
    #[error("shuffled conditions need a second batch to take a condition from, and there is one")]
    OneBatch,
    #[error("{} holds no training that could go on", path.display())]
    NothingToResume { path: PathBuf },
    #[error("the training in {} had other flags or other data", path.display())]
    OtherRun { path: PathBuf },
    #[error("cannot write {}", path.display())]
    Metrics { path: PathBuf, source: io::Error },
    #[error("{} holds no parquet file", path.display())]
    NoPaperData { path: PathBuf },
    #[error(transparent)]
    HubDataset(#[from] HubDatasetError),
    #[error("the system names no folder for caches")]
    NoCacheFolder,
    #[error("cannot make the folder {}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("cannot delete {}", path.display())]
    Delete { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Train(#[from] TrainError),
    #[error(transparent)]
    ImpossibleAdapter(#[from] ImpossibleAdapter),
    #[cfg(feature = "tui")]
    #[error("`--tui` draws on a terminal, and standard output is none")]
    NoTerminal,
    #[error("{} holds a comparison already", path.display())]
    ComparisonTaken { path: PathBuf },
    #[error("{} was made with other flags or other data", path.display())]
    OtherComparison { path: PathBuf },
    #[error("{} is no record of a run", path.display())]
    RunRecord {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("every training of `{method}` with seed {seed} diverged")]
    AllDiverged { method: &'static str, seed: u64 },
    #[error("cannot read prompts from {place}")]
    PromptsUnreadable { place: String, source: io::Error },
    #[error("{place} is not UTF-8: byte {position} starts no character")]
    PromptsNotUtf8 { place: String, position: usize },
    #[error("prompt {number} is empty")]
    EmptyPrompt { number: usize },
    #[error("prompt {number} cannot be answered")]
    Prompt { number: usize, source: Refusal },
    #[error("prompt {number} could not be answered to the end")]
    Answer {
        number: usize,
        source: RequestFailure,
    },
    #[error(transparent)]
    Engine(#[from] Refusal),
    #[error("{} is there already", path.display())]
    OutTaken { path: PathBuf },
    #[error("{} belongs to a run with other prompts or flags", path.display())]
    OtherJournal { path: PathBuf },
    #[error("cannot use the journal {}", path.display())]
    Journal { path: PathBuf, source: io::Error },
    #[error("there is no prompt")]
    NoPrompts,
    #[error("the model has no chat template")]
    NoChatTemplate,
    #[error("{source}")]
    ScoredField {
        flag: &'static str,
        source: DataError,
    },
    #[error("there are {answers} answers and {references} references")]
    UnequalAnswers { answers: usize, references: usize },
    #[error("{} holds no answers", path.display())]
    NoAnswers { path: PathBuf },
    #[error("cannot write the results")]
    Output(#[source] io::Error),
    #[error("cannot listen for Ctrl-C")]
    Interrupt(#[source] ctrlc::Error),
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
    #[error("cannot start the threads that talk to clients")]
    Runtime(#[source] io::Error),
    #[error("cannot start {threads} threads")]
    Threads {
        threads: usize,
        source: rayon::ThreadPoolBuildError,
    },
}

impl Diagnostic for CliError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help: String = match self {
            Self::Config(error) => error.help(),
            Self::ConfigFile(error) => config_file_help(error)?,
            Self::Device(error) => device_help(error)?,
            Self::Model(error) => model_help(error)?,
            Self::Adapter(error) => adapter_help(error)?,
            Self::Data(error) => data_help(error),
            Self::Cluster(error) => cluster_help(error),
            Self::PromptsUnreadable { .. } => "check the path after `--file`".to_owned(),
            Self::PromptsNotUtf8 { .. } => "save the prompts as UTF-8".to_owned(),
            Self::EmptyPrompt { .. } => {
                "write something into it: neither the model nor an adapter can begin from nothing"
                    .to_owned()
            }
            Self::Engine(refusal)
            | Self::Prompt {
                source: refusal, ..
            } => refusal_help(refusal)?,
            Self::OutTaken { .. } => {
                "name another file with `--out`, or remove this one".to_owned()
            }
            Self::OtherJournal { .. } => {
                "repeat the flags it was begun with to go on, or remove it to begin anew".to_owned()
            }
            Self::Answer { .. } => "leave this prompt out, or try another model".to_owned(),
            Self::NoPrompts => {
                "write prompts after the flags, name a file with `--file`, or pipe them in"
                    .to_owned()
            }
            Self::ScoredField { flag, source } => scored_help(flag, source),
            Self::UnequalAnswers { .. } => {
                "each answer needs its reference, in the same order; blank lines count".to_owned()
            }
            Self::NoAnswers { .. } => "name a file with one answer a line, or rows".to_owned(),
            Self::NoChatTemplate => "leave `--chat` out, or use a model made for chat".to_owned(),
            Self::NothingScored { .. } => "use more or longer rows".to_owned(),
            Self::OneBatch => "make `--batch-size` smaller, or use more rows".to_owned(),
            Self::FolderTaken { .. } | Self::ResultsTaken { .. } => {
                "go on with `--resume`, or name another folder with `--out`".to_owned()
            }
            Self::NothingToResume { .. } => "leave `--resume` out to start anew".to_owned(),
            Self::OtherRun { .. } => {
                "repeat the flags and data it was started with, or name another folder with `--out`"
                    .to_owned()
            }
            Self::NoPaperData { .. } => "name the data with `--data`".to_owned(),
            Self::HubDataset(HubDatasetError::Checksum { .. }) => {
                "remove the file, so that it is fetched again".to_owned()
            }
            Self::HubDataset(_) => {
                "name local data with `--data`, or check the network and `HF_ENDPOINT`".to_owned()
            }
            Self::NoCacheFolder => "name one with `--cache-dir`".to_owned(),
            Self::Metrics { .. }
            | Self::Folder { .. }
            | Self::Journal { .. }
            | Self::Delete { .. } => {
                "check the rights of the folder and the space on the disk".to_owned()
            }
            Self::HiddenCache(error) => cache_help(error),
            Self::Memory(error) => memory_help(error),
            Self::Train(TrainError::Diverged { .. }) => {
                "lower `--lr`; the last checkpoint is kept".to_owned()
            }
            Self::Train(_) => {
                "the training state is damaged; start anew in another folder".to_owned()
            }
            Self::ImpossibleAdapter(error) => impossible_help(error),
            #[cfg(feature = "tui")]
            Self::NoTerminal => {
                "leave `--tui` out, or do not send standard output elsewhere".to_owned()
            }
            Self::ComparisonTaken { .. } => "go on with `--resume`, which keeps what is finished, or name another folder with `--out`".to_owned(),
            Self::OtherComparison { .. } => {
                "repeat the flags and data it was made with, or name another folder with `--out`"
                    .to_owned()
            }
            Self::RunRecord { .. } => {
                "remove the folder it is in; `--resume` makes that run again".to_owned()
            }
            Self::AllDiverged { .. } => "give `--lr` smaller values".to_owned(),
            Self::Hypernet(_) => "choose other sizes for the adapter".to_owned(),
            #[cfg(feature = "serve")]
            Self::Listen { .. } => "name another address with `--listen`".to_owned(),
            #[cfg(feature = "serve")]
            Self::AdapterDir { .. } => "check the path after `--adapter-dir`".to_owned(),
            #[cfg(feature = "serve")]
            Self::AdapterRefused { .. } => {
                "name each adapter once, as in `--adapter NAME=DIR`".to_owned()
            }
            #[cfg(feature = "serve")]
            Self::Runtime(_) => {
                "check the memory and the number of processes of this machine".to_owned()
            }
            Self::Threads { .. } => "give `--threads` a smaller number".to_owned(),
            Self::Flags(_) | Self::Output(_) | Self::Interrupt(_) => return None,
        };
        Some(Box::new(help))
    }
}

/// Says why nothing came of it, and answers with the exit code.
pub(crate) fn report(error: &CliError) -> ExitCode {
    match error {
        CliError::Flags(error) => {
            output::flag_message(error);
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(COULD_NOT_RUN))
        }
        // Whoever read the output has seen enough.
        CliError::Output(source) if source.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        error => {
            output::error_message(
                &sentence(error),
                error.help().map(|help| help.to_string()).as_deref(),
            );
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}

/// The error and its causes in one sentence; a cause that the text above it already tells is not told twice.
fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
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

/// A panic is a mistake of ours, and says so.
pub(crate) fn install_panic_hook() {
    let backtrace = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        #[cfg(feature = "tui")]
        output::leave_screen();
        if std::env::var_os("RUST_BACKTRACE").is_some() {
            backtrace(panic);
        }
        let reason = panic.payload_as_str().unwrap_or("no reason given");
        let place = panic
            .location()
            .map_or_else(String::new, |place| format!(" at {place}"));
        output::error_message(
            &format!("chameleon has a bug{place}: {reason}"),
            Some("please report this line and the command; RUST_BACKTRACE=1 tells more"),
        );
    }));
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
            sentence(&error),
            "cannot read the config file `run.toml`: no such file"
        );
    }

    #[test]
    fn a_closed_pipe_is_not_an_error() {
        let error = CliError::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!(
            format!("{:?}", report(&error)),
            format!("{:?}", ExitCode::SUCCESS)
        );
    }
}
