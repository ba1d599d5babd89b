//! A full-screen canvas on the terminal.
//!
//! Only what changed is written. The terminal is restored when the screen is dropped, when the process exits early, and
//! before a panic message is printed.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use console::Term;
use ratatui::{
    buffer::{Buffer, Cell},
    layout::Rect,
    style::{Color, Modifier},
};

use super::Style;
use crate::errors::CliError;

static IS_OPEN: AtomicBool = AtomicBool::new(false);

const OPEN: &str = "\x1b[?1049h\x1b[?25l";
const CLOSE: &str = "\x1b[0m\x1b[?25h\x1b[?1049l";
const CLEAR: &str = "\x1b[0m\x1b[2J";

/// A canvas as large as the terminal.
#[derive(Debug)]
pub(crate) struct Screen {
    shown: Buffer,
    style: Style,
}

impl Screen {
    /// Rejects standard output that is not a terminal.
    pub(crate) fn check() -> Result<(), CliError> {
        if io::stdout().is_terminal() {
            Ok(())
        } else {
            Err(CliError::NoTerminal)
        }
    }

    /// Switches the terminal to the canvas.
    pub(crate) fn open() -> Result<Self, CliError> {
        Self::check()?;
        IS_OPEN.store(true, Ordering::SeqCst);
        let screen = Self {
            shown: Buffer::empty(Rect::ZERO),
            style: Style::of(&io::stdout()),
        };
        write(OPEN).map_err(CliError::Output)?;
        Ok(screen)
    }

    /// Shows what `draw` draws.
    pub(crate) fn draw(&mut self, draw: impl FnOnce(Rect, &mut Buffer)) -> Result<(), CliError> {
        let (rows, columns) = Term::stdout().size();
        let area = Rect::new(0, 0, columns, rows);
        let mut next = Buffer::empty(area);
        draw(area, &mut next);
        let mut codes = String::new();
        if self.shown.area != area {
            codes.push_str(CLEAR);
            self.shown = Buffer::empty(area);
        }
        for (column, row, cell) in self.shown.diff(&next) {
            write!(codes, "\x1b[{};{}H", row + 1, column + 1).expect("a string takes any text");
            if self.style == Style::Colored {
                codes.push_str(&sgr(cell));
            }
            codes.push_str(cell.symbol());
        }
        self.shown = next;
        write(&codes).map_err(CliError::Output)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// Restores the terminal, if it was switched.
pub(crate) fn leave() {
    if IS_OPEN.swap(false, Ordering::SeqCst) {
        // A write error means that the terminal is closed.
        let _ = write(CLOSE);
    }
}

fn write(codes: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(codes.as_bytes())?;
    stdout.flush()
}

/// The colours that our drawings use; all others are the terminal's own.
fn sgr(cell: &Cell) -> String {
    let color = match cell.fg {
        Color::Green => ";32",
        Color::Yellow => ";33",
        Color::Blue => ";34",
        Color::Cyan => ";36",
        Color::DarkGray => ";90",
        _ => "",
    };
    let bold = if cell.modifier.contains(Modifier::BOLD) {
        ";1"
    } else {
        ""
    };
    let reversed = if cell.modifier.contains(Modifier::REVERSED) {
        ";7"
    } else {
        ""
    };
    format!("\x1b[0{color}{bold}{reversed}m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_written_in_the_terminals_own_colours() {
        let mut cell = Cell::new("x");
        assert_eq!(sgr(&cell), "\x1b[0m");
        cell.set_fg(Color::Green);
        cell.modifier = Modifier::BOLD;
        assert_eq!(sgr(&cell), "\x1b[0;32;1m");
    }
}
