//! The `chameleon` program: read the flags, run one command, exit with its status.

mod allocator;
mod args;
mod commands;
mod errors;
mod interrupt;
mod output;
mod report;
mod resolve;
#[cfg(feature = "serve")]
mod serve;

use std::{io, process::ExitCode};

use errors::{COULD_NOT_RUN, CliError, ExitStatus};

fn main() -> ExitCode {
    allocator::keep_freed_memory();
    install_panic_hook();
    match run() {
        Ok(status) => status.into(),
        Err(error) => report(&error),
    }
}

fn run() -> Result<ExitStatus, CliError> {
    let cli = resolve::read_flags(std::env::args_os().collect())?;
    let run = resolve::resolve(cli)?;
    commands::run(run)
}

/// Prints why the command could not run, and returns the exit code.
fn report(error: &CliError) -> ExitCode {
    match error {
        CliError::Flags(error) => {
            output::flag_message(error);
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(COULD_NOT_RUN))
        }
        // The reader of the output has closed it: it needs no more.
        CliError::Output(source) if source.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        error => {
            output::error_message(&error.sentence(), error.help().as_deref());
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}

/// Reports a panic, which is always a bug, as an error message.
fn install_panic_hook() {
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
            Some("please report this line and the command; RUST_BACKTRACE=1 shows more"),
        );
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_not_an_error() {
        let error = CliError::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!(
            format!("{:?}", report(&error)),
            format!("{:?}", ExitCode::SUCCESS)
        );
    }
}
