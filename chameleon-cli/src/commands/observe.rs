//! Progress and messages of the libraries, shown on standard error.

use std::time::Instant;

use chameleon_models::training::{Observer, Progress, StepReport, TrainingError, Work, WorkUnit};
use indicatif::ProgressBar;

use crate::{commands::Context, errors::CliError};

impl Observer for Context {
    fn begin(&self, work: Work<'_>) -> Box<dyn Progress + '_> {
        let name = work.name.to_owned();
        let bar = match (work.unit, work.total) {
            (WorkUnit::Bytes, Some(total)) => self.output.bytes_progress(name, total),
            (WorkUnit::Bytes, None) => self.output.bytes_spinner(name),
            (_, total) => self.output.progress(name, total.unwrap_or(0)),
        };
        Box::new(Bar {
            drawn: bar,
            start: Instant::now(),
            num_tokens: 0,
            loss: None,
        })
    }

    fn note(&self, message: &str) {
        self.output.note(message);
    }

    fn detail(&self, message: &str) {
        self.output.detail(message);
    }

    fn is_interrupted(&self) -> bool {
        self.interrupt.is_asked()
    }
}

/// A progress bar; that of a training shows its loss and tokens per second.
struct Bar {
    drawn: ProgressBar,
    start: Instant,
    num_tokens: usize,
    loss: Option<f64>,
}

impl Progress for Bar {
    fn set_position(&mut self, num_done: u64) {
        if self.drawn.position() == 0 && num_done > 0 && self.start.elapsed().as_secs() == 0 {
            // For resumed work, so that the estimate covers the remaining part only.
            self.drawn.set_position(num_done);
            self.drawn.reset_eta();
        }
        self.drawn.set_position(num_done);
    }

    fn scored(&mut self, mean_nll: f64) {
        self.drawn
            .set_message(format!("perplexity {:.3},", mean_nll.exp()));
    }

    fn step(&mut self, report: &StepReport) {
        self.num_tokens += report.num_tokens;
        let loss = moving_average(self.loss, report.loss);
        self.loss = Some(loss);
        let rate = self.num_tokens as f64 / self.start.elapsed().as_secs_f64();
        self.drawn
            .set_message(format!("loss {loss:.4}, {rate:.0} tokens/s,"));
        self.drawn.set_position(report.step as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.drawn.finish_and_clear();
    }
}

/// Exponential moving average, since batch losses are noisy.
pub(crate) fn moving_average(average: Option<f64>, value: f64) -> f64 {
    average.map_or(value, |average| 0.95 * average + 0.05 * value)
}

/// `None` if the user interrupted the work; everything so far is then saved.
pub(crate) fn unless_interrupted<T>(
    result: Result<T, impl Into<CliError>>,
) -> Result<Option<T>, CliError> {
    match result.map_err(Into::into) {
        Ok(value) => Ok(Some(value)),
        Err(CliError::Training(TrainingError::Interrupted)) => Ok(None),
        Err(error) => Err(error),
    }
}
