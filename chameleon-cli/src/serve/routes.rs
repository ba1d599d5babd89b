//! Which address is answered by whom, and what stands before every answer.

use std::sync::Arc;

use axum::{
    Router,
    http::StatusCode,
    middleware::{from_fn, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::{delete, get, post},
};

use super::{
    adapters, chat, clusters, completions, embeddings,
    error::ApiError,
    health, models,
    observe::{guard, label, observe, survive},
    openapi, page,
    state::Server,
};

/// Every route, as it is counted.
pub(crate) const ROUTES: &[&str] = &[
    "/v1/completions",
    "/v1/chat/completions",
    "/v1/embeddings",
    "/v1/models",
    "/v1/models/{id}",
    "/v1/adapters",
    "/v1/adapters/{name}",
    "/v1/clusters",
    "/v1/stats",
    "/metrics",
    "/health",
    "/ready",
    "/openapi.json",
];

/// All routes of a server.
pub(crate) fn router(server: &Arc<Server>) -> Router {
    let guarded = Router::new()
        .route("/v1/completions", post(completions::answer))
        .route("/v1/chat/completions", post(chat::answer))
        .route("/v1/embeddings", post(embeddings::answer))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{id}", get(models::show))
        .route("/v1/adapters", get(adapters::list).post(adapters::load))
        .route("/v1/adapters/{name}", delete(adapters::unload))
        .route("/v1/clusters", get(clusters::list))
        .route("/v1/stats", get(health::stats))
        .route("/metrics", get(health::metrics))
        .route_layer(from_fn_with_state(Arc::clone(server), guard));
    // Whoever watches over a server has no key, and learns nothing that is worth one.
    let open = Router::new()
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/openapi.json", get(openapi::document));
    let routes = guarded
        .merge(open)
        .merge(page::routes())
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::clone(server));
    surround(routes, server)
}

/// What happens around every answer, outermost last.
pub(super) fn surround(routes: Router, server: &Arc<Server>) -> Router {
    routes
        .layer(from_fn(survive))
        .layer(from_fn(label))
        .layer(from_fn_with_state(Arc::clone(server), observe))
}

async fn unknown() -> Response {
    let message = "there is nothing at this address; `/openapi.json` lists what there is";
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message).into_response()
}

async fn wrong_method() -> Response {
    let message = "this address is not asked by this method; see the `Allow` header";
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    )
    .into_response()
}
