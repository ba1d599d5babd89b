//! The server's record of a loaded adapter, in addition to the engine's.

use burn::tensor::Tensor;
use chameleon_cluster::principal_components;
use chameleon_models::adapter::Adapter;

/// A loaded adapter.
#[derive(Debug)]
pub(crate) struct AdapterRecord {
    /// Seconds since 1970 when it was loaded.
    pub(crate) created: u64,
    /// Its path in the folder of adapters, if it was loaded from there.
    pub(crate) path: Option<String>,
    /// `[clusters][hidden]`
    pub(crate) centroids: Vec<Vec<f64>>,
    /// The centroids on the plane of their first two principal components.
    pub(crate) map: Vec<[f64; 2]>,
}

impl AdapterRecord {
    pub(crate) fn new(adapter: &Adapter, path: Option<String>, created: u64) -> Self {
        let centroids = &adapter.centroids;
        Self {
            created,
            path,
            map: map_of(centroids),
            centroids: rows(centroids),
        }
    }
}

fn rows(centroids: &Tensor<2>) -> Vec<Vec<f64>> {
    let [_, hidden_size] = centroids.dims();
    let values: Vec<f64> = centroids.to_data().iter::<f64>().collect();
    values.chunks(hidden_size).map(<[f64]>::to_vec).collect()
}

/// Centroids on the plane of their first two principal components.
fn map_of(centroids: &Tensor<2>) -> Vec<[f64; 2]> {
    let [num_clusters, hidden_size] = centroids.dims();
    let num_axes = hidden_size.min(2);
    let Ok(components) = principal_components(centroids, num_axes) else {
        return vec![[0.0; 2]; num_clusters];
    };
    let places: Vec<f64> = components.project(centroids).into_data().iter().collect();
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
