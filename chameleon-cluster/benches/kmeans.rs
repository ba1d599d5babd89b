//! Seeding, Lloyd's steps and look-ups on the CPU: `cargo bench -p chameleon-cluster`.

use std::fmt;

use burn::tensor::{Device, Tensor, TensorData};
use chameleon_cluster::{CentroidIndex, KMeansConfig, seed_centroids};
use chameleon_core::RunSeed;
use divan::Bencher;
use rand::RngExt as _;

fn main() {
    divan::main();
}

const WORKLOADS: [Workload; 2] = [
    Workload {
        num_points: 1_000,
        hidden_size: 64,
        num_clusters: 16,
    },
    Workload {
        num_points: 4_000,
        hidden_size: 256,
        num_clusters: 64,
    },
];

#[divan::bench(args = WORKLOADS)]
fn seeding_greedy_plus_plus(bencher: Bencher, workload: Workload) {
    let points = workload.points();
    bencher.bench_local(|| {
        seed_centroids(
            &points,
            workload.num_clusters,
            &mut RunSeed(1).stream("start"),
        )
    });
}

#[divan::bench(args = WORKLOADS)]
fn ten_lloyd_steps(bencher: Bencher, workload: Workload) {
    let points = workload.points();
    let start = points.clone().narrow(0, 0, workload.num_clusters);
    let config = KMeansConfig::new(workload.num_clusters)
        .with_max_iterations(10)
        .with_tolerance(0.0);
    bencher.bench_local(|| config.fit_from(&points, &start));
}

#[divan::bench(args = WORKLOADS)]
fn nearest_of_32_unseen(bencher: Bencher, workload: Workload) {
    let points = workload.points();
    let centroids = points.clone().narrow(0, 0, workload.num_clusters);
    let index = CentroidIndex::new(&centroids).expect("random centroids are finite");
    let unseen = points.narrow(0, 0, 32);
    bencher.bench_local(|| index.nearest(&unseen));
}

#[derive(Clone, Copy)]
struct Workload {
    num_points: usize,
    hidden_size: usize,
    num_clusters: usize,
}

impl Workload {
    fn points(self) -> Tensor<2> {
        let mut rng = RunSeed(1).stream("points");
        let num_values = self.num_points * self.hidden_size;
        let rows: Vec<f32> = (0..num_values)
            .map(|_| rng.random_range(-1.0..1.0))
            .collect();
        Tensor::from_data(
            TensorData::new(rows, [self.num_points, self.hidden_size]),
            &Device::flex(),
        )
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            num_points,
            hidden_size,
            num_clusters,
        } = self;
        write!(
            formatter,
            "points={num_points} hidden={hidden_size} clusters={num_clusters}"
        )
    }
}
