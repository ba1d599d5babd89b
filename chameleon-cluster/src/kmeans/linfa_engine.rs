//! linfa's k-means as a second engine: slow, in f64, with distances that are not products. It is the
//! reference that ours must agree with.
//!
//! linfa is called for one step at a time because it counts each old centroid as one more member of
//! its cluster (against empty clusters), so that its steps are shorter than Lloyd's. The extra
//! member is taken out again here, which gives Lloyd's own sequence, step by step. Empty
//! clusters stay where they are: linfa has no rule for refilling them.
//!
//! linfa returns sizes and means but not the assignments of a step, so those of the final centroids
//! are looked up by our products.

use linfa::{DatasetBase, traits::Fit as _};
use linfa_clustering::{KMeans as LinfaKMeans, KMeansInit};
use ndarray::Array2;

use crate::{
    assign::CentroidScorer,
    error::ClusterError,
    lloyd::{Convergence, Limits, LloydRun, StillBelow},
    points::{self, PointSet},
};

/// Lloyd's steps as [`crate::lloyd::run`] takes them, computed by linfa.
pub(crate) fn run(
    points: &PointSet,
    start: Vec<f32>,
    limits: Limits,
) -> Result<LloydRun, ClusterError> {
    let dataset = DatasetBase::from(widen(points.rows(), points.hidden_size()));
    let still = StillBelow::new(points, limits.tolerance);
    let mut centroids = start;
    let mut num_iterations = 0;
    let convergence = loop {
        if num_iterations == limits.max_iterations {
            break Convergence::IterationLimit;
        }
        num_iterations += 1;
        let moved = step(&dataset, &widen(&centroids, points.hidden_size()))?;
        let has_settled = centroids
            .iter()
            .zip(&moved)
            .all(|(old, new)| (old - new).abs() <= f32::EPSILON);
        let is_still = still.holds(&centroids, &moved);
        centroids = moved;
        if has_settled {
            break Convergence::Settled;
        }
        if is_still {
            break Convergence::WithinTolerance;
        }
    };
    let scorer = CentroidScorer::new(&centroids, points.hidden_size(), points.device());
    Ok(LloydRun {
        assignments: scorer.nearest(points),
        centroids,
        num_iterations,
        convergence,
    })
}

/// One step of linfa, with the old centroid taken out of each mean.
fn step(
    dataset: &DatasetBase<Array2<f64>, ndarray::Array1<()>>,
    centroids: &Array2<f64>,
) -> Result<Vec<f32>, ClusterError> {
    let model = LinfaKMeans::params(centroids.nrows())
        .init_method(KMeansInit::Precomputed(centroids.clone()))
        .n_runs(1)
        .max_n_iterations(1)
        .fit(dataset)
        .map_err(|error| ClusterError::Linfa {
            source: Box::new(error),
        })?;
    let sizes = model.cluster_count();
    let moved = model
        .centroids()
        .indexed_iter()
        .map(|((cluster_idx, column_idx), &shortened)| {
            let size = sizes[cluster_idx];
            let old = centroids[[cluster_idx, column_idx]];
            if size > 0.0 {
                (shortened * (size + 1.0) - old) / size
            } else {
                old
            }
        });
    Ok(moved.map(points::narrow).collect())
}

fn widen(rows: &[f32], hidden_size: usize) -> Array2<f64> {
    let shape = (rows.len() / hidden_size, hidden_size);
    Array2::from_shape_vec(shape, rows.iter().copied().map(f64::from).collect())
        .expect("rows are whole")
}
