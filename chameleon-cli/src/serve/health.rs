//! Whether the server runs, whether it accepts requests, and its metrics.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    error::{ApiError, DrainErrors, GuardedErrors, OpenErrors},
    metrics::Stats,
    state::Server,
    wire::{Json, ObjectKind},
};

/// Whether the server runs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Status {
    status: StatusWord,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum StatusWord {
    Ok,
    Ready,
}

/// Whether the server runs
#[utoipa::path(get, path = "/health", operation_id = "health", security(()),
    responses((status = 200, description = "It does", body = Status), OpenErrors))]
pub(crate) async fn health() -> Json<Status> {
    let status = StatusWord::Ok;
    Json(Status { status })
}

/// Whether requests are accepted
#[utoipa::path(get, path = "/ready", operation_id = "ready", security(()),
    responses((status = 200, description = "They are", body = Status), OpenErrors, DrainErrors))]
pub(crate) async fn ready(State(server): State<Arc<Server>>) -> Result<Json<Status>, ApiError> {
    if server.is_draining() {
        return Err(ApiError::draining());
    }
    let status = StatusWord::Ready;
    Ok(Json(Status { status }))
}

/// The metrics for Prometheus
#[utoipa::path(get, path = "/metrics", operation_id = "metrics",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain"), GuardedErrors))]
pub(crate) async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let adapters = server.engine.adapters();
    let text = server.metrics.prometheus(&current(&server), adapters);
    let mut response = text.into_response();
    let kind = HeaderValue::from_static(CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The metrics as JSON
#[utoipa::path(get, path = "/v1/stats", operation_id = "stats",
    responses((status = 200, description = "The metrics", body = Stats), GuardedErrors))]
pub(crate) async fn stats(State(server): State<Arc<Server>>) -> Json<Stats> {
    Json(current(&server))
}

fn current(server: &Server) -> Stats {
    let stats = server.engine.stats();
    Stats {
        object: ObjectKind::Stats,
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
