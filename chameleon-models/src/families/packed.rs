//! Weights that stay quantised as a GGUF file stores them, four or eight bits each, and are multiplied in that form.
//!
//! The states they are multiplied with are quantised as well, to eight bits in blocks of 32, which makes it fast and
//! changes the results a little. Each row is computed by itself in one order of addition, so its result does not depend on
//! the number of rows. Only linear modules of Llama models and their heads stay quantised; the embedding, by which prompts
//! are grouped, is f32.

mod kernel;
mod matrix;
mod rows;

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::Sha256;

pub(crate) use matrix::PackedMatrix;

/// How the weights of a model are stored in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightStorage {
    /// Dequantised to f32.
    #[default]
    F32,
    /// As the file packs them, where it does: a GGUF file of a Llama model with `Q4_0`, `Q4_1`, `Q5_0` or `Q8_0`.
    Quantised,
}

/// The packed weights of a model.
#[derive(Debug, Clone, Default)]
pub(crate) struct PackedWeights {
    /// By layer and path; two maps, so that a look-up needs no owned key.
    layers: Arc<BTreeMap<usize, BTreeMap<String, PackedMatrix>>>,
    head: Option<Arc<PackedMatrix>>,
}

impl PackedWeights {
    pub(crate) fn new(
        modules: impl IntoIterator<Item = ((usize, String), PackedMatrix)>,
        head: Option<PackedMatrix>,
    ) -> Self {
        let mut layers: BTreeMap<usize, BTreeMap<String, PackedMatrix>> = BTreeMap::new();
        for ((layer_idx, path), matrix) in modules {
            layers.entry(layer_idx).or_default().insert(path, matrix);
        }
        Self {
            layers: Arc::new(layers),
            head: head.map(Arc::new),
        }
    }

    /// A linear module of a layer, if it is packed.
    pub(crate) fn module(&self, layer_idx: usize, path: &str) -> Option<&PackedMatrix> {
        self.layers.get(&layer_idx)?.get(path)
    }

    /// The head, if it is packed.
    pub(crate) fn head(&self) -> Option<&PackedMatrix> {
        self.head.as_deref()
    }

    /// Adds all of them to a digest.
    pub(crate) fn update(&self, digest: &mut Sha256) {
        let modules = self.layers.values().flat_map(BTreeMap::values);
        let matrices = modules.chain(self.head());
        matrices.for_each(|matrix| matrix.update(digest));
    }
}
