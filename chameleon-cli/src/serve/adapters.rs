//! `/v1/adapters`: adapters are loaded from one folder, and unloaded, while the server runs.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, Request, State, rejection::PathRejection},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use chameleon_models::adapter::MemoryDescription;
use chameleon_models::engine::AdapterInfo;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    blocking::compute,
    body,
    error::{ApiError, BodyErrors, ConflictErrors, GuardedErrors, NamedErrors},
    state::Server,
    wire::{Json, List, ObjectKind},
};
use crate::commands::adapter;

/// An adapter to load.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadRequest {
    /// 1 to 64 letters, digits, `-`, `_` and `.`
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$")]
    name: String,
    /// Inside the folder of adapters: relative, without `..`
    #[schema(pattern = "^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$")]
    path: String,
}

/// A loaded adapter.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Adapter)]
pub(crate) struct AdapterBody {
    id: String,
    object: ObjectKind,
    created: u64,
    /// The model with this adapter.
    model: String,
    /// Its path in the folder of adapters, if it was loaded from there.
    #[schema(required)]
    path: Option<String>,
    condition: String,
    num_clusters: usize,
    prefix: usize,
    #[schema(required)]
    memory: Option<MemorySize>,
    num_requests: u64,
}

/// The size of a memory.
#[derive(Debug, Serialize, ToSchema)]
struct MemorySize {
    num_entries: usize,
    num_bytes: usize,
}

/// An adapter that was unloaded.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UnloadedAdapter {
    id: String,
    object: ObjectKind,
    deleted: bool,
}

/// The loaded adapters
#[utoipa::path(get, path = "/v1/adapters", operation_id = "listAdapters",
    responses((status = 200, description = "The adapters", body = List<AdapterBody>), GuardedErrors))]
pub(crate) async fn list(State(server): State<Arc<Server>>) -> Json<List<AdapterBody>> {
    let infos = server.engine.adapters();
    Json(infos.iter().map(|info| describe(&server, info)).collect())
}

/// Load an adapter from the folder of adapters
#[utoipa::path(post, path = "/v1/adapters", operation_id = "loadAdapter",
    request_body = LoadRequest,
    responses((status = 201, description = "The adapter", body = AdapterBody),
        GuardedErrors, BodyErrors, ConflictErrors))]
pub(crate) async fn load(
    State(server): State<Arc<Server>>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let asked: LoadRequest = body::read(request, server.limits.max_body_bytes).await?;
    if server.is_draining() {
        return Err(ApiError::draining());
    }
    let described = compute(&server, move |server| {
        let folder = server.adapter_folder.as_ref().ok_or_else(|| {
            ApiError::new(
                StatusCode::FORBIDDEN,
                "loading_forbidden",
                "this server was started without `--adapter-dir`",
            )
        })?;
        let path = folder.find(&asked.path)?;
        let adapter = adapter::load(&path, server.engine.model(), server.memory)
            .map_err(|error| folder.refused(&error))?;
        server.add_adapter(&asked.name, adapter, &path, Some(asked.path))?;
        let infos = server.engine.adapters();
        let info = infos.iter().find(|info| info.name == asked.name);
        // `None` if another client has unloaded it in the meantime.
        Ok(info.map(|info| describe(server, info)))
    })
    .await?;
    Ok((StatusCode::CREATED, Json(described)).into_response())
}

/// Unload an adapter
#[utoipa::path(delete, path = "/v1/adapters/{name}", operation_id = "unloadAdapter",
    params(("name" = String, Path, min_length = 1)),
    responses((status = 200, description = "It is unloaded", body = UnloadedAdapter), GuardedErrors, NamedErrors))]
pub(crate) async fn unload(
    State(server): State<Arc<Server>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<UnloadedAdapter>, ApiError> {
    let Path(id) = name.map_err(|_| ApiError::not_utf8())?;
    server
        .remove_adapter(&id)
        .map_err(|error| error.about("name"))?;
    Ok(Json(UnloadedAdapter {
        id,
        object: ObjectKind::Adapter,
        deleted: true,
    }))
}

fn describe(server: &Server, info: &AdapterInfo) -> AdapterBody {
    let records = server.adapters();
    let record = records.get(&info.name);
    AdapterBody {
        id: info.name.clone(),
        object: ObjectKind::Adapter,
        created: record.map_or(server.created, |record| record.created),
        model: format!("{}:{}", server.name, info.name),
        path: record.and_then(|record| record.path.clone()),
        condition: info.condition.to_string(),
        num_clusters: info.num_clusters,
        prefix: info.prefix,
        memory: info.memory.as_ref().map(MemorySize::of),
        num_requests: info.num_requests,
    }
}

impl MemorySize {
    fn of(memory: &MemoryDescription) -> Self {
        Self {
            num_entries: memory.num_entries,
            num_bytes: memory.num_bytes(),
        }
    }
}
