//! One seed, one result.

use burn::tensor::{Device, Tensor};
use chameleon_cluster::{Engine, KMeans, KMeansConfig, assign, inertia, seed_centroids};
use chameleon_core::RunSeed;

use crate::support::{assert_close, host, uniform_points};

fn fit(seed: u64) -> KMeans {
    KMeansConfig::new(9)
        .fit(&uniform_points(400, 6, 1), RunSeed(seed))
        .unwrap()
}

#[test]
fn one_seed_repeats_every_bit() {
    let (first, second) = (fit(5), fit(5));
    assert_eq!(host(&first.centroids), host(&second.centroids));
    assert_eq!(first.assignments, second.assignments);
    assert_eq!(first.inertia.to_bits(), second.inertia.to_bits());
    assert_ne!(host(&first.centroids), host(&fit(6).centroids));
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let on_one_thread = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap()
        .install(|| fit(5));
    let on_all = fit(5);
    assert_eq!(on_one_thread.assignments, on_all.assignments);
    assert_eq!(on_one_thread.inertia.to_bits(), on_all.inertia.to_bits());
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
fn seeding_starts_lower_than_uniformly_drawn_points() {
    let points = uniform_points(600, 3, 9);
    let mean_start = |start: &dyn Fn(u64) -> Tensor<2>| {
        let inertias = (0..20).map(|seed| {
            let start = start(seed);
            let nearest = assign(&points, &start).unwrap();
            inertia(&points, &start, &nearest.assignments).unwrap()
        });
        inertias.sum::<f64>() / 20.0
    };
    let seeded = mean_start(&|seed| {
        seed_centroids(&points, 30, &mut RunSeed(seed).stream("start")).unwrap()
    });
    // The points themselves are drawn uniformly, so any thirty of them are.
    let uniform = mean_start(&|seed| {
        let first = usize::try_from(seed).unwrap() * 30;
        points.clone().narrow(0, first, 30)
    });
    assert!(seeded < 0.8 * uniform, "{seeded} {uniform}");
}

#[test]
fn points_that_record_gradients_are_read_as_plain_values() {
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
