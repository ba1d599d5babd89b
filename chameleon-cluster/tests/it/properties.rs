//! Laws, over random input.

use chameleon_cluster::{KMeansConfig, cluster_sizes, label_agreement, plan};
use chameleon_core::RunSeed;
use proptest::prelude::*;

use crate::support::{host, tensor, uniform_points};

prop_compose! {
    /// Rows of up to seven clusters, and their lengths.
    fn rows()(rows in prop::collection::vec((0..7_usize, 0..200_usize), 0..120)) -> (Vec<usize>, Vec<usize>) {
        rows.into_iter().unzip()
    }
}

proptest! {
    #[test]
    fn a_plan_is_a_partition_into_bounded_batches_of_one_cluster(
        (assignments, lengths) in rows(),
        max_rows in 1..20_usize,
    ) {
        let plan = plan(&assignments, &lengths, max_rows).unwrap();
        prop_assert!(plan.is_partition_of(assignments.len()));
        for batch in &plan.batches {
            prop_assert!(batch.rows.iter().all(|&row| assignments[row] == batch.cluster_idx));
            prop_assert!((1..=max_rows).contains(&batch.rows.len()));
        }
    }

    #[test]
    fn batches_of_a_cluster_do_not_interleave_in_length((assignments, lengths) in rows(), max_rows in 1..20_usize) {
        let plan = plan(&assignments, &lengths, max_rows).unwrap();
        for pair in plan.batches.windows(2).filter(|pair| pair[0].cluster_idx == pair[1].cluster_idx) {
            let shortest = pair[0].rows.iter().map(|&row| lengths[row]).min();
            let longest = pair[1].rows.iter().map(|&row| lengths[row]).max();
            prop_assert!(shortest >= longest);
        }
    }

    #[test]
    fn batches_are_as_few_and_as_even_as_rows_allow((assignments, lengths) in rows(), max_rows in 1..20_usize) {
        let plan = plan(&assignments, &lengths, max_rows).unwrap();
        for (cluster_idx, size) in cluster_sizes(&assignments, 7).unwrap().sizes.into_iter().enumerate() {
            let num_rows: Vec<usize> = plan
                .batches
                .iter()
                .filter(|batch| batch.cluster_idx == cluster_idx)
                .map(|batch| batch.rows.len())
                .collect();
            prop_assert_eq!(num_rows.len(), size.div_ceil(max_rows));
            prop_assert!(num_rows.iter().all(|&rows| rows <= size.div_ceil(num_rows.len().max(1))));
        }
    }

    #[test]
    fn agreement_is_bounded_and_symmetric_where_it_should_be(pairs in prop::collection::vec((0..5_usize, 0..5_usize), 1..80)) {
        let (left, right): (Vec<usize>, Vec<usize>) = pairs.into_iter().unzip();
        let there = label_agreement(&left, &right).unwrap();
        let back = label_agreement(&right, &left).unwrap();
        prop_assert!((0.0..=1.0).contains(&there.purity));
        prop_assert!((0.0..=1.0).contains(&there.normalized_mutual_information));
        prop_assert!((-1.0..=1.0).contains(&there.adjusted_rand));
        prop_assert!((there.normalized_mutual_information - back.normalized_mutual_information).abs() < 1e-9);
        prop_assert!((there.adjusted_rand - back.adjusted_rand).abs() < 1e-9);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn steps_never_raise_the_inertia(seed in any::<u64>(), num_clusters in 1..12_usize) {
        let points = uniform_points(80, 3, seed);
        let after = |max_iterations| {
            KMeansConfig::new(num_clusters)
                .with_max_iterations(max_iterations)
                .with_tolerance(0.0)
                .fit(&points, RunSeed(seed))
                .unwrap()
                .inertia
        };
        let inertias: Vec<f64> = (1..6).map(after).collect();
        prop_assert!(inertias.is_sorted_by(|fewer, more| *more <= fewer + 1e-6), "{:?}", inertias);
    }

    #[test]
    fn a_settled_centroid_is_the_mean_of_its_points(seed in any::<u64>(), num_clusters in 1..12_usize) {
        let points = uniform_points(80, 3, seed);
        let kmeans = KMeansConfig::new(num_clusters).with_tolerance(0.0).fit(&points, RunSeed(seed)).unwrap();
        let (rows, centroids) = (host(&points), host(&kmeans.centroids));
        for (cluster_idx, centroid) in centroids.chunks(3).enumerate() {
            let members: Vec<&[f32]> = rows
                .chunks(3)
                .zip(&kmeans.assignments)
                .filter(|&(_, &assignment)| assignment == cluster_idx)
                .map(|(row, _)| row)
                .collect();
            for column_idx in 0..3 {
                let mean = members.iter().map(|row| row[column_idx]).sum::<f32>() / members.len() as f32;
                prop_assert!((mean - centroid[column_idx]).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn moving_and_scaling_the_points_moves_and_scales_the_groups(seed in any::<u64>(), offset in -8_i8..8, exponent in -6_i32..6) {
        // Both are exact in f32 for these coordinates, so the groups must not change.
        let (offset, scale) = (f32::from(offset), 2_f32.powi(exponent));
        let rows: Vec<f32> = host(&uniform_points(60, 2, seed)).iter().map(|value| (value * 1024.0).round() / 1024.0).collect();
        let moved = rows.iter().map(|value| (value + offset) * scale).collect();
        let fit = |rows| KMeansConfig::new(5).fit(&tensor(rows, 2), RunSeed(seed)).unwrap();
        let (here, there) = (fit(rows), fit(moved));
        prop_assert_eq!(here.assignments, there.assignments);
        prop_assert!((here.inertia * f64::from(scale).powi(2) - there.inertia).abs() <= 1e-5 * there.inertia);
    }
}
