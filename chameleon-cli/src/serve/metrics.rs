//! What the server has done, for Prometheus and for the page.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use serde::Serialize;

use super::state::Server;

/// Counts and times of one server.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) queue_time: Histogram,
    pub(crate) time_to_first_token: Histogram,
    pub(crate) time_between_tokens: Histogram,
    pub(crate) answer_time: Histogram,
    pub(crate) token_rate: Rate,
    responses: Mutex<BTreeMap<(&'static str, u16), u64>>,
}

/// Upper bounds of the buckets, in seconds: 1 ms to two minutes.
const BOUNDS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
];

/// Times in buckets.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// One for each bound, and one for what is beyond all.
    counts: [AtomicU64; BOUNDS.len() + 1],
    total_micros: AtomicU64,
}

/// Events in the last seconds.
#[derive(Debug)]
pub(crate) struct Rate {
    started: Instant,
    seconds: Mutex<[Second; RATE_SECONDS]>,
}

/// Seconds that the rate of tokens looks back.
const RATE_SECONDS: usize = 5;

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    number: u64,
    count: u64,
}

/// The same numbers as JSON, for those who poll.
#[derive(Debug, Serialize)]
pub(crate) struct StatsBody {
    pub(crate) object: &'static str,
    /// Over the last four whole seconds.
    pub(crate) tokens_per_second: f64,
    pub(crate) requests_running: usize,
    pub(crate) requests_waiting: usize,
    pub(crate) requests_finished: u64,
    pub(crate) requests_cancelled: u64,
    pub(crate) requests_failed: u64,
    pub(crate) requests_refused: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) generated_tokens: u64,
    /// Tokens whose keys and values are kept.
    pub(crate) cached_tokens: usize,
    /// Tokens set aside for running requests.
    pub(crate) reserved_tokens: usize,
    /// Tokens that fit.
    pub(crate) max_cached_tokens: usize,
    /// Rows of a decoding step, on average since the start.
    pub(crate) mean_batch: f64,
    pub(crate) factor_hits: u64,
    pub(crate) factor_misses: u64,
    pub(crate) factors_cached: usize,
    pub(crate) uptime_seconds: f64,
}

impl Histogram {
    pub(crate) fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = BOUNDS.partition_point(|&bound| bound < seconds);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.total_micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn write(&self, page: &mut Page, name: &str, help: &str) {
        page.head(name, "histogram", help);
        let mut below = 0;
        for (bound, count) in BOUNDS.iter().zip(&self.counts) {
            below += count.load(Ordering::Relaxed);
            page.line(&format!("{name}_bucket{{le=\"{bound}\"}}"), below);
        }
        below += self.counts[BOUNDS.len()].load(Ordering::Relaxed);
        page.line(&format!("{name}_bucket{{le=\"+Inf\"}}"), below);
        let seconds = self.total_micros.load(Ordering::Relaxed) as f64 / 1e6;
        page.line(&format!("{name}_sum"), seconds);
        page.line(&format!("{name}_count"), below);
    }
}

impl Default for Rate {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            seconds: Mutex::default(),
        }
    }
}

impl Rate {
    pub(crate) fn record(&self, count: u64) {
        self.record_at(self.started.elapsed(), count);
    }

    /// Events per second over the last whole seconds.
    pub(crate) fn per_second(&self) -> f64 {
        self.per_second_at(self.started.elapsed())
    }

    fn record_at(&self, time: Duration, count: u64) {
        let number = time.as_secs();
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        let second = &mut seconds[slot(number)];
        if second.number != number {
            *second = Second { number, count: 0 };
        }
        second.count += count;
    }

    fn per_second_at(&self, time: Duration) -> f64 {
        let now = time.as_secs();
        let seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        let looked_at = (RATE_SECONDS as u64 - 1).min(now);
        let sum: u64 = seconds
            .iter()
            .filter(|second| second.number < now && second.number + looked_at >= now)
            .map(|second| second.count)
            .sum();
        sum as f64 / looked_at.max(1) as f64
    }
}

fn slot(number: u64) -> usize {
    usize::try_from(number % RATE_SECONDS as u64).unwrap_or(0)
}

impl Metrics {
    pub(crate) fn record_response(&self, route: &'static str, status: StatusCode) {
        let mut responses = self
            .responses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *responses.entry((route, status.as_u16())).or_default() += 1;
    }
}

/// The numbers as JSON.
pub(crate) fn stats(server: &Server) -> StatsBody {
    let stats = server.engine.stats();
    StatsBody {
        object: "stats",
        tokens_per_second: server.metrics.token_rate.per_second(),
        requests_running: stats.num_running,
        requests_waiting: stats.num_queued,
        requests_finished: stats.num_finished,
        requests_cancelled: stats.num_cancelled,
        requests_failed: stats.num_failed,
        requests_refused: stats.num_refused,
        prompt_tokens: stats.num_prompt_tokens,
        generated_tokens: stats.num_generated_tokens,
        cached_tokens: stats.num_cached_tokens,
        reserved_tokens: stats.num_reserved_tokens,
        max_cached_tokens: server.engine.options().max_cached_tokens,
        mean_batch: stats.num_step_rows as f64 / stats.num_steps.max(1) as f64,
        factor_hits: stats.num_factor_hits,
        factor_misses: stats.num_factor_misses,
        factors_cached: stats.num_cached_factors,
        uptime_seconds: server.started.elapsed().as_secs_f64(),
    }
}

/// The numbers in Prometheus' text format.
pub(crate) fn prometheus(server: &Server) -> String {
    let mut page = Page::default();
    write_numbers(&mut page, &stats(server));
    write_times(&mut page, &server.metrics);
    write_labelled(&mut page, server);
    page.text
}

fn write_numbers(page: &mut Page, stats: &StatsBody) {
    let gauges: [(&str, f64, &str); 8] = [
        (
            "requests_running",
            stats.requests_running as f64,
            "Requests being answered.",
        ),
        (
            "requests_waiting",
            stats.requests_waiting as f64,
            "Requests in the queue.",
        ),
        (
            "tokens_per_second",
            stats.tokens_per_second,
            "Tokens written in the last seconds.",
        ),
        (
            "kv_cached_tokens",
            stats.cached_tokens as f64,
            "Tokens whose keys and values are kept.",
        ),
        (
            "kv_reserved_tokens",
            stats.reserved_tokens as f64,
            "Tokens set aside for running requests.",
        ),
        (
            "kv_capacity_tokens",
            stats.max_cached_tokens as f64,
            "Tokens whose keys and values fit.",
        ),
        (
            "factors_cached",
            stats.factors_cached as f64,
            "Groups whose factors are kept.",
        ),
        (
            "uptime_seconds",
            stats.uptime_seconds,
            "Seconds since the start.",
        ),
    ];
    for (name, value, help) in gauges {
        page.single(name, "gauge", help, value);
    }
    let counters: [(&str, u64, &str); 8] = [
        (
            "requests_finished_total",
            stats.requests_finished,
            "Requests answered to the end.",
        ),
        (
            "requests_cancelled_total",
            stats.requests_cancelled,
            "Requests whose client went away.",
        ),
        (
            "requests_failed_total",
            stats.requests_failed,
            "Requests that broke.",
        ),
        (
            "requests_refused_total",
            stats.requests_refused,
            "Requests not taken on.",
        ),
        (
            "prompt_tokens_total",
            stats.prompt_tokens,
            "Prompt tokens read.",
        ),
        (
            "generated_tokens_total",
            stats.generated_tokens,
            "Tokens written.",
        ),
        (
            "factor_hits_total",
            stats.factor_hits,
            "Requests whose factors were kept.",
        ),
        (
            "factor_misses_total",
            stats.factor_misses,
            "Requests whose factors were generated.",
        ),
    ];
    for (name, value, help) in counters {
        page.single(name, "counter", help, value);
    }
}

fn write_times(page: &mut Page, metrics: &Metrics) {
    let histograms: [(&Histogram, &str, &str); 4] = [
        (
            &metrics.queue_time,
            "chameleon_queue_time_seconds",
            "Time requests waited.",
        ),
        (
            &metrics.time_to_first_token,
            "chameleon_time_to_first_token_seconds",
            "From the arrival of a request to its first token.",
        ),
        (
            &metrics.time_between_tokens,
            "chameleon_time_between_tokens_seconds",
            "From one token of an answer to the next.",
        ),
        (
            &metrics.answer_time,
            "chameleon_answer_time_seconds",
            "From the arrival of a request to its last token.",
        ),
    ];
    for (histogram, name, help) in histograms {
        histogram.write(page, name, help);
    }
}

/// What is counted by adapter, and by route and status.
fn write_labelled(page: &mut Page, server: &Server) {
    page.head(
        "chameleon_adapter_requests_total",
        "counter",
        "Requests answered with an adapter.",
    );
    for adapter in server.engine.adapters() {
        // Names of adapters hold nothing that would have to be escaped.
        let name = format!(
            "chameleon_adapter_requests_total{{adapter=\"{}\"}}",
            adapter.name
        );
        page.line(&name, adapter.num_requests);
    }
    page.head(
        "chameleon_http_responses_total",
        "counter",
        "Responses by route and status.",
    );
    let responses = server
        .metrics
        .responses
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    for ((route, status), count) in responses.iter() {
        let name =
            format!("chameleon_http_responses_total{{route=\"{route}\",status=\"{status}\"}}");
        page.line(&name, count);
    }
}

/// Prometheus' text under construction.
#[derive(Debug, Default)]
struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        self.push(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        self.push(format_args!("{name} {value}\n"));
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        let name = format!("chameleon_{name}");
        self.head(&name, kind, help);
        self.line(&name, value);
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        self.text
            .write_fmt(text)
            .expect("a string takes everything");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_end_with_everything() {
        let histogram = Histogram::default();
        for millis in [1, 2, 700, 500_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut page = Page::default();
        histogram.write(&mut page, "t", "Times.");
        for line in [
            "t_bucket{le=\"0.001\"} 1\n",
            "t_bucket{le=\"0.0025\"} 2\n",
            "t_bucket{le=\"1\"} 3\n",
            "t_bucket{le=\"120\"} 3\n",
            "t_bucket{le=\"+Inf\"} 4\n",
            "t_sum 500.703\n",
            "t_count 4\n",
        ] {
            assert!(page.text.contains(line), "{line}{}", page.text);
        }
    }

    #[test]
    fn old_seconds_are_forgotten() {
        let rate = Rate::default();
        let at = Duration::from_secs;
        let near = |found: f64, expected: f64| (found - expected).abs() < 1e-9;
        rate.record_at(at(10), 40);
        assert!(near(rate.per_second_at(at(10)), 0.0));
        assert!(near(rate.per_second_at(at(11)), 10.0));
        assert!(near(rate.per_second_at(at(14)), 10.0));
        assert!(near(rate.per_second_at(at(15)), 0.0));
        rate.record_at(at(15), 8);
        assert!(near(rate.per_second_at(at(16)), 2.0));
    }
}
