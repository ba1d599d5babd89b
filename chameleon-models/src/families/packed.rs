//! Weights that stay as a GGUF file packs them, four or eight bits each, and are multiplied as they are.
//!
//! The tokens that meet them are packed as well, to eight bits in blocks of 32, which is what makes it fast and what
//! changes results a little. Each row is computed by itself in one order of addition: what it gets does not
//! depend on how many rows there are. Only linear modules of Llama models and their heads are packed; the embedding,
//! by which prompts are grouped, is dequantised to f32.

mod kernel;
mod matrix;
mod rows;

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::Sha256;

pub(crate) use matrix::PackedMatrix;

/// How the weights of a model are held while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightStorage {
    /// Dequantised to f32.
    #[default]
    F32,
    /// As the file packs them, where it does: a GGUF file of a Llama model with `Q4_0`, `Q4_1`, `Q5_0` or `Q8_0`.
    Packed,
}

/// The packed weights of a model.
#[derive(Debug, Clone, Default)]
pub(crate) struct PackedWeights {
    modules: Arc<BTreeMap<(usize, String), PackedMatrix>>,
    head: Option<Arc<PackedMatrix>>,
}

impl PackedWeights {
    pub(crate) fn new(
        modules: BTreeMap<(usize, String), PackedMatrix>,
        head: Option<PackedMatrix>,
    ) -> Self {
        Self {
            modules: Arc::new(modules),
            head: head.map(Arc::new),
        }
    }

    /// A linear module of a layer, if it is packed.
    pub(crate) fn module(&self, layer_idx: usize, path: &str) -> Option<&PackedMatrix> {
        if self.modules.is_empty() {
            return None;
        }
        self.modules.get(&(layer_idx, path.to_owned()))
    }

    /// The head, if it is packed.
    pub(crate) fn head(&self) -> Option<&PackedMatrix> {
        self.head.as_deref()
    }

    /// Adds all of them to a digest.
    pub(crate) fn update(&self, digest: &mut Sha256) {
        let modules = self.modules.values().chain(self.head());
        modules.for_each(|matrix| matrix.update(digest));
    }
}
