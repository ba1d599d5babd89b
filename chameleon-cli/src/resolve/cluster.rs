//! The checked config of `chameleon cluster`.

use chameleon_cluster::Engine;
use chameleon_models::adapter::PromptEncoding;
use chameleon_models::training::{SpanConfig, TextSource};

use super::data::{data, encoding, span};
use crate::{args::ClusterArgs, errors::FlagError};

/// `chameleon cluster`
#[derive(Debug)]
pub(crate) struct ClusterConfig {
    pub(crate) model: String,
    pub(crate) data: TextSource,
    pub(crate) num_clusters: usize,
    pub(crate) span: SpanConfig,
    pub(crate) encoding: PromptEncoding,
    pub(crate) engine: Engine,
    pub(crate) max_iterations: usize,
    pub(crate) num_nearest: usize,
}

pub(super) fn cluster(args: ClusterArgs) -> Result<ClusterConfig, FlagError> {
    Ok(ClusterConfig {
        model: args.model.model,
        data: data(args.data),
        num_clusters: args.clusters,
        span: span(&args.span)?,
        encoding: encoding(&args.prompts),
        engine: args.engine,
        max_iterations: args.max_iterations,
        num_nearest: args.nearest,
    })
}
