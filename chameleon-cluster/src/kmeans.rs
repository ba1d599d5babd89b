//! K-means: points in, centroids and assignments out. Owns the configuration, the restarts and the
//! result; the steps are in `lloyd.rs`, the start in `init.rs`, new points in `assign.rs`.

use burn::{config::Config, tensor::Tensor};
use chameleon_core::RunSeed;
use serde::{Deserialize, Serialize};

use crate::{
    assign::CentroidIndex,
    error::ClusterError,
    init::{self, Seeding},
    linfa_engine, lloyd,
    lloyd::LloydRun,
    points::{self, PointSet},
};

/// Who computes Lloyd's steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Engine {
    /// Ours, by matrix products on the device of the points.
    MatrixProducts,
    /// linfa in f64 on the processor: slow, independent, the one that must agree.
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
    /// Who computes the steps.
    #[config(default = "Engine::MatrixProducts")]
    pub engine: Engine,
    /// How the first centroids are chosen.
    #[config(default = "Seeding::GreedyPlusPlus")]
    pub seeding: Seeding,
    /// Lloyd's steps after which to stop, converged or not.
    #[config(default = 100)]
    pub max_iterations: usize,
    /// Stop when the summed squared movement of all centroids is at most this times the mean
    /// variance of a coordinate. 0 waits until no assignment changes.
    #[config(default = 1e-4)]
    pub tolerance: f64,
    /// Runs from different starts, of which the one with the lowest inertia is kept.
    #[config(default = 1)]
    pub num_restarts: usize,
    /// Points compared with all centroids at a time: memory is `chunk_rows * num_clusters` scores.
    #[config(default = "crate::assign::DEFAULT_CHUNK_ROWS")]
    pub chunk_rows: usize,
}

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
    /// Groups points, starting as [`seeding`](Self::seeding) says.
    ///
    /// Restart `i` draws from the stream `kmeans/i` of the seed, so the first restarts of a longer
    /// series are the same runs. Points are copied to the host once, for means and distances in
    /// f64; products run on the device.
    ///
    /// # Shapes
    ///
    /// - points: `[points, hidden]`
    ///
    /// # Errors
    ///
    /// When a setting is zero or the tolerance is no bound, when there are no points, fewer than
    /// clusters, or one is not finite.
    pub fn fit(&self, points: &Tensor<2>, seed: RunSeed) -> Result<KMeans, ClusterError> {
        self.check()?;
        let points = PointSet::new(points)?;
        init::check_num_clusters(self.num_clusters, points.num_points())?;
        let run = |restart_idx: usize| {
            let mut rng = seed.stream(&format!("kmeans/{restart_idx}"));
            let rows = init::seed_rows(&points, self.num_clusters, self.seeding, &mut rng);
            self.run(&points, points.gather(&rows))
        };
        let mut best = run(0)?;
        for restart_idx in 1..self.num_restarts {
            let found = run(restart_idx)?;
            if found.inertia < best.inertia {
                best = found;
            }
        }
        Ok(best)
    }

    /// Groups points, starting from given centroids; seeding and restarts do not apply.
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
            ("num_restarts", self.num_restarts),
            ("chunk_rows", self.chunk_rows),
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
        let LloydRun {
            centroids,
            assignments,
            num_iterations,
            convergence,
        } = match self.engine {
            Engine::MatrixProducts => lloyd::run(points, start, self),
            Engine::Linfa => linfa_engine::run(points, start, self)?,
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
