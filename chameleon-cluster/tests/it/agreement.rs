//! The same start gives the same groups here, in linfa and in scikit-learn.

use chameleon_cluster::{
    Convergence, Engine, KMeansConfig, SilhouetteSample, assign, inertia, label_agreement,
    silhouette,
};
use chameleon_core::RunSeed;
use linfa::{
    DatasetBase,
    traits::{Fit as _, Predict as _},
};
use linfa_clustering::{KMeans as LinfaKMeans, KMeansInit};
use ndarray::Array2;

use crate::support::{CASES, Case, assert_close, host};

fn settle(case: &Case, engine: Engine) -> chameleon_cluster::KMeans {
    KMeansConfig::new(case.start.dims()[0])
        .with_engine(engine)
        .with_tolerance(0.0)
        .fit_from(&case.points, &case.start)
        .unwrap()
}

#[test]
fn both_engines_agree_with_scikit_learn() {
    for name in CASES {
        let case = Case::read(name);
        for engine in [Engine::MatrixProducts, Engine::Linfa] {
            let found = settle(&case, engine);
            assert_eq!(
                found.assignments, case.expected.assignments,
                "{name} {engine:?}"
            );
            assert_eq!(
                found.num_iterations, case.expected.num_iterations,
                "{name} {engine:?}"
            );
            assert_eq!(found.convergence, Convergence::Settled, "{name} {engine:?}");
            assert_close(found.inertia, case.expected.inertia);
        }
    }
}

#[test]
fn engines_agree_after_every_number_of_steps() {
    let case = Case::read("noise");
    for max_iterations in 1..=case.expected.num_iterations {
        let after = |engine| {
            KMeansConfig::new(12)
                .with_engine(engine)
                .with_max_iterations(max_iterations)
                .with_tolerance(0.0)
                .fit_from(&case.points, &case.start)
                .unwrap()
        };
        let (ours, linfas) = (after(Engine::MatrixProducts), after(Engine::Linfa));
        assert_eq!(ours.assignments, linfas.assignments);
        assert_close(ours.inertia, linfas.inertia);
        for (left, right) in host(&ours.centroids).iter().zip(host(&linfas.centroids)) {
            assert!((left - right).abs() < 1e-5);
        }
    }
}

/// linfa left alone takes shorter steps, but ends at the same groups when there are any.
#[test]
fn linfa_by_itself_ends_at_the_same_groups() {
    let case = Case::read("blobs");
    let widen = |tensor| {
        let rows: Vec<f64> = host(tensor).into_iter().map(f64::from).collect();
        Array2::from_shape_vec((rows.len() / 16, 16), rows).unwrap()
    };
    let points = widen(&case.points);
    let model = LinfaKMeans::params(8)
        .init_method(KMeansInit::Precomputed(widen(&case.start)))
        .n_runs(1)
        .tolerance(1e-9)
        .fit(&DatasetBase::from(points.clone()))
        .unwrap();
    let found = settle(&case, Engine::MatrixProducts);
    assert_eq!(model.predict(&points).to_vec(), found.assignments);
    assert_close(
        model.inertia() * found.assignments.len() as f64,
        found.inertia,
    );
}

#[test]
fn figures_agree_with_scikit_learn() {
    for name in CASES {
        let Case {
            points, expected, ..
        } = Case::read(name);
        let whole = SilhouetteSample {
            max_points: usize::MAX,
            max_members: usize::MAX,
        };
        let found = silhouette(&points, &expected.assignments, whole, RunSeed(0)).unwrap();
        assert_close(found, expected.silhouette);
        let found = label_agreement(&expected.assignments, &expected.labels).unwrap();
        assert_close(found.purity, expected.purity);
        assert_close(
            found.normalized_mutual_information,
            expected.normalized_mutual_information,
        );
        assert_close(found.adjusted_rand, expected.adjusted_rand);
    }
}

#[test]
fn a_sampled_silhouette_is_near_the_whole() {
    let Case {
        points, expected, ..
    } = Case::read("blobs");
    let sample = SilhouetteSample {
        max_points: 120,
        max_members: 12,
    };
    let found = silhouette(&points, &expected.assignments, sample, RunSeed(3)).unwrap();
    assert!((found - expected.silhouette).abs() < 0.03, "found {found}");
}

#[test]
fn assigning_the_training_points_repeats_their_assignments_and_inertia() {
    for name in CASES {
        let case = Case::read(name);
        let kmeans = settle(&case, Engine::MatrixProducts);
        let nearest = assign(&case.points, &kmeans.centroids).unwrap();
        assert_eq!(nearest.assignments, kmeans.assignments, "{name}");
        let sum: f64 = nearest
            .distances
            .iter()
            .map(|&distance| f64::from(distance).powi(2))
            .sum();
        assert_close(sum, kmeans.inertia);
        assert_close(
            inertia(&case.points, &kmeans.centroids, &kmeans.assignments).unwrap(),
            kmeans.inertia,
        );
    }
}
