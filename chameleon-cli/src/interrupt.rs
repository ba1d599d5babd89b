//! Ctrl-C: the first one stops the command at the next safe point, the second one ends the program.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::errors::{CliError, INTERRUPTED};

/// Whether the user interrupted the command.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// Starts to listen for Ctrl-C and for termination signals.
    pub(crate) fn listen() -> Result<Self, CliError> {
        let asked = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&asked);
        ctrlc::set_handler(move || {
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(i32::from(INTERRUPTED));
            }
        })
        .map_err(CliError::Interrupt)?;
        Ok(Self { asked })
    }

    /// Whether the user interrupted the command.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
}
