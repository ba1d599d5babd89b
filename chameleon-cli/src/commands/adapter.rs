//! Adapters for the commands that use one.

use std::path::Path;

use chameleon_models::{Adapter, AdapterError, CausalLm, LoadedModel};

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
