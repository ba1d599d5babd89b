//! Which centroid is nearest, for points seen in training and for new ones. Owns the distance
//! products; does not move centroids.

use burn::tensor::{Device, Int, Tensor, assert_shape};

use crate::{
    cpu::PackedCentroids,
    error::ClusterError,
    points::{self, Frame, PointSet},
};

/// Points compared with all centroids at a time: memory on a device is this many scores for each cluster.
pub(crate) const CHUNK_ROWS: usize = 1024;

/// The nearest centroid of every point.
#[derive(Debug, Clone, PartialEq)]
pub struct NearestCentroids {
    /// Cluster index of every point; the lowest of several equally near.
    pub assignments: Vec<usize>,
    /// Euclidean distance of every point to that centroid.
    pub distances: Vec<f32>,
}

/// Centroids prepared once for many look-ups: what a server keeps.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use chameleon_cluster::CentroidIndex;
///
/// let device = Device::flex();
/// let centroids = Tensor::<2>::from_data([[0.0, 1.0], [1.0, 0.0]], &device);
/// let index = CentroidIndex::new(&centroids)?;
///
/// let unseen = Tensor::<2>::from_data([[0.8, 0.6]], &device);
/// assert_eq!(index.nearest(&unseen)?.assignments, [1]);
/// # Ok::<(), chameleon_cluster::ClusterError>(())
/// ```
#[derive(Debug, Clone)]
pub struct CentroidIndex {
    /// `[clusters, hidden]`, row after row, in `frame`.
    rows: Vec<f32>,
    frame: Frame,
    scorer: CentroidScorer,
}

impl CentroidIndex {
    /// Checks and prepares centroids; look-ups run on their device.
    ///
    /// # Shapes
    ///
    /// - centroids: `[clusters, hidden]`
    ///
    /// # Errors
    ///
    /// When there is no centroid or one is not finite.
    pub fn new(centroids: &Tensor<2>) -> Result<Self, ClusterError> {
        let rows = points::read_centroids(centroids)?;
        let frame = Frame::around(&rows, centroids.dims()[1]);
        let rows = frame.enter(rows);
        let scorer = CentroidScorer::new(&rows, frame.hidden_size(), &centroids.device());
        Ok(Self {
            rows,
            frame,
            scorer,
        })
    }

    /// Number of centroids.
    pub fn num_clusters(&self) -> usize {
        self.rows.len() / self.hidden_size()
    }

    /// Width of points and centroids.
    pub fn hidden_size(&self) -> usize {
        self.frame.hidden_size()
    }

    /// The nearest centroid of each point.
    ///
    /// # Shapes
    ///
    /// - points: `[points, hidden]`
    ///
    /// # Errors
    ///
    /// When there is no point, one is not finite, or the width is not that of the centroids.
    pub fn nearest(&self, points: &Tensor<2>) -> Result<NearestCentroids, ClusterError> {
        let points = PointSet::entering(points, &self.frame)?;
        let assignments = self.scorer.nearest(&points);
        let distances = points
            .square_distances(&self.rows, &assignments)
            .into_iter()
            .map(|ours| points::narrow(self.frame.square_distance(ours).sqrt()))
            .collect();
        Ok(NearestCentroids {
            assignments,
            distances,
        })
    }
}

/// The nearest centroid of each point. For repeated look-ups keep a [`CentroidIndex`].
///
/// # Shapes
///
/// - points: `[points, hidden]`
/// - centroids: `[clusters, hidden]`
///
/// # Errors
///
/// When either is empty or not finite, or their widths differ.
pub fn assign(points: &Tensor<2>, centroids: &Tensor<2>) -> Result<NearestCentroids, ClusterError> {
    CentroidIndex::new(centroids)?.nearest(points)
}

/// Centroids laid out for comparison with points.
#[derive(Debug, Clone)]
pub(crate) enum CentroidScorer {
    /// By the CPU kernel.
    Cpu(PackedCentroids),
    /// By Burn's matrix products, on any device.
    Device(Box<DeviceCentroids>),
}

impl CentroidScorer {
    /// From rows in the frame of the points they will be compared with.
    pub(crate) fn new(rows: &[f32], hidden_size: usize, device: &Device) -> Self {
        if chameleon_core::device::is_flex(device) {
            Self::Cpu(PackedCentroids::new(rows, hidden_size))
        } else {
            Self::Device(Box::new(DeviceCentroids::new(rows, hidden_size, device)))
        }
    }

    /// Nearest centroid of each point, the lowest index of several equally near.
    pub(crate) fn nearest(&self, points: &PointSet) -> Vec<usize> {
        match self {
            Self::Cpu(centroids) => centroids.nearest(points.rows()),
            Self::Device(centroids) => centroids.nearest(points.tensor(), CHUNK_ROWS),
        }
    }
}

/// Centroids laid out for the product with a chunk of points.
#[derive(Debug, Clone)]
pub(crate) struct DeviceCentroids {
    /// `-2c`: `[hidden, clusters]`
    doubled: Tensor<2>,
    /// `|c|²`: `[1, clusters]`
    square_norms: Tensor<2>,
}

impl DeviceCentroids {
    fn new(rows: &[f32], hidden_size: usize, device: &Device) -> Self {
        let square_norms = points::narrow_square_norms(rows, hidden_size);
        let doubled = rows.iter().map(|value| -2.0 * value).collect();
        let num_clusters = square_norms.len();
        Self {
            doubled: points::upload(doubled, hidden_size, device).transpose(), // [hidden, clusters]
            square_norms: points::upload(square_norms, num_clusters, device),
        }
    }

    /// Nearest centroid of each row of `points: [points, hidden]`.
    ///
    /// `|x|²` is the same for all centroids and left out; at most `[chunk_rows, clusters]` scores
    /// exist at a time.
    fn nearest(&self, points: &Tensor<2>, chunk_rows: usize) -> Vec<usize> {
        let [num_points, hidden_size] = points.dims();
        assert_shape!(self.doubled, [hidden_size, _]);
        let chunks: Vec<Tensor<1, Int>> = (0..num_points)
            .step_by(chunk_rows)
            .map(|start| {
                let end = num_points.min(start + chunk_rows);
                let chunk = points.clone().narrow(0, start, end - start);
                let scores = chunk.matmul(self.doubled.clone()) + self.square_norms.clone(); // [chunk, clusters]
                scores.argmin(1).squeeze_dim(1) // [chunk]
            })
            .collect();
        Tensor::cat(chunks, 0)
            .into_data()
            .iter::<i64>()
            .map(|cluster_idx| usize::try_from(cluster_idx).expect("an argmin is not negative"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use chameleon_core::RunSeed;
    use rand::RngExt as _;

    use super::*;

    fn tensor<const N: usize>(rows: [[f32; 2]; N]) -> Tensor<2> {
        Tensor::from_data(rows, &Device::flex())
    }

    #[test]
    fn distances_are_euclidean() {
        let nearest = assign(
            &tensor([[3.0, 4.0], [10.0, 0.0]]),
            &tensor([[0.0, 0.0], [10.0, 1.0]]),
        )
        .unwrap();
        assert_eq!(nearest.assignments, [0, 1]);
        assert_eq!(nearest.distances, [5.0, 1.0]);
    }

    #[test]
    fn of_equal_centroids_the_first_wins() {
        let nearest = assign(
            &tensor([[1.0, 1.0]]),
            &tensor([[0.0, 1.0], [2.0, 1.0], [0.0, 1.0]]),
        );
        assert_eq!(nearest.unwrap().assignments, [0]);
    }

    #[test]
    fn a_large_common_offset_does_not_blur_small_distances() {
        let offset = 10_000.0;
        let nearest = assign(
            &tensor([[offset + 0.25, offset], [offset + 0.75, offset]]),
            &tensor([[offset, offset], [offset + 1.0, offset]]),
        )
        .unwrap();
        assert_eq!(nearest.assignments, [0, 1]);
        assert_eq!(nearest.distances, [0.25, 0.25]);
    }

    #[test]
    fn chunks_change_nothing() {
        let rows: Vec<f32> = (0..26_u8).map(|idx| f32::from(idx) * 0.37 % 1.0).collect();
        let points = points::upload(rows.clone(), 2, &Device::flex());
        let scorer = DeviceCentroids::new(&rows[..8], 2, &Device::flex());
        let whole = scorer.nearest(&points, 100);
        assert_eq!(whole.len(), 13);
        for chunk_rows in [1, 2, 5, 13] {
            assert_eq!(scorer.nearest(&points, chunk_rows), whole);
        }
    }

    #[test]
    fn the_cpu_kernel_finds_what_products_find() {
        let mut rng = RunSeed(11).stream("points");
        for (num_points, hidden_size, num_clusters) in
            [(1, 1, 1), (5, 3, 2), (700, 17, 33), (61, 300, 400)]
        {
            let mut random = |num_rows: usize| -> Vec<f32> {
                (0..num_rows * hidden_size)
                    .map(|_| rng.random_range(-1.0..1.0))
                    .collect()
            };
            let (points, centroids) = (random(num_points), random(num_clusters));
            let on_device = DeviceCentroids::new(&centroids, hidden_size, &Device::flex()).nearest(
                &points::upload(points.clone(), hidden_size, &Device::flex()),
                64,
            );
            let on_cpu = PackedCentroids::new(&centroids, hidden_size).nearest(&points);
            assert_eq!(on_cpu, on_device);
        }
    }
}
