//! Why points could not be grouped. Owns the crate's one error type.

use std::error::Error;

/// What can be wrong with a request to group points.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// There is nothing to group.
    #[error("points have shape {shape:?}, expected at least one row and one column")]
    NoPoints {
        /// `[points, hidden]` as found.
        shape: [usize; 2],
    },
    /// There is nothing to assign points to.
    #[error("centroids have shape {shape:?}, expected at least one row and one column")]
    NoCentroids {
        /// `[clusters, hidden]` as found.
        shape: [usize; 2],
    },
    /// More clusters than points: some would have to be empty.
    #[error("num_clusters is {num_clusters}, expected at most the number of points, {num_points}")]
    TooManyClusters {
        /// Requested clusters.
        num_clusters: usize,
        /// Points there are.
        num_points: usize,
    },
    /// The start has another number of centroids than the configuration.
    #[error("the start has {found} centroids, num_clusters is {expected}")]
    WrongStart {
        /// Rows of the start.
        found: usize,
        /// Requested clusters.
        expected: usize,
    },
    /// A setting that has to be at least one.
    #[error("{name} is 0, expected at least 1")]
    ZeroSetting {
        /// The field.
        name: &'static str,
    },
    /// A tolerance that no movement can be compared with.
    #[error("tolerance is {found}, expected a finite number of at least 0")]
    InvalidTolerance {
        /// The value.
        found: f64,
    },
    /// A point with a NaN or an infinity in it.
    #[error("point {row_idx} is not finite: column {column_idx} holds {value}")]
    NonFinitePoint {
        /// The first such row.
        row_idx: usize,
        /// Its first such column.
        column_idx: usize,
        /// The value.
        value: f32,
    },
    /// A centroid with a NaN or an infinity in it.
    #[error("centroid {cluster_idx} is not finite: column {column_idx} holds {value}")]
    NonFiniteCentroid {
        /// The first such row.
        cluster_idx: usize,
        /// Its first such column.
        column_idx: usize,
        /// The value.
        value: f32,
    },
    /// Points and centroids live in spaces of different width.
    #[error("points have hidden size {found}, the centroids have {expected}")]
    HiddenSizeMismatch {
        /// Width of the points.
        found: usize,
        /// Width of the centroids.
        expected: usize,
    },
    /// Two lists that describe the same rows differ in length.
    #[error("{name} has {found} entries, expected one for each of {expected} rows")]
    LengthMismatch {
        /// The list.
        name: &'static str,
        /// Its length.
        found: usize,
        /// The number of rows.
        expected: usize,
    },
    /// An assignment to a cluster that does not exist.
    #[error(
        "row {row_idx} is assigned to cluster {found}, expected one of {num_clusters} clusters"
    )]
    AssignmentOutOfRange {
        /// The first such row.
        row_idx: usize,
        /// Its cluster.
        found: usize,
        /// Clusters there are.
        num_clusters: usize,
    },
    /// More components than a point has coordinates, or none.
    #[error("num_components is {found}, expected 1 up to the hidden size, {hidden_size}")]
    NumComponents {
        /// Requested components.
        found: usize,
        /// Width of the points.
        hidden_size: usize,
    },
    /// Coordinates so large that their squares are not finite.
    #[error("the variance of the points overflows single precision")]
    VarianceOverflow,
    /// A silhouette compares clusters, and there is one.
    #[error("all points are in one cluster, expected at least two")]
    SingleCluster,
    /// The reference engine failed.
    #[error("linfa failed in a k-means step")]
    Linfa {
        /// Its reason.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}
