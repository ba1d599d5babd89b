//! The routes of a server, and the middleware around them.

use std::sync::Arc;

use axum::{
    Extension, Router,
    http::StatusCode,
    middleware::{from_fn, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    adapters, chat, clusters, completions, embeddings,
    error::ApiError,
    feedback, groups, health, models,
    observe::{catch_panic, guard, label, observe},
    openapi, page,
    state::Server,
};

/// All routes of a server. Each is described by its handler, so the `OpenAPI` document lists all of them.
pub(crate) fn router(server: &Arc<Server>) -> Router {
    let guarded = OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(completions::answer))
        .routes(routes!(chat::answer))
        .routes(routes!(embeddings::answer))
        .routes(routes!(models::list))
        .routes(routes!(models::show))
        .routes(routes!(adapters::list, adapters::load))
        .routes(routes!(adapters::unload))
        .routes(routes!(clusters::list))
        .routes(routes!(groups::list))
        .routes(routes!(groups::examples, groups::add))
        .routes(routes!(groups::delete_example))
        .routes(routes!(groups::delete))
        .routes(routes!(feedback::give))
        .routes(routes!(health::stats))
        .routes(routes!(health::metrics))
        .route_layer(from_fn_with_state(Arc::clone(server), guard));
    // Monitoring has no key; these routes reveal nothing that needs one.
    let open = OpenApiRouter::default()
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(openapi::document));
    let (routes, document) = guarded.merge(open).split_for_parts();
    let routes = routes
        .merge(page::routes())
        .layer(Extension(Arc::new(document)))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::clone(server));
    surround(routes, server)
}

/// The middleware of all routes, outermost last.
pub(super) fn surround(routes: Router, server: &Arc<Server>) -> Router {
    routes
        .layer(from_fn(catch_panic))
        .layer(from_fn(label))
        .layer(from_fn_with_state(Arc::clone(server), observe))
}

async fn unknown() -> Response {
    let message = "there is no route at this path; `/openapi.json` lists all routes";
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message).into_response()
}

async fn wrong_method() -> Response {
    let message = "this route does not support this method; see the `Allow` header";
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    )
    .into_response()
}
