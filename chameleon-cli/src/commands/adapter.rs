//! Adapters for the commands that use one: read for a model, and joined with the search for the nearest centroid.

use std::path::Path;

use chameleon_cluster::CentroidIndex;
use chameleon_models::{
    Adapter, AdapterError, CausalLm, LoadedModel, MemoryConfig,
    engine::{Grouping, NearestCentroid},
};

use crate::{errors::CliError, resolve::MemoryUse};

/// Reads an adapter for a model, on the model's device.
pub(crate) fn load(
    folder: &Path,
    loaded: &LoadedModel,
    memory: MemoryUse,
) -> Result<Adapter, AdapterError> {
    let device = loaded.model.head_weight().device();
    let adapter = Adapter::load(folder, &loaded.model, &loaded.identity, &device)?;
    Ok(match memory {
        MemoryUse::Used => adapter,
        MemoryUse::LeftOut => adapter.without_memory(),
    })
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

/// What a memory holds, for a person to read.
pub(crate) fn memory_size(config: &MemoryConfig, num_entries: usize) -> String {
    format!(
        "{num_entries} tokens by keys of {} values from the states that enter layer {}, {:.1} MiB",
        config.key_size,
        config.layer_idx,
        config.num_bytes(num_entries) as f64 / f64::from(1 << 20),
    )
}
