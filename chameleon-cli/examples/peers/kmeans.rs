//! k-means at the size of the paper: Lloyd's steps from a given start, and the choice of a start.

use std::error::Error;
use std::fs;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use chameleon_cluster::{Engine, KMeansConfig, seed_centroids};
use chameleon_core::RunSeed;
use serde_json::json;

use crate::rounds;

/// Width of the points that `bench_inputs.py` writes.
const HIDDEN_SIZE: usize = 768;
const NUM_STEPS: usize = 10;

/// Clusters of the workload `kmeans`: all that there is a start for.
pub(crate) const NUM_CLUSTERS: usize = 1147;

/// Ten steps; a round returns the inertia.
pub(crate) fn lloyd(
    folder: &Path,
    engine: Engine,
    num_clusters: usize,
) -> Result<(), Box<dyn Error>> {
    let (points, start) = (read(folder, "points.f32")?, read(folder, "start.f32")?);
    let start = start.narrow(0, 0, num_clusters);
    let config = KMeansConfig::new(num_clusters)
        .with_engine(engine)
        .with_max_iterations(NUM_STEPS)
        .with_tolerance(0.0);
    rounds::serve(&setup(&points, &start), || {
        Ok(config.fit_from(&points, &start)?.inertia)
    })
}

/// Greedy k-means++; a round returns the number of centroids, because each side draws its own.
pub(crate) fn seeding(folder: &Path) -> Result<(), Box<dyn Error>> {
    let (points, start) = (read(folder, "points.f32")?, read(folder, "start.f32")?);
    let [num_clusters, _] = start.dims();
    let mut rng = RunSeed(1).stream("seeding");
    rounds::serve(&setup(&points, &start), || {
        let chosen = seed_centroids(&points, num_clusters, &mut rng)?;
        Ok(chosen.dims()[0] as f64)
    })
}

fn setup(points: &Tensor<2>, start: &Tensor<2>) -> serde_json::Value {
    json!({ "points": points.dims(), "clusters": start.dims()[0] })
}

fn read(folder: &Path, file: &str) -> Result<Tensor<2>, Box<dyn Error>> {
    let bytes = fs::read(folder.join(file))?;
    let (values, _) = bytes.as_chunks::<4>();
    let values: Vec<f32> = values
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    let shape = [values.len() / HIDDEN_SIZE, HIDDEN_SIZE];
    Ok(Tensor::from_data(
        TensorData::new(values, shape),
        &Device::flex(),
    ))
}
