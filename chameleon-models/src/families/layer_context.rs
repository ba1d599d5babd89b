//! What one layer of a pass gets besides states and attention: positions, and the factors of adapted modules.

use burn::nn::Linear;
use burn::tensor::Tensor;
use chameleon_core::fused::{self, LinearInput, RotaryHalves};
use chameleon_core::{LowRankChange, ModuleChange};
use chameleon_hypernet::LayerFactors;

use crate::families::config::DecoderConfig;
use crate::families::packed::{PackedMatrix, PackedWeights};

/// The inputs of one layer of a pass, except the states and attention.
pub(crate) struct LayerContext<'a> {
    pub(crate) config: &'a DecoderConfig,
    pub(crate) layer_idx: usize,
    /// The angles of each of the model's rotary embeddings.
    pub(crate) positions: &'a [RotaryHalves],
    pub(crate) factors: &'a LayerFactors,
    /// Modules with quantised weights.
    pub(crate) packed: &'a PackedWeights,
}

impl LayerContext<'_> {
    /// A linear module of the layer with the change by its factors.
    pub(crate) fn linear(&self, path: &str, linear: &Linear, x: &Tensor<3>) -> Tensor<3> {
        let changes = self.factors.changes(self.layer_idx, path);
        if let Some(packed) = self.packed.module(self.layer_idx, path) {
            let frozen = forward_packed(packed, linear, x);
            return changes
                .iter()
                .fold(frozen, |output, change| change.add_to(output, x.clone()));
        }
        let (first, others) = match changes {
            [ModuleChange::LowRank(first), others @ ..] => {
                (Some(LowRankChange::clone(first)), others)
            }
            others => (None, others),
        };
        let output = fused::linear(LinearInput {
            x: x.clone(),
            weight: linear.weight.val(),
            bias: linear.bias.as_ref().map(burn::module::Param::val),
            change: first,
        });
        others
            .iter()
            .fold(output, |output, change| change.add_to(output, x.clone()))
    }
}

/// `[batch, seq, in]` -> `[batch, seq, out]`
fn forward_packed(packed: &PackedMatrix, linear: &Linear, x: &Tensor<3>) -> Tensor<3> {
    let [batch, seq_len, in_size] = x.dims();
    let output = packed.forward(x.clone().reshape([batch * seq_len, in_size])); // [batch * seq, out]
    let [_, out_size] = output.dims();
    let output = output.reshape([batch, seq_len, out_size]);
    match &linear.bias {
        Some(bias) => output + bias.val().unsqueeze(),
        None => output,
    }
}
