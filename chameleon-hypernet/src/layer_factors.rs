//! Changes of linear modules inside transformer layers, for one batch.
//!
//! [`LayerFactors`] are an argument of the forward pass: each linear module adds its own changes to its output, and
//! tokens attend to the context of the batch, if it has one.
//! Training and the generation of cores are defined by `layers.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use chameleon_core::{AttentionContext, ModuleChange};

/// The changes of all adapted modules, for the rows of one batch.
///
/// A module may have several changes: rows of a batch may belong to different adapters.
#[derive(Debug, Clone, Default)]
pub struct LayerFactors {
    by_layer: BTreeMap<usize, Vec<(String, Vec<ModuleChange>)>>,
    context: Option<Arc<AttentionContext>>,
}

impl LayerFactors {
    /// No changes.
    pub const fn none() -> Self {
        Self {
            by_layer: BTreeMap::new(),
            context: None,
        }
    }

    /// The same with a context that every row of the batch attends to.
    #[must_use]
    pub fn with_context(mut self, context: Option<Arc<AttentionContext>>) -> Self {
        self.context = context;
        self
    }

    /// What every row of the batch attends to beside its own tokens.
    pub fn context(&self) -> Option<&AttentionContext> {
        self.context.as_deref()
    }

    /// Adds a change of the module `path`, such as `self_attn.q_proj`, of one layer.
    pub fn push(&mut self, layer_idx: usize, path: &str, change: impl Into<ModuleChange>) {
        let change = change.into();
        let modules = self.by_layer.entry(layer_idx).or_default();
        match modules.iter_mut().find(|(name, _)| name == path) {
            Some((_, changes)) => changes.push(change),
            None => modules.push((path.to_owned(), vec![change])),
        }
    }

    /// The changes of one module; empty if it is not adapted.
    pub fn changes(&self, layer_idx: usize, path: &str) -> &[ModuleChange] {
        self.by_layer
            .get(&layer_idx)
            .and_then(|modules| modules.iter().find(|(name, _)| name == path))
            .map_or(&[], |(_, changes)| changes)
    }

    /// The lowest layer with a change: below it, states are the frozen model's.
    pub fn first_layer(&self) -> Option<usize> {
        self.by_layer.keys().next().copied()
    }
}

#[cfg(test)]
mod tests {
    use chameleon_core::{LowRankChange, RankMix};

    use super::*;
    use crate::testing::normal;

    #[test]
    fn changes_are_found_by_layer_and_name() {
        let change = |scale| LowRankChange {
            a: normal([6, 3], 1),
            mix: RankMix::Scale(scale),
            b: normal([3, 5], 2),
        };
        let mut factors = LayerFactors::none();
        assert_eq!(factors.first_layer(), None);
        factors.push(5, "mlp.up_proj", change(1.0));
        factors.push(3, "mlp.up_proj", change(1.0));
        factors.push(5, "mlp.up_proj", change(2.0));
        assert_eq!(factors.first_layer(), Some(3));
        assert_eq!(factors.changes(5, "mlp.up_proj").len(), 2);
        assert!(factors.changes(5, "mlp.down_proj").is_empty());
        assert!(factors.changes(4, "mlp.up_proj").is_empty());
    }
}
