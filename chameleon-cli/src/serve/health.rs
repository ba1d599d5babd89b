//! Whether the server lives, whether it takes requests, and its numbers.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::json;

use super::{
    error::{ApiError, json},
    metrics,
    state::Server,
};

/// `GET /health`
pub(crate) async fn health() -> Response {
    json(StatusCode::OK, &json!({"status": "ok"}))
}

/// `GET /ready`
pub(crate) async fn ready(State(server): State<Arc<Server>>) -> Response {
    if server.is_draining() {
        ApiError::draining().into_response()
    } else {
        json(StatusCode::OK, &json!({"status": "ready"}))
    }
}

/// `GET /metrics`
pub(crate) async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let mut response = metrics::prometheus(&server).into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}

/// `GET /v1/stats`
pub(crate) async fn stats(State(server): State<Arc<Server>>) -> Response {
    json(StatusCode::OK, &metrics::stats(&server))
}
