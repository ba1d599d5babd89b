//! Where Lloyd's steps start: greedy k-means++, as in scikit-learn. Every next centroid is the best of
//! `2 + ln(num_clusters)` candidates, drawn with probability proportional to the squared distance to
//! the nearest chosen one (Arthur and Vassilvitskii, 2007): the one that lowers the sum of squared
//! distances most.
//!
//! The distance to the nearest chosen point is kept, so that a step costs one product of all points
//! with the few new candidates instead of with every centroid.

use burn::tensor::Tensor;
use rand::{Rng, RngExt as _};
use rayon::prelude::*;

use crate::{
    error::ClusterError,
    points::{self, PointSet},
};

/// Chooses `num_clusters` of the points as first centroids, by greedy k-means++.
///
/// # Shapes
///
/// - points: `[points, hidden]`
/// - output: `[clusters, hidden]`
///
/// # Errors
///
/// When there are no points, fewer than `num_clusters`, or one is not finite.
pub fn seed_centroids(
    points: &Tensor<2>,
    num_clusters: usize,
    rng: &mut impl Rng,
) -> Result<Tensor<2>, ClusterError> {
    let points = PointSet::new(points)?;
    check_num_clusters(num_clusters, points.num_points())?;
    let rows = points.gather(&seed_rows(&points, num_clusters, rng));
    let rows = points.frame().leave(&rows);
    Ok(points::upload(rows, points.hidden_size(), points.device()))
}

pub(crate) fn check_num_clusters(
    num_clusters: usize,
    num_points: usize,
) -> Result<(), ClusterError> {
    if num_clusters == 0 {
        return Err(ClusterError::ZeroSetting {
            name: "num_clusters",
        });
    }
    if num_clusters > num_points {
        return Err(ClusterError::TooManyClusters {
            num_clusters,
            num_points,
        });
    }
    Ok(())
}

/// Indices of the chosen points; all different.
pub(crate) fn seed_rows(points: &PointSet, num_clusters: usize, rng: &mut impl Rng) -> Vec<usize> {
    let num_points = points.num_points();
    let num_candidates = num_candidates(num_clusters);
    let mut nearest = NearestChosen::new(points);
    nearest.choose(rng.random_range(0..num_points));
    while nearest.chosen.len() < num_clusters {
        match nearest.draw(num_candidates, rng) {
            Draw::Candidates(candidates) => nearest.choose_best(&candidates),
            Draw::AllPointsCovered => nearest.choose_any_unchosen(rng),
        }
    }
    nearest.chosen
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the logarithm of a positive count is small and not negative"
)]
fn num_candidates(num_clusters: usize) -> usize {
    2 + (num_clusters as f64).ln() as usize
}

/// What a draw finds.
enum Draw {
    Candidates(Vec<usize>),
    /// Every point coincides with a chosen one: fewer distinct points than clusters.
    AllPointsCovered,
}

/// Chosen points and, for every point, the squared distance to the nearest of them.
struct NearestChosen<'a> {
    points: &'a PointSet,
    square_norms: Vec<f64>,
    chosen: Vec<usize>,
    square_distances: Vec<f64>,
}

impl<'a> NearestChosen<'a> {
    /// Points per task; fixed, so that sums do not depend on the number of threads.
    const POINTS_PER_TASK: usize = 4096;
    /// A squared distance below this part of `|x|² + |c|²` is rounding, not distance.
    const ROUNDING: f64 = 1e-6;

    fn new(points: &'a PointSet) -> Self {
        Self {
            points,
            square_norms: points.square_norms(),
            chosen: Vec::new(),
            square_distances: vec![f64::INFINITY; points.num_points()],
        }
    }

    /// Independent draws, each point weighted by its squared distance.
    fn draw(&self, num_candidates: usize, rng: &mut impl Rng) -> Draw {
        let mut total = 0.0;
        let cumulative: Vec<f64> = self
            .square_distances
            .iter()
            .map(|distance| {
                total += distance;
                total
            })
            .collect();
        if total <= 0.0 {
            return Draw::AllPointsCovered;
        }
        let candidates = (0..num_candidates)
            .map(|_| {
                let target = rng.random_range(0.0..total);
                // The first sum above the target belongs to a point of positive weight.
                cumulative.partition_point(|&sum| sum <= target)
            })
            .collect();
        Draw::Candidates(candidates)
    }

    fn choose(&mut self, row_idx: usize) {
        self.choose_best(&[row_idx]);
    }

    fn choose_best(&mut self, candidates: &[usize]) {
        let products = self.products(candidates);
        let best = if candidates.len() == 1 {
            0
        } else {
            let sums = self.sums_if_chosen(candidates, &products);
            (0..sums.len())
                .min_by(|&left, &right| sums[left].total_cmp(&sums[right]))
                .expect("there is at least one candidate")
        };
        let width = candidates.len();
        let best_norm = self.square_norms[candidates[best]];
        self.square_distances
            .par_iter_mut()
            .zip(&self.square_norms)
            .zip(products.par_chunks(width))
            .for_each(|((nearest, &norm), row)| {
                *nearest = nearest.min(Self::square_distance(norm, best_norm, row[best]));
            });
        self.square_distances[candidates[best]] = 0.0;
        self.chosen.push(candidates[best]);
    }

    fn choose_any_unchosen(&mut self, rng: &mut impl Rng) {
        let mut is_chosen = vec![false; self.points.num_points()];
        self.chosen
            .iter()
            .for_each(|&row_idx| is_chosen[row_idx] = true);
        let unchosen: Vec<usize> = (0..is_chosen.len())
            .filter(|&row_idx| !is_chosen[row_idx])
            .collect();
        self.chosen
            .push(unchosen[rng.random_range(0..unchosen.len())]);
    }

    /// `[points, candidates]`, row after row.
    fn products(&self, candidates: &[usize]) -> Vec<f32> {
        let rows = self.points.gather(candidates);
        let rows = points::upload(rows, self.points.hidden_size(), self.points.device());
        let products = self.points.tensor().clone().matmul(rows.transpose()); // [points, candidates]
        products
            .into_data()
            .try_into_vec()
            .expect("points are uploaded as f32")
    }

    /// The sum of squared distances that each candidate would leave.
    fn sums_if_chosen(&self, candidates: &[usize], products: &[f32]) -> Vec<f64> {
        let width = candidates.len();
        let norms: Vec<f64> = candidates
            .iter()
            .map(|&row_idx| self.square_norms[row_idx])
            .collect();
        let partial_sums: Vec<Vec<f64>> = self
            .square_distances
            .par_chunks(Self::POINTS_PER_TASK)
            .zip(self.square_norms.par_chunks(Self::POINTS_PER_TASK))
            .zip(products.par_chunks(Self::POINTS_PER_TASK * width))
            .map(|((nearest, square_norms), products)| {
                let mut sums = vec![0.0; width];
                for ((&nearest, &norm), row) in nearest
                    .iter()
                    .zip(square_norms)
                    .zip(products.chunks_exact(width))
                {
                    for ((sum, &candidate_norm), &product) in sums.iter_mut().zip(&norms).zip(row) {
                        *sum += nearest.min(Self::square_distance(norm, candidate_norm, product));
                    }
                }
                sums
            })
            .collect();
        (0..width)
            .map(|candidate_idx| partial_sums.iter().map(|sums| sums[candidate_idx]).sum())
            .collect()
    }

    fn square_distance(point_norm: f64, chosen_norm: f64, product: f32) -> f64 {
        let norms = point_norm + chosen_norm;
        let distance = norms - 2.0 * f64::from(product);
        if distance <= norms * Self::ROUNDING {
            0.0
        } else {
            distance
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use chameleon_core::RunSeed;

    use super::*;

    fn point_set(rows: Vec<f32>, hidden_size: usize) -> PointSet {
        PointSet::new(&points::upload(rows, hidden_size, &Device::flex())).unwrap()
    }

    #[test]
    fn running_distances_equal_those_to_all_chosen_points() {
        let mut rng = RunSeed(5).stream("points");
        let rows = (0..300).map(|_| rng.random_range(-1.0..1.0)).collect();
        let points = point_set(rows, 3);
        let mut nearest = NearestChosen::new(&points);
        for row_idx in [4, 17, 80, 3] {
            nearest.choose(row_idx);
        }
        for row_idx in 0..points.num_points() {
            let exact = nearest
                .chosen
                .iter()
                .map(|&chosen| points::square_distance(points.row(row_idx), points.row(chosen)))
                .fold(f64::INFINITY, f64::min);
            assert!((nearest.square_distances[row_idx] - exact).abs() < 1e-5);
        }
    }

    #[test]
    fn chosen_rows_differ_even_when_the_points_do_not() {
        let points = point_set(vec![0.3; 12], 2);
        let mut rows = seed_rows(&points, 6, &mut RunSeed(1).stream("seeding"));
        rows.sort_unstable();
        assert_eq!(rows, [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn each_far_group_gets_a_centroid() {
        let rows: Vec<f32> = (0..40_u8)
            .map(|idx| f32::from(idx % 4) * 100.0 + f32::from(idx) * 1e-3)
            .collect();
        let points = point_set(rows, 1);
        let rows = seed_rows(&points, 4, &mut RunSeed(2).stream("seeding"));
        let mut groups: Vec<usize> = rows.iter().map(|row_idx| row_idx % 4).collect();
        groups.sort_unstable();
        assert_eq!(groups, [0, 1, 2, 3]);
    }

    #[test]
    fn one_seed_gives_one_start() {
        let rows = (0..200_u8)
            .map(|idx| (f32::from(idx) * 0.61).sin())
            .collect();
        let points = point_set(rows, 2);
        let draw = |seed| seed_rows(&points, 9, &mut RunSeed(seed).stream("seeding"));
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
