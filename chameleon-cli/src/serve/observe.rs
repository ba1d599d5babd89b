//! Around every request: who may ask, what is counted and logged, and what happens when an answer panics.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;

use super::{error::ApiError, page, routes, state::Server};

/// Refuses those who may not ask.
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

/// Counts and logs every response; never what was asked.
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
    let route = route.as_ref().map_or("none", |route| known(route.as_str()));
    server.metrics.record_response(route, status);
    response
}

/// Ends only the request that panicked. The panic hook has reported it already.
pub(crate) async fn survive(request: Request<Body>, next: Next) -> Response {
    AssertUnwindSafe(next.run(request))
        .catch_unwind()
        .await
        .unwrap_or_else(|_| ApiError::internal().into_response())
}

/// Answers are private and of this moment, and are what their type says.
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

/// Routes are few and known, so that their names live as long as the program.
fn known(route: &str) -> &'static str {
    let mut all = routes::ROUTES.iter().chain(page::ROUTES).copied();
    all.find(|known| *known == route).unwrap_or("none")
}
