//! The paper's generator: the network predicts every element of both factors.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use chameleon_core::{FactorShape, LoraFactors, RunSeed};

use crate::error::{HypernetError, check_shape};
use crate::init::{FactorInit, factor_std, from_values, normal_values};
use crate::network::{HyperNetwork, HyperNetworkConfig, OutputInit};

/// Configuration of a [`Dense`] generator.
#[derive(Config, Debug, PartialEq)]
pub struct DenseConfig {
    /// Width of a condition.
    pub condition_size: usize,
    /// Sizes of the factors.
    pub shape: FactorShape,
    /// The multiplier of the factors; the reference script calls it `alpha`.
    #[config(default = 1.0)]
    pub scale: f64,
    /// Widths of the network's hidden layers.
    #[config(default = "vec![64, 32]")]
    pub hidden_sizes: Vec<usize>,
    /// Probability of dropping a hidden feature in training.
    #[config(default = 0.1)]
    pub dropout: f64,
    /// Initialisation of the predictions.
    #[config(default = "FactorInit::ZeroDelta")]
    pub init: FactorInit,
}

/// An MLP that predicts `rank * (in + out)` values: `a` row by row, then `b` row by row.
///
/// Under [`FactorInit::ZeroDelta`] the last layer's weight is zero and so is its bias for `b`, while
/// its bias for `a` is normal. The first delta is then zero for every condition. In the first step
/// only the last layer's part for `b` has a gradient, weight and bias; from the second on everything.
#[derive(Module, Debug)]
pub struct Dense {
    /// Predicts the flat factors.
    pub network: HyperNetwork,
    /// Sizes of the factors.
    #[module(skip)]
    pub shape: FactorShape,
    /// The multiplier of the factors.
    pub scale: f64,
}

impl DenseConfig {
    /// Dropout 0.5 and a first delta that is small but not zero.
    pub fn as_published(condition_size: usize, shape: FactorShape) -> Self {
        Self::new(condition_size, shape)
            .with_dropout(0.5)
            .with_init(FactorInit::AsPublished)
    }

    /// A generator whose weights depend on `seed` and on nothing else.
    ///
    /// # Panics
    ///
    /// When [`check`](Self::check) fails.
    pub fn init(&self, seed: RunSeed, device: &Device) -> Dense {
        let mut network = self.network().init(seed.derive("network"), device);
        if self.init == FactorInit::ZeroDelta {
            let FactorShape { in_size, rank, .. } = self.shape;
            let mut bias = normal_values(in_size * rank, factor_std(in_size), seed.stream("a"));
            bias.resize(self.shape.num_params(), 0.0);
            let last = network
                .layers
                .last_mut()
                .expect("a network has an output layer");
            last.bias = Some(from_values([bias.len()], bias, device));
        }
        Dense {
            network,
            shape: self.shape,
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
        self.network().num_params()
    }

    pub(super) fn network(&self) -> HyperNetworkConfig {
        HyperNetworkConfig::new(self.condition_size, self.shape.num_params())
            .with_hidden_sizes(self.hidden_sizes.clone())
            .with_dropout(self.dropout)
            .with_output_init(match self.init {
                FactorInit::ZeroDelta => OutputInit::Zeros,
                FactorInit::AsPublished => OutputInit::Normal { std: 1e-3 },
            })
    }
}

impl Dense {
    pub(super) fn decode(&self, features: Tensor<2>) -> Vec<LoraFactors> {
        let [num_groups, _] = features.dims();
        let flat = self.network.predict(features); // [groups, rank * (in + out)]
        (0..num_groups)
            .map(|group_idx| {
                let row = flat.clone().slice([group_idx..=group_idx]).squeeze_dim(0);
                LoraFactors::from_flat(row, self.shape, self.scale)
            })
            .collect()
    }
}
