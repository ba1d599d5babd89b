//! Middleware: access, metrics, the log, and panics of handlers.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;

use super::{error::ApiError, state::Server};

/// Rejects clients without access.
pub(crate) async fn guard(
    State(server): State<Arc<Server>>,
    request: Request<Body>,
    next: Next,
) -> Response {
    match server.access.check(request.headers(), request.uri()) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

/// Counts and logs every response; never the content of a request.
pub(crate) async fn observe(
    State(server): State<Arc<Server>>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let status = response.status();
    tracing::info!(
        "{method} {} {} in {} ms",
        path.escape_debug(),
        status.as_u16(),
        started.elapsed().as_millis()
    );
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    server.metrics.record_response(route, status);
    response
}

/// Turns a panic into a response with status 500. The panic hook has reported it already.
pub(crate) async fn catch_panic(request: Request<Body>, next: Next) -> Response {
    AssertUnwindSafe(next.run(request))
        .catch_unwind()
        .await
        .unwrap_or_else(|_| ApiError::internal().into_response())
}

/// Responses are private and may change: they are not cached, and browsers do not guess their type.
pub(crate) async fn label(request: Request<Body>, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let defaults = [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ];
    for (name, value) in defaults {
        headers
            .entry(HeaderName::from_static(name))
            .or_insert(HeaderValue::from_static(value));
    }
    response
}
