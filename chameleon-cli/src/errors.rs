//! Errors as the user meets them: one sentence, one hint, one exit code.
//!
//! Libraries say what is wrong; this file, and no other, adds what to do about it.

use std::{fmt, io, process::ExitCode};

use chameleon_core::DeviceError;
use miette::Diagnostic;

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
    #[error("cannot write the results")]
    Output(#[source] io::Error),
    #[error("cannot listen for Ctrl-C")]
    Interrupt(#[source] ctrlc::Error),
    #[error("cannot start {threads} threads")]
    Threads {
        threads: usize,
        source: rayon::ThreadPoolBuildError,
    },
    #[error("`chameleon {command}` is not in this build yet")]
    NotYet { command: &'static str },
}

impl Diagnostic for CliError {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        let help: String = match self {
            Self::Config(error) => error.help(),
            Self::ConfigFile(error) => config_file_help(error)?,
            Self::Device(error) => device_help(error)?,
            Self::NotYet { .. } => "use a newer build".to_owned(),
            Self::Threads { .. } => "give `--threads` a smaller number".to_owned(),
            Self::Flags(_) | Self::Output(_) | Self::Interrupt(_) => return None,
        };
        Some(Box::new(help))
    }
}

fn config_file_help(error: &ConfigFileError) -> Option<String> {
    Some(match error {
        ConfigFileError::Unreadable { .. } => "check the path after `--config`".to_owned(),
        ConfigFileError::NotUtf8 { .. } => "save the file as UTF-8".to_owned(),
        ConfigFileError::Syntax { .. } => {
            "write one `flag = value` a line, texts in quotes, lists in square brackets".to_owned()
        }
        ConfigFileError::UnknownKey {
            nearest: Some(nearest),
            ..
        } => format!("the nearest flag is `{nearest}`"),
        ConfigFileError::UnknownKey { nearest: None, .. } => {
            "keys are the long flags of the command without the dashes; see `--help`".to_owned()
        }
        ConfigFileError::BadValue { .. } => return None,
    })
}

fn device_help(error: &DeviceError) -> Option<String> {
    Some(match error {
        DeviceError::Unknown { .. } => "name one of these with `--device`".to_owned(),
        DeviceError::NotCompiled { backend, .. } => {
            format!("build with `--features {backend}`, or name one of these with `--device`")
        }
        DeviceError::BadIndex { .. } => {
            "write the device as a name, a colon and a number, such as `wgpu:1`".to_owned()
        }
        DeviceError::NoSuchIndex { backend, .. } => format!("write `--device {backend}`"),
        DeviceError::NoBackend => "build with `--features flex`".to_owned(),
        _ => return None,
    })
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
