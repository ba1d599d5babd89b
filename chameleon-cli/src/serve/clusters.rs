//! `GET /v1/clusters`: the groups of every adapter, and what falls in them.

use std::sync::Arc;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::Response,
};
use burn::tensor::Tensor;
use chameleon_cluster::principal_components;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    error::{ApiError, json as respond_json},
    state::Server,
};

/// What is asked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterQuery {
    /// This adapter only.
    adapter: Option<String>,
    /// With all numbers of every centroid.
    #[serde(default)]
    centroids: bool,
}

/// `GET /v1/clusters`
pub(crate) async fn list(
    State(server): State<Arc<Server>>,
    query: Result<Query<ClusterQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(query) = query.map_err(|rejection| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_value",
            rejection.body_text(),
        )
    })?;
    let names: Vec<String> = match query.adapter {
        Some(name) => vec![name],
        None => server
            .engine
            .adapters()
            .into_iter()
            .map(|info| info.name)
            .collect(),
    };
    let data: Vec<Value> = names
        .iter()
        .map(|name| describe(&server, name, query.centroids))
        .collect::<Result<_, _>>()?;
    Ok(respond_json(
        StatusCode::OK,
        &json!({"object": "list", "data": data}),
    ))
}

fn describe(server: &Server, name: &str, with_centroids: bool) -> Result<Value, ApiError> {
    let clusters = server
        .engine
        .clusters(name)
        .map_err(|refusal| ApiError::from(refusal).about("adapter"))?;
    let records = server.adapters();
    let record = records.get(name);
    let clusters: Vec<Value> = clusters
        .into_iter()
        .map(|cluster| {
            let idx = cluster.cluster_idx;
            let mut value = json!({
                "cluster": idx,
                "num_requests": cluster.num_requests,
                "num_running": cluster.num_running,
                "delta_norm": cluster.delta_norm,
                "position": record.and_then(|record| record.map.get(idx)),
                "recent_request_ids": cluster.recent_request_ids,
            });
            if with_centroids {
                value["centroid"] = json!(record.and_then(|record| record.centroids.get(idx)));
            }
            value
        })
        .collect();
    Ok(json!({
        "object": "clusters",
        "adapter": name,
        "model": format!("{}:{name}", server.name),
        "clusters": clusters,
    }))
}

/// Centroids on a plane, along the two directions in which they differ most.
pub(crate) fn map_of(centroids: &Tensor<2>) -> Vec<[f32; 2]> {
    let [num_clusters, hidden_size] = centroids.dims();
    let num_axes = hidden_size.min(2);
    let Ok(components) = principal_components(centroids, num_axes) else {
        return vec![[0.0; 2]; num_clusters];
    };
    let places: Vec<f32> = components.project(centroids).into_data().iter().collect();
    places
        .chunks_exact(num_axes)
        .map(|at| [at[0], at.get(1).copied().unwrap_or(0.0)])
        .collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn distances_on_a_plane_are_kept() {
        let centroids = [[0.0, 0.0, 1.0], [3.0, 0.0, 1.0], [0.0, 4.0, 1.0]];
        let map = map_of(&Tensor::from_data(centroids, &Device::default()));
        let distance = |l: usize, r: usize| {
            let [x, y] = [map[l][0] - map[r][0], map[l][1] - map[r][1]];
            (x * x + y * y).sqrt()
        };
        assert!((distance(0, 1) - 3.0).abs() < 1e-3);
        assert!((distance(0, 2) - 4.0).abs() < 1e-3);
        assert!((distance(1, 2) - 5.0).abs() < 1e-3);
    }

    #[test]
    fn equal_centroids_lie_on_one_point() {
        let device = Device::default();
        let equal = Tensor::from_data([[1.0, 2.0], [1.0, 2.0]], &device);
        assert_eq!(map_of(&equal), [[0.0; 2]; 2]);
        assert_eq!(map_of(&Tensor::empty([0, 2], &device)), [[0.0; 2]; 0]);
    }
}
