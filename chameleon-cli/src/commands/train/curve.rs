//! The loss curve of `--tui`: dots of braille characters, drawn as text.

use crate::commands::observe::moving_average;

/// Columns and rows of the drawing.
const COLUMNS: usize = 60;
const ROWS: usize = 10;

/// Dots in a character, across and down.
const ACROSS: usize = 2;
const DOWN: usize = 4;

/// Points kept of the training loss; beyond, every other is dropped.
const MAX_POINTS: usize = 4 * ACROSS * COLUMNS;

/// The losses of a training so far.
#[derive(Debug)]
pub(super) struct Curve {
    num_steps: usize,
    /// Exponential moving average, since batch losses are noisy.
    loss: Option<f64>,
    train: Vec<(usize, f64)>,
    /// Steps from one kept point to the next.
    stride: usize,
    valid: Vec<(usize, f64)>,
}

impl Curve {
    /// The empty curve of a training of `num_steps` steps.
    pub(super) fn new(num_steps: usize) -> Self {
        Self {
            num_steps,
            loss: None,
            train: Vec::new(),
            stride: 1,
            valid: Vec::new(),
        }
    }

    /// Adds the loss of a batch.
    pub(super) fn step(&mut self, step: usize, loss: f64) {
        if !loss.is_finite() {
            return;
        }
        let loss = moving_average(self.loss, loss);
        self.loss = Some(loss);
        if step.is_multiple_of(self.stride) {
            self.train.push((step, loss));
        }
        if self.train.len() > MAX_POINTS {
            self.stride *= 2;
            let stride = self.stride;
            self.train.retain(|(step, _)| step.is_multiple_of(stride));
        }
    }

    /// Adds the loss on the validation texts after a step.
    pub(super) fn validated(&mut self, step: usize, loss: f64) {
        if loss.is_finite() {
            self.valid.push((step, loss));
        }
    }

    /// The curve and its axes as lines of text, below `title`.
    pub(super) fn draw(&self, title: &str) -> String {
        let losses = || self.train.iter().chain(&self.valid).map(|point| point.1);
        let low = losses().fold(f64::INFINITY, f64::min);
        let high = losses().fold(f64::NEG_INFINITY, f64::max);
        if low > high {
            return title.to_owned();
        }
        let mut canvas = Canvas::default();
        let place = |&(step, loss): &(usize, f64)| {
            let across = step as f64 / self.num_steps.max(1) as f64;
            let down = (high - loss) / (high - low).max(f64::MIN_POSITIVE);
            [across.clamp(0.0, 1.0), down]
        };
        for ends in self.train.windows(2) {
            canvas.line(place(&ends[0]), place(&ends[1]));
        }
        for point in &self.valid {
            canvas.mark(place(point));
        }
        let valid = self.valid.iter().map(|point| point.1);
        let valid = match (self.valid.last(), valid.min_by(f64::total_cmp)) {
            (Some(&(_, last)), Some(best)) => {
                format!("; • validation {last:.4}, best {best:.4}")
            }
            _ => String::new(),
        };
        let mut lines = vec![title.to_owned(), format!("nats per token by step{valid}")];
        lines.extend(canvas.cells.iter().enumerate().map(|(row, cells)| {
            let label = match row {
                0 => format!("{high:.3}"),
                _ if row + 1 == ROWS => format!("{low:.3}"),
                _ => String::new(),
            };
            format!("{label:>9} │{}", String::from_iter(cells))
        }));
        lines.join("\n")
    }
}

/// Characters with dots in them.
struct Canvas {
    cells: [[char; COLUMNS]; ROWS],
}

impl Default for Canvas {
    fn default() -> Self {
        Self {
            cells: [[BLANK; COLUMNS]; ROWS],
        }
    }
}

/// The braille character without dots.
const BLANK: char = '\u{2800}';

impl Canvas {
    /// Dots between two points; both axes run from 0 to 1, from the upper left corner.
    fn line(&mut self, from: [f64; 2], to: [f64; 2]) {
        let [from, to] = [from, to].map(dot);
        let num_dots = from[0].abs_diff(to[0]).max(from[1].abs_diff(to[1])).max(1);
        for idx in 0..=num_dots {
            let between = |axis: usize| {
                (from[axis] * (num_dots - idx) + to[axis] * idx + num_dots / 2) / num_dots
            };
            let (across, down) = (between(0), between(1));
            // The bits of a braille character: two columns of three dots, then the row below them.
            let bit = match down % DOWN {
                3 => 6 + across % ACROSS,
                row => 3 * (across % ACROSS) + row,
            };
            let cell = &mut self.cells[down / DOWN][across / ACROSS];
            let code = u32::from(*cell) | 1 << bit;
            *cell = char::from_u32(code).expect("eight bits above the blank are braille");
        }
    }

    /// A mark that stands out.
    fn mark(&mut self, at: [f64; 2]) {
        let [across, down] = dot(at);
        self.cells[down / DOWN][across / ACROSS] = '•';
    }
}

/// The dot nearest to a point.
fn dot([across, down]: [f64; 2]) -> [usize; 2] {
    let nearest = |share: f64, num_dots: usize| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share is between 0 and 1"
        )]
        let idx = (share * (num_dots - 1) as f64).round() as usize;
        idx.min(num_dots - 1)
    };
    [
        nearest(across, ACROSS * COLUMNS),
        nearest(down, DOWN * ROWS),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_falling_loss_is_drawn_from_the_upper_left_to_the_lower_right() {
        let mut curve = Curve::new(300);
        for step in 1..=300 {
            curve.step(step, 4.0 - step as f64 / 100.0);
        }
        curve.validated(150, 3.25);
        curve.validated(300, 3.5);
        let text = curve.draw("training");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2 + ROWS);
        assert_eq!(lines[0], "training");
        assert_eq!(
            lines[1],
            "nats per token by step; • validation 3.5000, best 3.2500"
        );
        let cells = |row: usize| lines[2 + row].split_once('│').unwrap().1.chars();
        assert_ne!(cells(0).next(), Some(BLANK), "{text}");
        assert_eq!(cells(0).next_back(), Some(BLANK), "{text}");
        assert_ne!(cells(ROWS - 1).next_back(), Some(BLANK), "{text}");
        assert_eq!(text.matches('•').count(), 3, "{text}");
    }

    #[test]
    fn nothing_known_and_infinite_losses_are_no_panic() {
        let mut curve = Curve::new(0);
        assert_eq!(curve.draw("training"), "training");
        curve.step(1, f64::NAN);
        curve.validated(1, f64::INFINITY);
        assert_eq!(curve.draw("training"), "training");
        curve.step(9, 2.0);
        curve.step(10, 2.0);
        assert_eq!(curve.draw("training").lines().count(), 2 + ROWS);
    }

    #[test]
    fn a_long_curve_is_thinned_and_keeps_its_ends() {
        let mut curve = Curve::new(10_000);
        for step in 1..=10_000 {
            curve.step(step, 3.0);
        }
        assert!(curve.train.len() <= MAX_POINTS);
        assert!(curve.train[0].0 < 50);
        assert!(curve.train.last().unwrap().0 > 9_900);
    }
}
