//! Lloyd's steps by matrix products, from a start to convergence. Owns means, empty clusters and
//! the rule for stopping; does not choose the start.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    assign::CentroidScorer,
    points::{self, PointSet},
};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Convergence {
    /// No assignment changed: the centroids are the means of their points.
    Settled,
    /// The centroids moved less than the tolerance.
    WithinTolerance,
    /// The last allowed step was taken.
    IterationLimit,
}

/// When a run stops at the latest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) max_iterations: usize,
    pub(crate) tolerance: f64,
}

/// Where a run of Lloyd's steps ended, in the frame of its points.
pub(crate) struct LloydRun {
    /// `[clusters, hidden]`, row after row.
    pub(crate) centroids: Vec<f32>,
    /// The nearest of `centroids` for every point.
    pub(crate) assignments: Vec<usize>,
    pub(crate) num_iterations: usize,
    pub(crate) convergence: Convergence,
}

/// Alternates assignment and means until nothing changes, little moves, or the limit is reached.
pub(crate) fn run(points: &PointSet, start: Vec<f32>, limits: Limits) -> LloydRun {
    let nearest = |centroids: &[f32]| {
        CentroidScorer::new(centroids, points.hidden_size(), points.device()).nearest(points)
    };
    let still = StillBelow::new(points, limits.tolerance);
    let mut centroids = start;
    let mut previous = Vec::new();
    for num_iterations in 1..=limits.max_iterations {
        let mut assignments = nearest(&centroids);
        if assignments == previous {
            return LloydRun {
                centroids,
                assignments,
                num_iterations,
                convergence: Convergence::Settled,
            };
        }
        fill_empty_clusters(points, &centroids, &mut assignments);
        let moved = means(points, &centroids, &assignments);
        let is_still = still.holds(&centroids, &moved);
        centroids = moved;
        previous = assignments;
        if is_still {
            return LloydRun {
                assignments: nearest(&centroids),
                centroids,
                num_iterations,
                convergence: Convergence::WithinTolerance,
            };
        }
    }
    LloydRun {
        assignments: nearest(&centroids),
        centroids,
        num_iterations: limits.max_iterations,
        convergence: Convergence::IterationLimit,
    }
}

/// The rule for `WithinTolerance`: the summed squared movement of all centroids is at most the
/// tolerance times the mean variance of a coordinate, as in scikit-learn.
pub(crate) struct StillBelow {
    square_movement: f64,
}

impl StillBelow {
    pub(crate) fn new(points: &PointSet, tolerance: f64) -> Self {
        // Points are centred, so the mean of the squares is the variance.
        let square_sum: f64 = points.square_norms().iter().sum();
        Self {
            square_movement: tolerance * square_sum / points.rows().len() as f64,
        }
    }

    pub(crate) fn holds(&self, before: &[f32], after: &[f32]) -> bool {
        points::square_distance(before, after) <= self.square_movement
    }
}

/// Assigns each empty cluster the point farthest from its own centroid. A cluster is never emptied
/// for another, and a point at its centroid stays: with fewer distinct points than
/// clusters, some remain empty.
fn fill_empty_clusters(points: &PointSet, centroids: &[f32], assignments: &mut [usize]) {
    let mut sizes = cluster_sizes(assignments, centroids.len() / points.hidden_size());
    let mut empty: Vec<usize> = (0..sizes.len())
        .filter(|&cluster_idx| sizes[cluster_idx] == 0)
        .rev()
        .collect();
    if empty.is_empty() {
        return;
    }
    let square_distances = points.square_distances(centroids, assignments);
    let mut farthest: Vec<usize> = (0..assignments.len())
        .filter(|&row_idx| square_distances[row_idx] > 0.0)
        .collect();
    farthest.sort_by(|&left, &right| square_distances[right].total_cmp(&square_distances[left]));
    for row_idx in farthest {
        let Some(&cluster_idx) = empty.last() else {
            return;
        };
        if sizes[assignments[row_idx]] > 1 {
            sizes[assignments[row_idx]] -= 1;
            assignments[row_idx] = cluster_idx;
            empty.pop();
        }
    }
}

/// The mean of every cluster, summed in f64; an empty cluster stays where it was.
fn means(points: &PointSet, centroids: &[f32], assignments: &[usize]) -> Vec<f32> {
    let hidden_size = points.hidden_size();
    let num_clusters = centroids.len() / hidden_size;
    let mut members = vec![Vec::new(); num_clusters];
    for (row_idx, &cluster_idx) in assignments.iter().enumerate() {
        members[cluster_idx].push(row_idx);
    }
    let mut moved = centroids.to_vec();
    moved
        .par_chunks_mut(hidden_size)
        .zip(&members)
        .filter(|(_, members)| !members.is_empty())
        .for_each(|(centroid, members)| {
            let mut sum = vec![0.0; hidden_size];
            for &row_idx in members {
                points::add_row(&mut sum, points.row(row_idx));
            }
            for (value, sum) in centroid.iter_mut().zip(sum) {
                *value = points::narrow(sum / members.len() as f64);
            }
        });
    moved
}

fn cluster_sizes(assignments: &[usize], num_clusters: usize) -> Vec<usize> {
    let mut sizes = vec![0; num_clusters];
    for &cluster_idx in assignments {
        sizes[cluster_idx] += 1;
    }
    sizes
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn point_set(rows: &[f32]) -> PointSet {
        PointSet::new(&points::upload(rows.to_vec(), 1, &Device::flex())).unwrap()
    }

    #[test]
    fn an_empty_cluster_takes_the_farthest_point() {
        // The mean of these is 0 and the largest is 8, so the frame's scale is 8.
        let points = point_set(&[-4.0, -3.0, -1.0, 8.0]);
        let mut assignments = vec![0; 4];
        fill_empty_clusters(&points, &[-0.25, 5.0], &mut assignments);
        assert_eq!(assignments, [0, 0, 0, 1]);
    }

    #[test]
    fn no_cluster_is_emptied_for_another() {
        let points = point_set(&[-1.0, 1.0]);
        let mut assignments = vec![0, 1];
        fill_empty_clusters(&points, &[-0.5, 0.5, 9.0], &mut assignments);
        assert_eq!(assignments, [0, 1]);
    }

    #[test]
    fn means_of_members_and_old_places_of_empty_clusters() {
        let points = point_set(&[-2.0, -1.0, 1.0, 2.0]);
        let moved = means(&points, &[0.0, 0.0, 7.0], &[0, 0, 1, 1]);
        assert_eq!(moved, [-0.75, 0.75, 7.0]);
    }
}
