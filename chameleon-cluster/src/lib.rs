#![doc = include_str!("../README.md")]

mod assign;
mod error;
mod init;
mod kmeans;
mod linfa_engine;
mod lloyd;
mod plan;
mod points;
mod processor;
mod quality;

pub use assign::{CentroidIndex, DEFAULT_CHUNK_ROWS, NearestCentroids, assign};
pub use error::ClusterError;
pub use init::{Seeding, seed_centroids};
pub use kmeans::{Convergence, Engine, KMeans, KMeansConfig};
pub use plan::{BatchLimits, BatchPlan, PlannedBatch, TokenLimit, plan};
pub use quality::{
    LabelAgreement, SilhouetteSample, SizeSummary, cluster_sizes, inertia, label_agreement,
    silhouette,
};
