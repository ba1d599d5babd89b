//! What one layer of a pass gets besides states and attention: positions, and the factors of adapted modules.

use burn::nn::Linear;
use burn::tensor::Tensor;
use chameleon_core::fused::{self, LinearInput, RotaryHalves};
use chameleon_core::{FrozenWeight, LowRankChange, ModuleChange};
use chameleon_hypernet::LayerFactors;

use crate::families::config::DecoderConfig;
use crate::families::stored_weights::StoredWeights;

/// The inputs of one layer of a pass, except the states and attention.
pub(crate) struct LayerContext<'a> {
    pub(crate) config: &'a DecoderConfig,
    pub(crate) layer_idx: usize,
    /// The angles of each of the model's rotary embeddings.
    pub(crate) positions: &'a [RotaryHalves],
    pub(crate) factors: &'a LayerFactors,
    /// Weights that stay as they are stored.
    pub(crate) stored: &'a StoredWeights,
}

impl LayerContext<'_> {
    /// A linear module of the layer with the change by its factors.
    pub(crate) fn linear(&self, path: &str, linear: &Linear, x: &Tensor<3>) -> Tensor<3> {
        let changes = self.factors.changes(self.layer_idx, path);
        let weight = match self.stored.module(self.layer_idx, path) {
            Some(matrix) => FrozenWeight::Stored {
                matrix: matrix.clone(),
                device: x.device(),
            },
            None => linear.weight.val().into(),
        };
        let (first, others) = match changes {
            [ModuleChange::LowRank(first), others @ ..] => {
                (Some(LowRankChange::clone(first)), others)
            }
            others => (None, others),
        };
        let output = fused::linear(LinearInput {
            x: x.clone(),
            weight,
            bias: linear.bias.as_ref().map(burn::module::Param::val),
            change: first,
        });
        others
            .iter()
            .fold(output, |output, change| change.add_to(output, x.clone()))
    }
}
