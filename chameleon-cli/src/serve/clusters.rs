//! `GET /v1/clusters`: the groups of every adapter, and the requests in them.

use std::sync::Arc;

use axum::extract::{Query, State, rejection::QueryRejection};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    error::{ApiError, GuardedErrors, QueryErrors},
    state::Server,
    wire::{Json, List, ObjectKind},
};

/// Which groups are listed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ClusterQuery {
    /// Those of this adapter only.
    adapter: Option<String>,
    /// With the components of every centroid.
    #[serde(default)]
    centroids: bool,
}

/// The groups of an adapter.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdapterClusters {
    object: ObjectKind,
    adapter: String,
    /// The model with this adapter.
    model: String,
    clusters: Vec<ClusterState>,
}

/// A group.
#[derive(Debug, Serialize, ToSchema)]
struct ClusterState {
    cluster: usize,
    num_requests: u64,
    num_running: usize,
    /// The Frobenius norm of the change of the head, as last generated.
    #[schema(required)]
    delta_norm: Option<f64>,
    /// The centroid on the plane of the first two principal components of all centroids.
    #[schema(required)]
    position: Option<[f64; 2]>,
    recent_request_ids: Vec<u64>,
    /// On request only.
    #[serde(skip_serializing_if = "Option::is_none")]
    centroid: Option<Vec<f64>>,
}

/// The groups of every adapter
#[utoipa::path(get, path = "/v1/clusters", operation_id = "listClusters",
    params(ClusterQuery),
    responses((status = 200, description = "The groups", body = List<AdapterClusters>), GuardedErrors, QueryErrors))]
pub(crate) async fn list(
    State(server): State<Arc<Server>>,
    query: Result<Query<ClusterQuery>, QueryRejection>,
) -> Result<Json<List<AdapterClusters>>, ApiError> {
    let Query(query) = query.map_err(ApiError::query)?;
    let names = query.adapter.map_or_else(
        || server.adapters().keys().cloned().collect(),
        |name| vec![name],
    );
    let described = names
        .into_iter()
        .map(|name| describe(&server, name, query.centroids));
    Ok(Json(described.collect::<Result<_, _>>()?))
}

fn describe(
    server: &Server,
    name: String,
    with_centroids: bool,
) -> Result<AdapterClusters, ApiError> {
    let clusters = server
        .engine
        .clusters(&name)
        .map_err(|refusal| ApiError::from(refusal).about("adapter"))?;
    let records = server.adapters();
    let record = records.get(&name);
    let clusters = clusters.into_iter().map(|cluster| {
        let idx = cluster.cluster_idx;
        ClusterState {
            cluster: idx,
            num_requests: cluster.num_requests,
            num_running: cluster.num_running,
            delta_norm: cluster.delta_norm.map(f64::from),
            position: record.and_then(|record| record.map.get(idx).copied()),
            recent_request_ids: cluster.recent_request_ids,
            centroid: record
                .filter(|_| with_centroids)
                .and_then(|record| record.centroids.get(idx).cloned()),
        }
    });
    Ok(AdapterClusters {
        object: ObjectKind::Clusters,
        model: format!("{}:{name}", server.name),
        clusters: clusters.collect(),
        adapter: name,
    })
}
