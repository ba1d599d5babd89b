//! The only place that prints.
//!
//! Results go to standard output, as text or as JSON; progress and messages go to standard error. Colour is used on
//! terminals only, and never when `NO_COLOR` is set.

mod line;
mod table;

use std::{
    borrow::Cow,
    fmt::Display,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use clap_verbosity_flag::{Verbosity, WarnLevel};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

use crate::errors::CliError;

use line::OpenLine;

pub(crate) use table::{Column, Table};

/// The line that standard output has left open on the terminal.
static OPEN_LINE: OpenLine = OpenLine::new();

/// The format of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

/// A result that can be shown as text and as JSON.
pub(crate) trait Results: Serialize {
    /// Adds the result to a page of text.
    fn write_text(&self, page: &mut Page);
}

/// Where a command writes its results and messages.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    level: LevelFilter,
    bars: MultiProgress,
}

impl Output {
    /// The streams of this process.
    pub(crate) fn new(format: Format, verbosity: Verbosity<WarnLevel>) -> Self {
        let level = verbosity.tracing_level_filter();
        let target = bar_target(level);
        let output = Self {
            format,
            level,
            bars: MultiProgress::with_draw_target(target),
        };
        output.show_traces();
        output
    }

    /// The format of results.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Whether details are shown (`-v`).
    pub(crate) fn is_verbose(&self) -> bool {
        self.level > LevelFilter::WARN
    }

    /// Whether progress bars are drawn.
    pub(crate) fn draws_bars(&self) -> bool {
        !self.bars.is_hidden()
    }

    /// Prints the results of a command.
    pub(crate) fn results(&self, results: &impl Results) -> Result<(), CliError> {
        match self.format {
            Format::Json => self.json(results),
            Format::Text => {
                let mut page = Page::new(Style::of(&io::stdout()));
                results.write_text(&mut page);
                self.text(&page.text)
            }
        }
    }

    /// Prints one JSON document, on one line.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), CliError> {
        let mut line =
            serde_json::to_string(value).expect("results have text keys and finite depth");
        line.push('\n');
        self.text(&line)
    }

    /// Prints text as it is.
    pub(crate) fn text(&self, text: &str) -> Result<(), CliError> {
        self.bars
            .suspend(|| {
                let mut stdout = io::stdout().lock();
                stdout.write_all(text.as_bytes())?;
                stdout.flush()?;
                if stdout.is_terminal() && io::stderr().is_terminal() {
                    OPEN_LINE.after(text);
                }
                Ok(())
            })
            .map_err(CliError::Output)
    }

    /// Prints a message, unless `-q` is given.
    pub(crate) fn note(&self, message: impl Display) {
        if self.level >= LevelFilter::WARN {
            self.message(&message);
        }
    }

    /// Prints a message if `-v` is given.
    pub(crate) fn detail(&self, message: impl Display) {
        if self.is_verbose() {
            self.message(&message);
        }
    }

    /// Prints a warning, unless `-q` is given.
    pub(crate) fn warn(&self, message: impl Display) {
        let label = Style::of(&io::stderr()).yellow("warning:");
        self.note(format_args!("{label} {message}"));
    }

    /// A bar for work of a known length.
    pub(crate) fn progress(&self, label: impl Into<Cow<'static, str>>, len: u64) -> ProgressBar {
        let style =
            ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {msg} {eta} left")
                .expect("the template is well formed")
                .progress_chars("=> ");
        self.bars
            .add(ProgressBar::new(len))
            .with_style(style)
            .with_prefix(label)
    }

    /// Lines of text above the bars that are drawn anew with each message.
    pub(crate) fn lines(&self) -> ProgressBar {
        let style = ProgressStyle::with_template("{msg}").expect("the template is well formed");
        self.bars.add(ProgressBar::new_spinner()).with_style(style)
    }

    /// A bar for bytes whose number is known approximately.
    pub(crate) fn bytes_progress(
        &self,
        label: impl Into<Cow<'static, str>>,
        len: u64,
    ) -> ProgressBar {
        let style = ProgressStyle::with_template(
            "{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta} left",
        )
        .expect("the template is well formed")
        .progress_chars("=> ");
        self.bars
            .add(ProgressBar::new(len))
            .with_style(style)
            .with_prefix(label)
    }

    /// A spinner with the number of bytes so far.
    pub(crate) fn bytes_spinner(&self, label: impl Into<Cow<'static, str>>) -> ProgressBar {
        let style = ProgressStyle::with_template("{spinner} {prefix} {bytes} {bytes_per_sec}")
            .expect("the template is well formed");
        self.bars
            .add(ProgressBar::new_spinner())
            .with_style(style)
            .with_prefix(label)
    }

    /// A spinner for work of an unknown length.
    pub(crate) fn spinner(&self, label: &'static str) -> ProgressBar {
        let style = ProgressStyle::with_template("{spinner} {prefix} {msg}")
            .expect("the template is well formed");
        let spinner = self
            .bars
            .add(ProgressBar::new_spinner())
            .with_style(style)
            .with_prefix(label);
        spinner.enable_steady_tick(Duration::from_millis(120));
        spinner
    }

    fn message(&self, message: &impl Display) {
        self.bars.suspend(|| to_stderr(&format!("{message}\n")));
    }

    /// Shows traces of the libraries, by `-v` or, by module, by the variable `CHAMELEON_LOG`.
    fn show_traces(&self) {
        let ours = [
            "chameleon",
            "chameleon_core",
            "chameleon_cluster",
            "chameleon_hypernet",
            "chameleon_models",
        ];
        let filter = EnvFilter::try_from_env("CHAMELEON_LOG").unwrap_or_else(|_| {
            let directives = ours.map(|name| format!("{name}={}", self.level));
            EnvFilter::new(format!("error,{}", directives.join(",")))
        });
        let bars = self.bars.clone();
        // A second subscriber is refused; the first one does the same.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(Style::of(&io::stderr()) == Style::Colored)
            .without_time()
            .with_target(false)
            .with_writer(move || TraceWriter { bars: bars.clone() })
            .try_init();
    }
}

fn bar_target(level: LevelFilter) -> ProgressDrawTarget {
    if level < LevelFilter::WARN {
        ProgressDrawTarget::hidden()
    } else {
        // Indicatif hides it unless standard error is a terminal.
        ProgressDrawTarget::stderr()
    }
}

/// Writes traces without breaking the progress bars.
struct TraceWriter {
    bars: MultiProgress,
}

impl Write for TraceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bars.suspend(|| {
            let mut stderr = io::stderr().lock();
            stderr.write_all(OPEN_LINE.close().as_bytes())?;
            stderr.write(bytes)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Text results under construction.
#[derive(Debug)]
pub(crate) struct Page {
    text: String,
    style: Style,
}

impl Page {
    fn new(style: Style) -> Self {
        Self {
            text: String::new(),
            style,
        }
    }

    /// An empty line, except at the top, and a title.
    pub(crate) fn heading(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        let title = self.style.bold(title);
        self.line(title);
    }

    /// One line.
    pub(crate) fn line(&mut self, line: impl Display) {
        self.text.push_str(&line.to_string());
        self.text.push('\n');
    }

    /// A table with aligned columns.
    pub(crate) fn table(&mut self, table: &Table) {
        self.text.push_str(&table.render(self.style));
    }
}

/// Whether text is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Colored,
}

impl Style {
    fn of(stream: &impl IsTerminal) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if stream.is_terminal() && !refused {
            Self::Colored
        } else {
            Self::Plain
        }
    }

    fn bold(self, text: &str) -> String {
        self.wrap("1", text)
    }

    fn red(self, text: &str) -> String {
        self.wrap("1;31", text)
    }

    fn yellow(self, text: &str) -> String {
        self.wrap("33", text)
    }

    fn cyan(self, text: &str) -> String {
        self.wrap("36", text)
    }

    fn wrap(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Colored => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }
}

/// Prints a message of clap: help and version to standard output, errors to standard error.
pub(crate) fn flag_message(message: &clap::Error) {
    // There is no other place to report that a message could not be written.
    let _ = message.print();
}

/// Prints the error that ends the program.
pub(crate) fn error_message(sentence: &str, help: Option<&str>) {
    let style = Style::of(&io::stderr());
    let help = help.map_or_else(String::new, |help| {
        format!("  {} {help}\n", style.cyan("help:"))
    });
    to_stderr(&format!("{} {sentence}\n{help}", style.red("error:")));
}

fn to_stderr(text: &str) {
    let text = format!("{}{text}", OPEN_LINE.close());
    // There is no other place to report that a message could not be written.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
