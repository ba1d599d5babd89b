//! `GET /v1/models`: the model as it is, and with each of its adapters.

use std::sync::Arc;

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
    response::Response,
};
use chameleon_models::engine::AdapterInfo;
use serde_json::{Value, json};

use super::{
    error::{ApiError, json as respond_json},
    state::{ModelChoice, Server},
};

/// `GET /v1/models`
pub(crate) async fn list(State(server): State<Arc<Server>>) -> Response {
    let mut models = vec![base(&server)];
    models.extend(
        server
            .engine
            .adapters()
            .iter()
            .map(|info| adapted(&server, info)),
    );
    respond_json(StatusCode::OK, &json!({"object": "list", "data": models}))
}

/// `GET /v1/models/{id}`
pub(crate) async fn show(
    State(server): State<Arc<Server>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(id) = id.map_err(|_| unreadable())?;
    let ModelChoice { adapter, .. } = server.choose_model(&id)?;
    let infos = server.engine.adapters();
    let info = infos
        .iter()
        .find(|info| Some(&info.name) == adapter.as_ref());
    let model = info.map_or_else(|| base(&server), |info| adapted(&server, info));
    Ok(respond_json(StatusCode::OK, &model))
}

/// Names in addresses are UTF-8.
pub(crate) fn unreadable() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "model_not_found",
        "the name in the address is not UTF-8",
    )
}

fn base(server: &Server) -> Value {
    let identity = &server.engine.model().identity;
    json!({
        "id": server.name,
        "object": "model",
        "created": server.created,
        "owned_by": "chameleon",
        "chameleon": {
            "adapter": null,
            "architecture": identity.architecture,
            "fingerprint": identity.fingerprint,
            "max_prompt_tokens": server.max_prompt_tokens(),
            "max_new_tokens": server.limits.max_new_tokens,
        },
    })
}

fn adapted(server: &Server, info: &AdapterInfo) -> Value {
    let records = server.adapters();
    let created = records
        .get(&info.name)
        .map_or(server.created, |record| record.created);
    json!({
        "id": format!("{}:{}", server.name, info.name),
        "object": "model",
        "created": created,
        "owned_by": "chameleon",
        "chameleon": {
            "adapter": info.name,
            "condition": info.condition.to_string(),
            "num_clusters": info.num_clusters,
            "prefix": info.prefix,
            "max_prompt_tokens": server.max_prompt_tokens(),
            "max_new_tokens": server.limits.max_new_tokens,
        },
    })
}
