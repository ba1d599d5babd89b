#![doc = include_str!("../README.md")]

mod assign;
mod cpu;
mod error;
mod init;
mod kmeans;
mod lloyd;
mod pca;
mod plan;
mod points;
mod quality;

pub use assign::{CentroidIndex, NearestCentroids, assign};
pub use error::ClusterError;
pub use init::seed_centroids;
pub use kmeans::{Engine, KMeans, KMeansConfig};
pub use lloyd::Convergence;
pub use pca::{PrincipalComponents, principal_components};
pub use plan::{BatchPlan, PlannedBatch, plan};
pub use quality::{
    LabelAgreement, SilhouetteSample, SizeSummary, cluster_sizes, inertia, label_agreement,
    silhouette,
};
