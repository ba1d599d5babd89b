//! `--tui`: a full-screen view of a training, with curves, speed and remaining time.

use std::rc::Rc;
use std::time::{Duration, Instant};

use chameleon_models::StepReport;
use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize as _},
    symbols::Marker,
    text::Line,
    widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph, Widget as _},
};

use crate::{
    commands::observe::moving_average,
    errors::CliError,
    output::{Held, Output, Screen},
};

/// Interval between frames.
const FRAME: Duration = Duration::from_millis(200);

/// Largest number of points of the training's curve; beyond it, every other point is removed.
const MAX_POINTS: usize = 1000;

/// Messages shown below the curves.
const NUM_MESSAGES: usize = 4;

/// A screen that shows a training. Messages are held until it closes; the last ones are shown on it.
pub(super) struct Dashboard<'a> {
    // Dropped in this order: held messages are printed after the terminal is restored.
    screen: Screen,
    held: Held<'a>,
    curves: Curves,
    drawn: Instant,
}

impl<'a> Dashboard<'a> {
    pub(super) fn open(curves: Curves, output: &'a Output) -> Result<Self, CliError> {
        let mut dashboard = Self {
            screen: Screen::open()?,
            held: output.hold(),
            curves,
            drawn: Instant::now(),
        };
        dashboard.draw()?;
        Ok(dashboard)
    }

    fn draw(&mut self) -> Result<(), CliError> {
        self.drawn = Instant::now();
        let messages = self.held.last(NUM_MESSAGES);
        self.screen
            .draw(|area, buffer| self.curves.draw(&messages, area, buffer))
    }
}

impl Dashboard<'_> {
    /// Sets the number of steps that were done before.
    pub(super) fn start_at(&mut self, step: usize) {
        self.curves.first_step = step;
        self.curves.step = step;
    }

    pub(super) fn step(&mut self, report: &StepReport) -> Result<(), CliError> {
        self.curves.step(report);
        if self.drawn.elapsed() < FRAME {
            return Ok(());
        }
        self.draw()
    }

    pub(super) fn validated(&mut self, step: usize, loss: f64) -> Result<(), CliError> {
        self.curves.valid.push((step as f64, loss));
        self.draw()
    }
}

/// The state of a training so far.
#[derive(Debug)]
pub(super) struct Curves {
    title: String,
    num_epochs: usize,
    num_steps: usize,
    /// Steps that were done before this call.
    first_step: usize,
    start: Instant,
    step: usize,
    epoch: usize,
    num_tokens: usize,
    learning_rate: f64,
    /// A moving average.
    loss: Option<f64>,
    train: Vec<(f64, f64)>,
    /// Steps from one point of the curve to the next.
    stride: usize,
    valid: Vec<(f64, f64)>,
}

impl Curves {
    /// A training before its first step.
    pub(super) fn new(title: String, num_epochs: usize, num_steps: usize) -> Self {
        Self {
            title,
            num_epochs,
            num_steps,
            first_step: 0,
            start: Instant::now(),
            step: 0,
            epoch: 0,
            num_tokens: 0,
            learning_rate: 0.0,
            loss: None,
            train: Vec::new(),
            stride: 1,
            valid: Vec::new(),
        }
    }

    fn step(&mut self, report: &StepReport) {
        self.step = report.step;
        self.epoch = report.epoch + 1;
        self.num_tokens += report.num_tokens;
        self.learning_rate = report.learning_rate;
        let loss = moving_average(self.loss, report.loss);
        self.loss = Some(loss);
        if report.step.is_multiple_of(self.stride) {
            self.train.push((report.step as f64, loss));
        }
        if self.train.len() > MAX_POINTS {
            let mut is_kept = false;
            self.train.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
            self.stride *= 2;
        }
    }

    fn draw(&self, messages: &[Rc<str>], area: Rect, buffer: &mut Buffer) {
        let [title, curves, bar, facts, notes] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(5),
            Constraint::Length(1),
            Constraint::Length(2),
            Constraint::Length(u16::try_from(messages.len()).unwrap_or(0)),
        ])
        .areas(area);
        Line::from(format!("{}: training", self.title))
            .bold()
            .render(title, buffer);
        self.draw_curves(curves, buffer);
        let share = self.step as f64 / self.num_steps.max(1) as f64;
        Gauge::default()
            .gauge_style(Style::new().fg(Color::Cyan))
            .ratio(share.clamp(0.0, 1.0))
            .label(format!("step {} of {}", self.step, self.num_steps))
            .render(bar, buffer);
        Paragraph::new(self.facts()).render(facts, buffer);
        let lines: Vec<Line<'_>> = messages
            .iter()
            .map(|message| Line::from(&**message).fg(Color::DarkGray))
            .collect();
        Paragraph::new(lines).render(notes, buffer);
    }

    fn facts(&self) -> Vec<Line<'static>> {
        let seconds = self.start.elapsed().as_secs_f64();
        let rate = self.num_tokens as f64 / seconds.max(1e-9);
        let loss = self
            .loss
            .map_or_else(|| "-".to_owned(), |loss| format!("{loss:.4}"));
        let valid = self
            .valid
            .last()
            .map_or_else(|| "-".to_owned(), |(_, loss)| format!("{loss:.4}"));
        let best = self
            .valid
            .iter()
            .map(|&(_, loss)| loss)
            .min_by(f64::total_cmp);
        let best = best.map_or_else(String::new, |loss| format!(", best {loss:.4}"));
        let done = self.step - self.first_step.min(self.step);
        let left = match done {
            0 => "unknown".to_owned(),
            done => {
                let per_step = seconds / done as f64;
                clock(per_step * (self.num_steps.saturating_sub(self.step)) as f64)
            }
        };
        vec![
            Line::from(format!(
                "epoch {} of {}   loss {loss}   held out {valid}{best}   learning rate {:.2e}",
                self.epoch.max(1),
                self.num_epochs,
                self.learning_rate
            )),
            Line::from(format!(
                "{rate:.0} tokens/s   {} elapsed, {left} left   Ctrl-C stops after this step, --resume continues",
                clock(seconds)
            )),
        ]
    }

    fn draw_curves(&self, area: Rect, buffer: &mut Buffer) {
        let all = self.train.iter().chain(&self.valid).map(|&(_, loss)| loss);
        let low = all.clone().fold(f64::INFINITY, f64::min);
        let high = all.fold(f64::NEG_INFINITY, f64::max);
        // A single point, or an empty curve, has no height.
        let (low, high) = if low < high {
            let margin = 0.05 * (high - low);
            (low - margin, high + margin)
        } else if low.is_finite() {
            (low - 0.5, low + 0.5)
        } else {
            (0.0, 1.0)
        };
        let middle = f64::midpoint(low, high);
        let last = self.num_steps.max(1);
        let datasets = vec![
            Dataset::default()
                .name("training")
                .marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(Style::new().fg(Color::Cyan))
                .data(&self.train),
            Dataset::default()
                .name("held out")
                .marker(Marker::Dot)
                .graph_type(GraphType::Scatter)
                .style(Style::new().fg(Color::Yellow))
                .data(&self.valid),
        ];
        Chart::new(datasets)
            .block(Block::bordered().title("nats per token by step"))
            .x_axis(Axis::default().bounds([0.0, last as f64]).labels([
                "0".to_owned(),
                (last / 2).to_string(),
                last.to_string(),
            ]))
            .y_axis(
                Axis::default()
                    .bounds([low, high])
                    .labels([low, middle, high].map(|loss| format!("{loss:.3}"))),
            )
            .render(area, buffer);
    }
}

/// `1:02:03`, or `2:03` below an hour.
fn clock(seconds: f64) -> String {
    let seconds = Duration::try_from_secs_f64(seconds).map_or(0, |duration| duration.as_secs());
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        hours => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(step: usize, loss: f64) -> StepReport {
        StepReport {
            step,
            epoch: step / 100,
            loss,
            learning_rate: 1e-3,
            grad_norm: 1.0,
            num_tokens: 64,
            seconds: 0.1,
        }
    }

    fn shown(curves: &Curves, area: Rect) -> String {
        let mut buffer = Buffer::empty(area);
        curves.draw(&["epoch 1: fine".into()], area, &mut buffer);
        let rows = buffer.content().chunks(usize::from(area.width.max(1)));
        rows.map(|row| {
            row.iter()
                .map(ratatui::buffer::Cell::symbol)
                .collect::<String>()
                + "\n"
        })
        .collect()
    }

    #[test]
    fn a_training_is_drawn_with_its_curves_and_what_is_left() {
        let mut curves = Curves::new("core".to_owned(), 3, 300);
        for step in 1..=150 {
            curves.step(&report(step, 4.0 - step as f64 / 100.0));
        }
        curves.valid.push((100.0, 3.25));
        let page = shown(&curves, Rect::new(0, 0, 100, 24));
        for needed in [
            "core: training",
            "nats per token by step",
            "step 150 of 300",
            "epoch 2 of 3",
            "held out 3.2500, best 3.2500",
            "tokens/s",
            " left",
            "epoch 1: fine",
            "•",
        ] {
            assert!(page.contains(needed), "{needed}\n{page}");
        }
        assert!(
            page.chars().any(|mark| ('⠁'..='⣿').contains(&mark)),
            "{page}"
        );
    }

    #[test]
    fn nothing_known_and_tiny_terminals_are_no_panic() {
        let mut curves = Curves::new("core".to_owned(), 1, 0);
        for (width, height) in [(0, 0), (1, 1), (7, 3), (40, 9), (300, 90)] {
            shown(&curves, Rect::new(0, 0, width, height));
        }
        curves.step(&report(1, f64::NAN));
        curves.valid.push((1.0, f64::INFINITY));
        shown(&curves, Rect::new(0, 0, 80, 24));
    }

    #[test]
    fn a_long_curve_is_thinned_and_keeps_its_ends() {
        let mut curves = Curves::new("core".to_owned(), 1, 10_000);
        for step in 1..=10_000 {
            curves.step(&report(step, 3.0));
        }
        assert!(curves.train.len() <= MAX_POINTS + 1);
        assert!(curves.train[0].0 < 50.0);
        assert!(curves.train.last().unwrap().0 > 9_900.0);
    }

    #[test]
    fn times_are_written_as_clocks_show_them() {
        assert_eq!([0.4, 62.0, 3723.0].map(clock), ["0:00", "1:02", "1:02:03"]);
    }
}
