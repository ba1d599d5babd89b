//! What the server knows of a loaded adapter in addition to the engine.

use burn::tensor::Tensor;
use chameleon_core::RunSeed;
use chameleon_models::Adapter;

use crate::report::Plane;

/// What is known of a loaded adapter.
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
            // The seed affects signs only; a fixed one draws an adapter the same way every time.
            map: Plane::fit(centroids, RunSeed(0)).project(centroids),
            centroids: rows(centroids),
        }
    }
}

fn rows(centroids: &Tensor<2>) -> Vec<Vec<f64>> {
    let [_, hidden_size] = centroids.dims();
    let values: Vec<f64> = centroids.to_data().iter::<f64>().collect();
    values.chunks(hidden_size).map(<[f64]>::to_vec).collect()
}
