//! Finds the plane in which centroids differ most, as a map of clusters needs it.
//!
//! `cargo run -p chameleon-cluster --example principal_components`

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use burn::tensor::{Device, Tensor, TensorData};
use chameleon_cluster::{ClusterError, KMeansConfig, principal_components};
use chameleon_core::RunSeed;
use rand::RngExt as _;

const HIDDEN_SIZE: usize = 64;
const NUM_POINTS: usize = 300;

fn main() -> Result<(), ClusterError> {
    let seed = RunSeed(3);
    let mut rng = seed.stream("points");
    // Three groups along two directions, and noise in all others.
    let rows: Vec<f32> = (0..NUM_POINTS)
        .flat_map(|point_idx| {
            let [x, y] = [[0.0, 0.0], [6.0, 0.0], [0.0, 4.0]][point_idx % 3];
            let noise: [f32; HIDDEN_SIZE] = std::array::from_fn(|_| rng.random_range(-0.2..0.2));
            let mut row = noise;
            row[0] += x;
            row[1] += y;
            row
        })
        .collect();
    let points = Tensor::<2>::from_data(
        TensorData::new(rows, [NUM_POINTS, HIDDEN_SIZE]),
        &Device::flex(),
    );

    let kmeans = KMeansConfig::new(3).fit(&points, seed)?;
    let components = principal_components(&kmeans.centroids, 2)?;
    println!(
        "two directions hold {:.1} % of the variance of the centroids",
        100.0 * components.explained()
    );
    let places: Vec<f32> = components
        .project(&kmeans.centroids)
        .into_data()
        .iter()
        .collect();
    for (cluster_idx, place) in places.chunks(2).enumerate() {
        println!("cluster {cluster_idx} at {:6.2} {:6.2}", place[0], place[1]);
    }
    Ok(())
}
