//! The core generator: static factors, of which the network mixes the ranks.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use chameleon_core::{FactorShape, LoraFactors, RunSeed};

use crate::error::{HypernetError, check_shape};
use crate::init::{factor_std, normal, zeros};
use crate::network::{HyperNetwork, HyperNetworkConfig, OutputInit};

/// Configuration of a [`Core`] generator.
#[derive(Config, Debug, PartialEq)]
pub struct CoreConfig {
    /// Width of a condition.
    pub condition_size: usize,
    /// Sizes of the factors.
    pub shape: FactorShape,
    /// The multiplier of the factors.
    #[config(default = 1.0)]
    pub scale: f64,
    /// Widths of the network's hidden layers.
    #[config(default = "vec![64, 32]")]
    pub hidden_sizes: Vec<usize>,
    /// Probability of dropping a hidden feature in training.
    #[config(default = 0.1)]
    pub dropout: f64,
    /// Initialisation of the predicted cores.
    #[config(default = "OutputInit::Normal { std: 1e-2 }")]
    pub output_init: OutputInit,
}

/// Factors `a = a0·(I + core)` and `b = b0`, with `core` `[rank, rank]` predicted per group.
///
/// With a zero core this is plain LoRA, so uninformative conditions cost nothing. `b0` starts at zero, so the first
/// delta is zero and in the first step only `b0` has a gradient, as in plain LoRA; from the second step on all
/// parameters have one.
///
/// Cores start small but not at zero. Were they zero too, all groups would start with the same `a`,
/// and groups with opposite gradients would cancel each other exactly: training would never leave its initial state.
#[derive(Module, Debug)]
pub struct Core {
    /// `[in, rank]`
    pub a0: Param<Tensor<2>>,
    /// `[rank, out]`
    pub b0: Param<Tensor<2>>,
    /// Predicts the flat cores.
    pub network: HyperNetwork,
    /// The multiplier of the factors.
    pub scale: f64,
}

impl CoreConfig {
    /// A generator whose weights depend on `seed` and on nothing else.
    ///
    /// # Panics
    ///
    /// When [`check`](Self::check) fails.
    pub fn init(&self, seed: RunSeed, device: &Device) -> Core {
        let FactorShape {
            in_size,
            out_size,
            rank,
        } = self.shape;
        let network = self.network().init(seed.derive("network"), device);
        let std = factor_std(in_size);
        Core {
            a0: normal([in_size, rank], std, seed.stream("a0"), device),
            b0: zeros([rank, out_size], device),
            network,
            scale: self.scale,
        }
    }

    /// Rejects sizes of zero and invalid dropout.
    ///
    /// # Errors
    ///
    /// Names the first invalid setting.
    pub fn check(&self) -> Result<(), HypernetError> {
        check_shape(self.shape)?;
        self.network().check()
    }

    /// Trainable parameters.
    pub fn num_trainable_params(&self) -> usize {
        self.shape.num_params() + self.network().num_params()
    }

    pub(super) fn network(&self) -> HyperNetworkConfig {
        let rank = self.shape.rank;
        HyperNetworkConfig::new(self.condition_size, rank * rank)
            .with_hidden_sizes(self.hidden_sizes.clone())
            .with_dropout(self.dropout)
            .with_output_init(self.output_init)
    }
}

impl Core {
    pub(super) fn decode(&self, features: Tensor<2>) -> Vec<LoraFactors> {
        let [num_groups, _] = features.dims();
        let FactorShape { rank, .. } = self.shape();
        let flat = self.network.predict(features); // [groups, rank * rank]
        let (a0, b0) = (self.a0.val(), self.b0.val());
        (0..num_groups)
            .map(|group_idx| {
                let core = flat
                    .clone()
                    .slice([group_idx..=group_idx])
                    .reshape([rank, rank]);
                LoraFactors {
                    a: a0.clone() + a0.clone().matmul(core),
                    b: b0.clone(),
                    scale: self.scale,
                }
            })
            .collect()
    }

    pub(super) fn shape(&self) -> FactorShape {
        let [in_size, rank] = self.a0.shape().dims();
        let [_, out_size] = self.b0.shape().dims();
        FactorShape {
            in_size,
            out_size,
            rank,
        }
    }
}
