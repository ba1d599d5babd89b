//! One seed, one result.

use burn::tensor::Device;
use chameleon_cluster::{Engine, KMeans, KMeansConfig, Seeding, seed_centroids};
use chameleon_core::RunSeed;

use crate::support::{assert_close, host, uniform_points};

fn fit(seed: u64, num_restarts: usize) -> KMeans {
    KMeansConfig::new(9)
        .with_num_restarts(num_restarts)
        .fit(&uniform_points(400, 6, 1), RunSeed(seed))
        .unwrap()
}

#[test]
fn one_seed_repeats_every_bit() {
    let (first, second) = (fit(5, 3), fit(5, 3));
    assert_eq!(host(&first.centroids), host(&second.centroids));
    assert_eq!(first.assignments, second.assignments);
    assert_eq!(first.inertia.to_bits(), second.inertia.to_bits());
    assert_ne!(host(&first.centroids), host(&fit(6, 3).centroids));
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let on_one_thread = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap()
        .install(|| fit(5, 1));
    let on_all = fit(5, 1);
    assert_eq!(on_one_thread.assignments, on_all.assignments);
    assert_eq!(on_one_thread.inertia.to_bits(), on_all.inertia.to_bits());
}

#[test]
fn more_restarts_are_never_worse() {
    let inertias: Vec<f64> = (1..6)
        .map(|num_restarts| fit(8, num_restarts).inertia)
        .collect();
    assert!(
        inertias.is_sorted_by(|fewer, more| more <= fewer),
        "{inertias:?}"
    );
    assert!(inertias[4] < inertias[0], "{inertias:?}");
}

#[test]
fn chunks_change_nothing() {
    let points = uniform_points(300, 5, 2);
    let fit = |chunk_rows| {
        KMeansConfig::new(7)
            .with_chunk_rows(chunk_rows)
            .fit(&points, RunSeed(3))
            .unwrap()
    };
    let whole = fit(1_000);
    for chunk_rows in [1, 7, 64, 300] {
        let chunked = fit(chunk_rows);
        assert_eq!(chunked.assignments, whole.assignments);
        assert_close(chunked.inertia, whole.inertia);
    }
}

#[test]
fn engines_share_the_start_of_a_seed() {
    let points = uniform_points(300, 5, 4);
    let fit = |engine| {
        KMeansConfig::new(7)
            .with_engine(engine)
            .fit(&points, RunSeed(3))
            .unwrap()
    };
    let (ours, linfas) = (fit(Engine::MatrixProducts), fit(Engine::Linfa));
    assert_eq!(ours.assignments, linfas.assignments);
    assert_eq!(ours.num_iterations, linfas.num_iterations);
    assert_close(ours.inertia, linfas.inertia);
}

#[test]
fn greedy_seeding_starts_lower_than_plain_and_plain_lower_than_uniform() {
    let points = uniform_points(600, 3, 9);
    let mean_start = |seeding| {
        let inertias = (0..20).map(|seed| {
            let start =
                seed_centroids(&points, 30, seeding, &mut RunSeed(seed).stream("start")).unwrap();
            let nearest = chameleon_cluster::assign(&points, &start).unwrap();
            chameleon_cluster::inertia(&points, &start, &nearest.assignments).unwrap()
        });
        inertias.sum::<f64>() / 20.0
    };
    let [greedy, plain, uniform] = [
        Seeding::GreedyPlusPlus,
        Seeding::PlusPlus,
        Seeding::UniformPoints,
    ]
    .map(mean_start);
    assert!(
        greedy < plain && plain < uniform,
        "{greedy} {plain} {uniform}"
    );
}

#[test]
fn points_that_record_gradients_are_taken_as_numbers() {
    let points = uniform_points(50, 4, 5);
    let tracked = points.clone().autodiff().require_grad();
    let config = KMeansConfig::new(3);
    let (plain, tracked) = (
        config.fit(&points, RunSeed(1)),
        config.fit(&tracked, RunSeed(1)),
    );
    let (plain, tracked) = (plain.unwrap(), tracked.unwrap());
    assert_eq!(plain.assignments, tracked.assignments);
    assert_eq!(tracked.centroids.device(), Device::flex());
}
