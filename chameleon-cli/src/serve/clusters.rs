//! `GET /v1/clusters`: the groups of every adapter, and what falls in them.

use std::sync::Arc;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::Response,
};
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

/// Rounds of the power iteration; the map is a picture, not a measurement.
const ROUNDS: usize = 100;

/// Centroids on a plane, along the two directions in which they differ most.
pub(crate) fn map_of(centroids: &[Vec<f32>]) -> Vec<[f32; 2]> {
    let num_clusters = centroids.len();
    let mut gram = gram_of_centred(centroids);
    let mut map = vec![[0.0; 2]; num_clusters];
    for axis in 0..2 {
        let Some((direction, size)) = largest(&gram) else {
            break;
        };
        let length = size.max(0.0).sqrt();
        for (position, &share) in map.iter_mut().zip(&direction) {
            #[expect(clippy::cast_possible_truncation, reason = "a picture needs no more")]
            let at = (share * length) as f32;
            position[axis] = at;
        }
        for (row, &left) in gram.iter_mut().zip(&direction) {
            for (value, &right) in row.iter_mut().zip(&direction) {
                *value -= size * left * right;
            }
        }
    }
    map
}

/// Products of all pairs of centroids, after their mean was taken away.
fn gram_of_centred(centroids: &[Vec<f32>]) -> Vec<Vec<f64>> {
    let num_clusters = centroids.len().max(1) as f64;
    let width = centroids.first().map_or(0, Vec::len);
    let means: Vec<f64> = (0..width)
        .map(|idx| {
            let sum: f64 = centroids.iter().map(|row| f64::from(row[idx])).sum();
            sum / num_clusters
        })
        .collect();
    let centred: Vec<Vec<f64>> = centroids
        .iter()
        .map(|row| {
            let pairs = row.iter().zip(&means);
            pairs
                .map(|(&value, mean)| f64::from(value) - mean)
                .collect()
        })
        .collect();
    let dot =
        |left: &[f64], right: &[f64]| -> f64 { left.iter().zip(right).map(|(l, r)| l * r).sum() };
    centred
        .iter()
        .map(|left| centred.iter().map(|right| dot(left, right)).collect())
        .collect()
}

/// The largest eigenvalue of a symmetric matrix and its direction, if there is one above zero.
fn largest(matrix: &[Vec<f64>]) -> Option<(Vec<f64>, f64)> {
    // Any start does that no symmetry makes orthogonal to the answer; it has to be the same every time.
    let mut direction: Vec<f64> = (0..matrix.len())
        .map(|idx| ((idx * 37 + 11) % 101) as f64 / 101.0 - 0.4)
        .collect();
    let mut size = 0.0;
    for _ in 0..ROUNDS {
        let product: Vec<f64> = matrix
            .iter()
            .map(|row| row.iter().zip(&direction).map(|(l, r)| l * r).sum())
            .collect();
        let length = product
            .iter()
            .map(|value| value * value)
            .sum::<f64>()
            .sqrt();
        if !(length > 1e-12 && length.is_finite()) {
            return None;
        }
        direction = product.into_iter().map(|value| value / length).collect();
        size = length;
    }
    Some((direction, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_on_a_plane_are_kept() {
        let centroids = [
            vec![0.0, 0.0, 1.0],
            vec![3.0, 0.0, 1.0],
            vec![0.0, 4.0, 1.0],
        ];
        let map = map_of(&centroids);
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
        assert_eq!(map_of(&[vec![1.0, 2.0], vec![1.0, 2.0]]), [[0.0; 2]; 2]);
        assert_eq!(map_of(&[]), [[0.0; 2]; 0]);
    }
}
