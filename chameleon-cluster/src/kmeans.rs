//! K-means: points in, centroids and assignments out. Owns the configuration and the result; the
//! steps are in `lloyd.rs`, the start in `init.rs`, new points in `assign.rs`.

#[cfg(feature = "linfa")]
mod linfa_engine;

use burn::{config::Config, tensor::Tensor};
use chameleon_core::RunSeed;
use serde::{Deserialize, Serialize};

use crate::{
    assign::CentroidIndex,
    error::ClusterError,
    init,
    lloyd::{self, Convergence, Limits, LloydRun},
    points::{self, PointSet},
};

/// What computes Lloyd's steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Engine {
    /// Matrix products on the device of the points.
    MatrixProducts,
    /// linfa in f64 on the CPU: slow, independent, the reference that must agree. Needs the crate's feature `linfa`.
    #[cfg(feature = "linfa")]
    Linfa,
}

/// How to group points. Only the number of clusters has no default.
///
/// Points are used as they are. Prompt embeddings arrive with unit norm, which makes the squared
/// distance `2 - 2 cos`; a caller who wants that for other points normalises them first.
#[derive(Config, Debug)]
pub struct KMeansConfig {
    /// Number of clusters, at most the number of points.
    pub num_clusters: usize,
    /// What computes the steps.
    #[config(default = "Engine::MatrixProducts")]
    pub engine: Engine,
    /// Lloyd's steps after which to stop, converged or not.
    #[config(default = 100)]
    pub max_iterations: usize,
    /// Stop when the summed squared movement of all centroids is at most this times the mean
    /// variance of a coordinate. 0 waits until no assignment changes.
    #[config(default = 1e-4)]
    pub tolerance: f64,
}

/// Groups of points: all of it from one run.
#[derive(Debug, Clone)]
pub struct KMeans {
    /// `[clusters, hidden]`, on the device of the points, without autodiff.
    pub centroids: Tensor<2>,
    /// Index of the nearest centroid of every point.
    pub assignments: Vec<usize>,
    /// Sum of squared distances of the points to their centroids.
    pub inertia: f64,
    /// Lloyd's steps taken.
    pub num_iterations: usize,
    /// Why it stopped there.
    pub convergence: Convergence,
}

impl KMeansConfig {
    /// Groups points, starting from greedy k-means++ with the stream `kmeans/0` of the seed. Points are copied to the host once, for means and distances in
    /// f64; products run on the device.
    ///
    /// # Shapes
    ///
    /// - points: `[points, hidden]`
    ///
    /// # Errors
    ///
    /// When a setting is zero or the tolerance is not a valid bound, when there are no points, fewer than
    /// clusters, or one is not finite.
    pub fn fit(&self, points: &Tensor<2>, seed: RunSeed) -> Result<KMeans, ClusterError> {
        self.check()?;
        let points = PointSet::new(points)?;
        init::check_num_clusters(self.num_clusters, points.num_points())?;
        let mut rng = seed.stream("kmeans/0");
        let rows = init::seed_rows(&points, self.num_clusters, &mut rng);
        self.run(&points, points.gather(&rows))
    }

    /// Groups points, starting from given centroids.
    ///
    /// # Shapes
    ///
    /// - points: `[points, hidden]`
    /// - start: `[clusters, hidden]`
    ///
    /// # Errors
    ///
    /// As [`fit`](Self::fit), and when the start is not `num_clusters` finite rows of that width.
    pub fn fit_from(&self, points: &Tensor<2>, start: &Tensor<2>) -> Result<KMeans, ClusterError> {
        self.check()?;
        let start_rows = points::read_centroids(start)?;
        let points = PointSet::new(points)?;
        init::check_num_clusters(self.num_clusters, points.num_points())?;
        let [num_rows, hidden_size] = start.dims();
        if hidden_size != points.hidden_size() {
            return Err(ClusterError::HiddenSizeMismatch {
                found: points.hidden_size(),
                expected: hidden_size,
            });
        }
        if num_rows != self.num_clusters {
            return Err(ClusterError::WrongStart {
                found: num_rows,
                expected: self.num_clusters,
            });
        }
        self.run(&points, points.frame().enter(start_rows))
    }

    fn check(&self) -> Result<(), ClusterError> {
        let settings = [
            ("num_clusters", self.num_clusters),
            ("max_iterations", self.max_iterations),
        ];
        if let Some(&(name, _)) = settings.iter().find(|(_, value)| *value == 0) {
            return Err(ClusterError::ZeroSetting { name });
        }
        if !(self.tolerance.is_finite() && self.tolerance >= 0.0) {
            return Err(ClusterError::InvalidTolerance {
                found: self.tolerance,
            });
        }
        Ok(())
    }

    fn run(&self, points: &PointSet, start: Vec<f32>) -> Result<KMeans, ClusterError> {
        let limits = Limits {
            max_iterations: self.max_iterations,
            tolerance: self.tolerance,
        };
        let LloydRun {
            centroids,
            assignments,
            num_iterations,
            convergence,
        } = match self.engine {
            Engine::MatrixProducts => lloyd::run(points, start, limits),
            #[cfg(feature = "linfa")]
            Engine::Linfa => linfa_engine::run(points, start, limits)?,
        };
        let inertia = points
            .square_distances(&centroids, &assignments)
            .iter()
            .sum();
        let frame = points.frame();
        Ok(KMeans {
            centroids: points::upload(
                frame.leave(&centroids),
                points.hidden_size(),
                points.device(),
            ),
            assignments,
            inertia: frame.square_distance(inertia),
            num_iterations,
            convergence,
        })
    }
}

impl KMeans {
    /// Number of clusters.
    pub fn num_clusters(&self) -> usize {
        self.centroids.dims()[0]
    }

    /// The centroids prepared for assigning unseen points.
    ///
    /// # Errors
    ///
    /// When the centroids were replaced by ones that are not finite.
    pub fn index(&self) -> Result<CentroidIndex, ClusterError> {
        CentroidIndex::new(&self.centroids)
    }
}
