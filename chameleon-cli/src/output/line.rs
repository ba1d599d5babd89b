//! Whether the terminal's cursor stands behind text whose line has not ended.

use std::sync::atomic::{AtomicBool, Ordering};

/// A line on the terminal that may be open, shared by standard output and standard error.
#[derive(Debug)]
pub(super) struct OpenLine {
    is_open: AtomicBool,
}

impl OpenLine {
    /// The cursor at the start of a line.
    pub(super) const fn new() -> Self {
        Self {
            is_open: AtomicBool::new(false),
        }
    }

    /// Notes that `text` was written to the terminal.
    pub(super) fn after(&self, text: &str) {
        if let Some(last) = text.chars().next_back() {
            self.is_open.store(last != '\n', Ordering::Relaxed);
        }
    }

    /// What has to be written before a message, so that it begins a line of its own.
    pub(super) fn close(&self) -> &'static str {
        if self.is_open.swap(false, Ordering::Relaxed) {
            "\n"
        } else {
            ""
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_after_part_of_an_answer_begins_a_line() {
        let line = OpenLine::new();
        assert_eq!(line.close(), "");
        line.after("The fox");
        line.after("");
        assert_eq!(line.close(), "\n");
        assert_eq!(line.close(), "", "the line was closed");
        line.after(" ran");
        line.after(" away.\n");
        assert_eq!(line.close(), "");
    }
}
