//! Adapters for the commands that use one: read for a model, and joined with the search for the nearest centroid.

use std::path::Path;

use chameleon_cluster::CentroidIndex;
use chameleon_models::{
    Adapter, CausalLm, LoadedModel,
    engine::{Grouping, NearestCentroid},
};

use crate::errors::CliError;

/// Reads an adapter for a model, on the model's device.
pub(crate) fn load(folder: &Path, loaded: &LoadedModel) -> Result<Adapter, CliError> {
    let device = loaded.model.head_weight().device();
    Ok(Adapter::load(
        folder,
        &loaded.model,
        &loaded.identity,
        &device,
    )?)
}

/// How an engine finds the group of a prompt: by the nearest of the adapter's centroids.
pub(crate) fn grouping(adapter: &Adapter) -> Result<Box<Grouping>, CliError> {
    let centroids = CentroidIndex::new(&adapter.centroids)?;
    Ok(Box::new(move |embedding| {
        let nearest = centroids.nearest(embedding)?;
        Ok(NearestCentroid {
            cluster_idx: nearest.assignments[0],
            distance: nearest.distances[0],
        })
    }))
}
