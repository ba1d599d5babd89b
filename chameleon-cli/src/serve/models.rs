//! `GET /v1/models`: the model, and the model with each of its adapters.

use std::sync::Arc;

use axum::extract::{Path, State, rejection::PathRejection};
use chameleon_models::engine::AdapterInfo;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    error::{ApiError, GuardedErrors, NamedErrors},
    state::{ModelChoice, Server},
    wire::{Json, List, ObjectKind},
};

/// A model, or a model with an adapter.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Model)]
pub(crate) struct ModelBody {
    id: String,
    object: ObjectKind,
    created: u64,
    owned_by: &'static str,
    chameleon: ModelNote,
}

#[derive(Debug, Serialize, ToSchema)]
struct ModelNote {
    #[schema(required)]
    adapter: Option<String>,
    max_prompt_tokens: usize,
    max_new_tokens: usize,
    #[serde(flatten)]
    details: ModelDetails,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum ModelDetails {
    Base {
        architecture: String,
        fingerprint: String,
    },
    Adapted {
        condition: String,
        num_clusters: usize,
        prefix: usize,
    },
}

/// The models that are served
#[utoipa::path(get, path = "/v1/models", operation_id = "listModels",
    responses((status = 200, description = "The models", body = List<ModelBody>), GuardedErrors))]
pub(crate) async fn list(State(server): State<Arc<Server>>) -> Json<List<ModelBody>> {
    let adapters = server.engine.adapters();
    let adapted = adapters.into_iter().map(|info| adapted(&server, info));
    Json(std::iter::once(base(&server)).chain(adapted).collect())
}

/// One model
#[utoipa::path(get, path = "/v1/models/{id}", operation_id = "getModel",
    params(("id" = String, Path, min_length = 1)),
    responses((status = 200, description = "The model", body = ModelBody), GuardedErrors, NamedErrors))]
pub(crate) async fn show(
    State(server): State<Arc<Server>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ModelBody>, ApiError> {
    let Path(id) = id.map_err(|_| ApiError::not_utf8())?;
    let ModelChoice { adapter, .. } = server.choose_model(&id)?;
    let mut infos = server.engine.adapters().into_iter();
    let info = infos.find(|info| Some(&info.name) == adapter.as_ref());
    Ok(Json(match info {
        Some(info) => adapted(&server, info),
        None => base(&server),
    }))
}

fn base(server: &Server) -> ModelBody {
    let identity = &server.engine.model().identity;
    let details = ModelDetails::Base {
        architecture: identity.architecture.clone(),
        fingerprint: identity.fingerprint.clone(),
    };
    model(server, None, details)
}

fn adapted(server: &Server, info: AdapterInfo) -> ModelBody {
    let details = ModelDetails::Adapted {
        condition: info.condition.to_string(),
        num_clusters: info.num_clusters,
        prefix: info.prefix,
    };
    model(server, Some(info.name), details)
}

fn model(server: &Server, adapter: Option<String>, details: ModelDetails) -> ModelBody {
    let name = &server.name;
    let (id, record_created) = match &adapter {
        None => (name.clone(), None),
        Some(adapter) => {
            let records = server.adapters();
            let created = records.get(adapter).map(|record| record.created);
            (format!("{name}:{adapter}"), created)
        }
    };
    ModelBody {
        id,
        object: ObjectKind::Model,
        created: record_created.unwrap_or(server.created),
        owned_by: "chameleon",
        chameleon: ModelNote {
            adapter,
            max_prompt_tokens: server.max_prompt_tokens(),
            max_new_tokens: server.limits.max_new_tokens,
            details,
        },
    }
}
