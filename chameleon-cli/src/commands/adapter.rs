//! Adapters for the commands that use one.

use std::path::Path;

use chameleon_models::adapter::{Adapter, AdapterError, MemoryConfig};
use chameleon_models::{CausalLm, LoadedModel};

use crate::resolve::MemoryUse;

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

/// The size of a memory, as text.
pub(crate) fn memory_size(config: &MemoryConfig, num_entries: usize) -> String {
    format!(
        "{num_entries} tokens by keys of {} values from the states that enter layer {}, {:.1} MiB",
        config.key_size,
        config.layer_idx,
        config.num_bytes(num_entries) as f64 / f64::from(1 << 20),
    )
}
