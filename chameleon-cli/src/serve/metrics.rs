//! The server's metrics, for Prometheus and for the page.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use chameleon_models::engine::AdapterInfo;
use prometheus_client::{
    encoding::prometheus_text,
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Registry,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::ObjectKind;

/// Counters and histograms of one server.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) queue_time: Histogram,
    pub(crate) time_to_first_token: Histogram,
    pub(crate) time_between_tokens: Histogram,
    pub(crate) answer_time: Histogram,
    pub(crate) token_rate: Rate,
    responses: Family<[Label; 2], Counter>,
}

type Label = (&'static str, String);

/// Upper bounds of the buckets, in seconds: 1 ms to two minutes.
const BOUNDS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0,
];

impl Default for Metrics {
    fn default() -> Self {
        Self {
            queue_time: Histogram::new(BOUNDS),
            time_to_first_token: Histogram::new(BOUNDS),
            time_between_tokens: Histogram::new(BOUNDS),
            answer_time: Histogram::new(BOUNDS),
            token_rate: Rate::default(),
            responses: Family::default(),
        }
    }
}

impl Metrics {
    pub(crate) fn record_response(&self, route: &str, status: StatusCode) {
        let status = status.as_u16().to_string();
        let labels = [("route", route.to_owned()), ("status", status)];
        self.responses.get_or_create(&labels).inc();
    }

    /// All metrics in Prometheus' text format.
    pub(crate) fn prometheus(&self, stats: &Stats, adapters: Vec<AdapterInfo>) -> String {
        /// Registers metrics, one on each line: its name, its help and its value.
        macro_rules! register {
            ($registry:ident, $metric:path: $($name:literal $help:literal $value:expr;)+) => {
                $($registry.register($name, $help, $metric($value));)+
            };
        }
        let mut registry = Registry::with_prefix("chameleon");
        register! { registry, ConstGauge::new:
            "requests_running" "Requests being answered" stats.requests_running;
            "requests_waiting" "Requests in the queue" stats.requests_waiting;
            "tokens_per_second" "Tokens generated per second, over the last seconds" stats.tokens_per_second;
            "kv_cached_tokens" "Tokens whose keys and values are kept" stats.cached_tokens;
            "kv_reserved_tokens" "Tokens reserved for running requests" stats.reserved_tokens;
            "kv_capacity_tokens" "Tokens whose keys and values fit" stats.max_cached_tokens;
            "factors_cached" "Groups whose factors are kept" stats.factors_cached;
            "uptime_seconds" "Seconds since the start" stats.uptime_seconds;
        }
        register! { registry, ConstCounter::new:
            "requests_finished" "Requests answered completely" stats.requests_finished;
            "requests_cancelled" "Requests whose client disconnected" stats.requests_cancelled;
            "requests_failed" "Requests that failed" stats.requests_failed;
            "requests_refused" "Requests that were refused" stats.requests_refused;
            "prompt_tokens" "Prompt tokens processed" stats.prompt_tokens;
            "generated_tokens" "Tokens generated" stats.generated_tokens;
            "factor_hits" "Requests whose factors were kept" stats.factor_hits;
            "factor_misses" "Requests whose factors were generated" stats.factor_misses;
        }
        register! { registry, Histogram::clone:
            "queue_time_seconds" "Time requests waited" &self.queue_time;
            "time_to_first_token_seconds" "From the arrival of a request to its first token" &self.time_to_first_token;
            "time_between_tokens_seconds" "From one token of an answer to the next" &self.time_between_tokens;
            "answer_time_seconds" "From the arrival of a request to its last token" &self.answer_time;
        }
        let by_adapter = Family::<[Label; 1], Counter>::default();
        let groups = Family::<[Label; 1], Gauge>::default();
        for info in adapters {
            let num_groups = i64::try_from(info.num_groups).unwrap_or(i64::MAX);
            let labels = [("adapter", info.name.clone())];
            groups.get_or_create_owned(&labels).set(num_groups);
            let requests = by_adapter.get_or_create_owned(&[("adapter", info.name)]);
            requests.inc_by(info.num_requests);
        }
        let help = "Requests that used an adapter";
        registry.register("adapter_requests", help, by_adapter);
        let help = "Groups by key that have examples";
        registry.register("adapter_groups", help, groups);
        let help = "Responses by route and status";
        registry.register("http_responses", help, self.responses.clone());
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry).expect("a string accepts all text");
        text
    }
}

/// The state of the server, and its counters since the start.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Stats {
    pub(crate) object: ObjectKind,
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
    /// Tokens reserved for running requests.
    pub(crate) reserved_tokens: usize,
    /// Capacity of the cache in tokens.
    pub(crate) max_cached_tokens: usize,
    /// Rows of a decoding step, on average since the start.
    pub(crate) mean_batch: f64,
    pub(crate) factor_hits: u64,
    pub(crate) factor_misses: u64,
    pub(crate) factors_cached: usize,
    pub(crate) uptime_seconds: f64,
}

/// Events in the last seconds.
#[derive(Debug)]
pub(crate) struct Rate {
    started: Instant,
    seconds: Mutex<[Second; RATE_SECONDS]>,
}

/// Window of the token rate in seconds, the current one included.
const RATE_SECONDS: usize = 5;

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    number: u64,
    count: u64,
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
        let slot = usize::try_from(number % RATE_SECONDS as u64).unwrap_or(0);
        let second = &mut seconds[slot];
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

#[cfg(test)]
mod tests {
    use super::*;

    fn stats() -> Stats {
        Stats {
            object: ObjectKind::Stats,
            tokens_per_second: 0.5,
            requests_running: 1,
            requests_waiting: 2,
            requests_finished: 3,
            requests_cancelled: 4,
            requests_failed: 5,
            requests_refused: 6,
            prompt_tokens: 7,
            generated_tokens: 8,
            cached_tokens: 9,
            reserved_tokens: 10,
            max_cached_tokens: 11,
            mean_batch: 1.5,
            factor_hits: 12,
            factor_misses: 13,
            factors_cached: 14,
            uptime_seconds: 15.0,
        }
    }

    #[test]
    fn names_types_and_buckets_are_those_that_dashboards_know() {
        let metrics = Metrics::default();
        for seconds in [0.001, 0.002, 0.7, 500.0] {
            metrics.queue_time.observe(seconds);
        }
        metrics.record_response("/v1/models/{id}", StatusCode::NOT_FOUND);
        let text = metrics.prometheus(&stats(), Vec::new());
        for line in [
            "# HELP chameleon_requests_running Requests being answered.",
            "# TYPE chameleon_requests_running gauge",
            "chameleon_requests_running 1",
            "chameleon_tokens_per_second 0.5",
            "chameleon_kv_capacity_tokens 11",
            "chameleon_uptime_seconds 15.0",
            "# TYPE chameleon_requests_finished_total counter",
            "chameleon_requests_finished_total 3",
            "chameleon_factor_misses_total 13",
            "# TYPE chameleon_queue_time_seconds histogram",
            "chameleon_queue_time_seconds_bucket{le=\"0.001\"} 1",
            "chameleon_queue_time_seconds_bucket{le=\"0.0025\"} 2",
            "chameleon_queue_time_seconds_bucket{le=\"1\"} 3",
            "chameleon_queue_time_seconds_bucket{le=\"120\"} 3",
            "chameleon_queue_time_seconds_bucket{le=\"+Inf\"} 4",
            "chameleon_queue_time_seconds_sum 500.703",
            "chameleon_queue_time_seconds_count 4",
            "# TYPE chameleon_http_responses_total counter",
            "chameleon_http_responses_total{route=\"/v1/models/{id}\",status=\"404\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
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
