//! Groups synthetic points around four directions and shows how good the groups are.
//!
//! `cargo run -p chameleon-cluster --example cluster_points`

#![expect(clippy::print_stdout, reason = "an example shows its result")]

use burn::tensor::{Device, Tensor, TensorData};
use chameleon_cluster::{
    ClusterError, KMeansConfig, SilhouetteSample, cluster_sizes, label_agreement, plan, silhouette,
};
use chameleon_core::RunSeed;
use rand::RngExt as _;

const HIDDEN_SIZE: usize = 32;
const NUM_POINTS: usize = 400;

fn main() -> Result<(), ClusterError> {
    let seed = RunSeed(7);
    let mut rng = seed.stream("points");
    let mut rows = Vec::with_capacity(NUM_POINTS * HIDDEN_SIZE);
    let mut labels = Vec::with_capacity(NUM_POINTS);
    for _ in 0..NUM_POINTS {
        let label = rng.random_range(0..4);
        let row: Vec<f32> = (0..HIDDEN_SIZE)
            .map(|column_idx| {
                f32::from(u8::from(column_idx % 4 == label)) + rng.random_range(-1.0..1.0)
            })
            .collect();
        // K-means uses points as they are; prompt embeddings have unit norm.
        let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        rows.extend(row.iter().map(|value| value / norm));
        labels.push(label);
    }
    let points = Tensor::<2>::from_data(
        TensorData::new(rows, [NUM_POINTS, HIDDEN_SIZE]),
        &Device::flex(),
    );

    let kmeans = KMeansConfig::new(4).fit(&points, seed)?;
    let sizes = cluster_sizes(&kmeans.assignments, kmeans.num_clusters())?;
    let agreement = label_agreement(&kmeans.assignments, &labels)?;
    let width = silhouette(
        &points,
        &kmeans.assignments,
        SilhouetteSample::default(),
        seed,
    )?;
    println!(
        "{:?} after {} steps, inertia {:.2}",
        kmeans.convergence, kmeans.num_iterations, kmeans.inertia
    );
    println!(
        "sizes {:?}, balance {:.3}, silhouette {width:.3}",
        sizes.sizes, sizes.balance
    );
    println!(
        "purity {:.3}, adjusted Rand {:.3}",
        agreement.purity, agreement.adjusted_rand
    );

    let lengths = vec![128; NUM_POINTS];
    let batches = plan(&kmeans.assignments, &lengths, 32)?;
    println!("{} batches of at most 32 rows", batches.batches.len());
    Ok(())
}
