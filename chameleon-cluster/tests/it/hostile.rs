//! Bad input is an error that says what was found, never a panic and never an endless loop.

use burn::tensor::{Device, Tensor};
use chameleon_cluster::{
    CentroidIndex, Engine, KMeansConfig, SilhouetteSample, assign, cluster_sizes, inertia,
    label_agreement, seed_centroids, silhouette,
};
use chameleon_core::RunSeed;

use crate::support::{host, tensor, uniform_points};

fn fit_error(config: &KMeansConfig, points: &Tensor<2>) -> String {
    config.fit(points, RunSeed(0)).unwrap_err().to_string()
}

fn empty(shape: [usize; 2]) -> Tensor<2> {
    Tensor::empty(shape, &Device::flex())
}

#[test]
fn counts_of_zero_are_named() {
    let points = uniform_points(5, 2, 0);
    let config = KMeansConfig::new;
    let cases = [
        (config(0), "num_clusters"),
        (config(2).with_max_iterations(0), "max_iterations"),
    ];
    for (config, name) in cases {
        assert_eq!(
            fit_error(&config, &points),
            format!("{name} is 0, expected at least 1")
        );
    }
}

#[test]
fn a_tolerance_that_bounds_nothing_is_refused() {
    for tolerance in [-1.0, f64::NAN, f64::INFINITY] {
        let error = fit_error(
            &KMeansConfig::new(2).with_tolerance(tolerance),
            &uniform_points(5, 2, 0),
        );
        assert!(error.starts_with("tolerance is "), "{error}");
    }
}

#[test]
fn more_clusters_than_points_are_refused() {
    let expected = "num_clusters is 6, expected at most the number of points, 5";
    let points = uniform_points(5, 2, 0);
    assert_eq!(fit_error(&KMeansConfig::new(6), &points), expected);
    let mut rng = RunSeed(0).stream("start");
    let seeded = seed_centroids(&points, 6, &mut rng);
    assert_eq!(seeded.unwrap_err().to_string(), expected);
}

#[test]
fn no_points_are_refused() {
    let config = KMeansConfig::new(1);
    assert_eq!(
        fit_error(&config, &empty([0, 4])),
        "points have shape [0, 4], expected at least one row and one column"
    );
    assert!(config.fit(&empty([4, 0]), RunSeed(0)).is_err());
    assert!(CentroidIndex::new(&empty([0, 4])).is_err());
    assert!(assign(&empty([0, 4]), &uniform_points(2, 4, 0)).is_err());
}

#[test]
fn the_row_that_is_not_finite_is_named() {
    for (value, shown) in [
        (f32::NAN, "NaN"),
        (f32::INFINITY, "inf"),
        (f32::NEG_INFINITY, "-inf"),
    ] {
        let mut rows = host(&uniform_points(6, 3, 0));
        rows[13] = value;
        rows[16] = value;
        let points = tensor(rows, 3);
        let expected = format!("point 4 is not finite: column 1 holds {shown}");
        for engine in [Engine::MatrixProducts, Engine::Linfa] {
            assert_eq!(
                fit_error(&KMeansConfig::new(2).with_engine(engine), &points),
                expected
            );
        }
        let centroids = uniform_points(2, 3, 0);
        assert_eq!(
            assign(&points, &centroids).unwrap_err().to_string(),
            expected
        );
        assert_eq!(
            CentroidIndex::new(&points).unwrap_err().to_string(),
            expected.replace("point", "centroid")
        );
    }
}

#[test]
fn widths_and_counts_that_differ_are_named() {
    let points = uniform_points(6, 3, 0);
    let narrow = uniform_points(2, 2, 0);
    let expected = "points have hidden size 3, the centroids have 2";
    assert_eq!(assign(&points, &narrow).unwrap_err().to_string(), expected);
    assert_eq!(
        inertia(&points, &narrow, &[0; 6]).unwrap_err().to_string(),
        expected
    );
    let config = KMeansConfig::new(2);
    assert_eq!(
        config.fit_from(&points, &narrow).unwrap_err().to_string(),
        expected
    );
    let error = config
        .fit_from(&points, &uniform_points(3, 3, 0))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the start has 3 centroids, num_clusters is 2"
    );
    let error = inertia(&points, &uniform_points(2, 3, 0), &[0; 5]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "assignments has 5 entries, expected one for each of 6 rows"
    );
    let error = inertia(&points, &uniform_points(2, 3, 0), &[0, 1, 0, 2, 3, 0]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "row 3 is assigned to cluster 2, expected one of 2 clusters"
    );
}

#[test]
fn figures_of_nothing_are_refused() {
    let points = uniform_points(3, 2, 0);
    let sample = SilhouetteSample::default();
    assert!(cluster_sizes(&[0], 0).is_err());
    assert!(cluster_sizes(&[3], 3).is_err());
    assert!(label_agreement::<usize>(&[], &[]).is_err());
    assert!(label_agreement(&[0], &["a", "b"]).is_err());
    assert!(silhouette(&points, &[0, 0, 0], sample, RunSeed(0)).is_err());
    assert!(silhouette(&points, &[0, 1], sample, RunSeed(0)).is_err());
    let nothing = SilhouetteSample {
        max_points: 0,
        ..sample
    };
    assert!(silhouette(&points, &[0, 1, 1], nothing, RunSeed(0)).is_err());
}

#[test]
fn equal_points_leave_clusters_empty_and_end() {
    let points = tensor([0.1, 0.7].repeat(20), 2);
    for engine in [Engine::MatrixProducts, Engine::Linfa] {
        let config = KMeansConfig::new(5).with_engine(engine);
        let kmeans = config.fit(&points, RunSeed(0)).unwrap();
        assert!(kmeans.inertia.abs() < 1e-12);
        assert!(
            host(&kmeans.centroids)
                .iter()
                .all(|value| value.is_finite())
        );
    }
}

#[test]
fn every_point_its_own_cluster_has_no_inertia() {
    let points = uniform_points(12, 3, 7);
    let kmeans = KMeansConfig::new(12).fit(&points, RunSeed(0)).unwrap();
    assert!(kmeans.inertia < 1e-10);
    assert_eq!(
        cluster_sizes(&kmeans.assignments, 12).unwrap().sizes,
        [1; 12]
    );
}

#[test]
fn a_start_that_leaves_clusters_empty_is_repaired() {
    let points = uniform_points(60, 2, 3);
    let start = tensor([0.5, 0.5].repeat(4), 2);
    let kmeans = KMeansConfig::new(4).fit_from(&points, &start).unwrap();
    assert_eq!(cluster_sizes(&kmeans.assignments, 4).unwrap().num_empty, 0);
}

#[test]
fn coordinates_whose_squares_overflow_or_vanish_are_grouped() {
    for scale in [1e-30, 1.0, 1e30] {
        let rows = [-1.0, -0.9, -1.1, 1.0, 1.1, 0.9].map(|value| value * scale);
        let kmeans = KMeansConfig::new(2)
            .fit(&tensor(rows.to_vec(), 1), RunSeed(0))
            .unwrap();
        let groups = &kmeans.assignments;
        assert_eq!(groups[..3], [groups[0]; 3]);
        assert_eq!(groups[3..], [groups[3]; 3]);
        assert_ne!(groups[0], groups[3]);
        let expected = 0.04 * f64::from(scale).powi(2);
        assert!((kmeans.inertia - expected).abs() < 1e-4 * expected);
    }
}
