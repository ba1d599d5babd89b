//! The hypernetwork itself: a small MLP from conditions to flat predictions.
//!
//! The meaning of the predictions is defined by `generator.rs`.

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, assert_shape};
use chameleon_core::RunSeed;
use serde::{Deserialize, Serialize};

use crate::error::HypernetError;
use crate::init::{normal, numbered, xavier_uniform, zeros};

/// Initialisation of the last layer's weight; its bias starts at zero.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OutputInit {
    /// All zero: every condition gets the same prediction, the bias.
    #[default]
    Zeros,
    /// Normal values, with `1e-3` as published.
    Normal {
        /// Standard deviation.
        std: f64,
    },
}

/// Configuration of a [`HyperNetwork`].
#[derive(Config, Debug, PartialEq)]
pub struct HyperNetworkConfig {
    /// Width of a condition.
    pub condition_size: usize,
    /// Number of values predicted per condition.
    pub output_size: usize,
    /// Widths of the hidden layers, the first one first.
    #[config(default = "vec![64, 32]")]
    pub hidden_sizes: Vec<usize>,
    /// Probability of dropping a hidden feature in training; 0.5 in the paper.
    #[config(default = 0.1)]
    pub dropout: f64,
    /// Initialisation of the last layer.
    #[config(default = "OutputInit::Zeros")]
    pub output_init: OutputInit,
}

/// An MLP with `ReLU` and dropout after every layer but the last.
///
/// Dropout acts on an autodiff device only. It draws from Burn's generator of the device, so a reproducible training
/// loop seeds the device (`Device::seed`) before each step.
#[derive(Module, Debug)]
pub struct HyperNetwork {
    /// Hidden layers and the output layer.
    pub layers: Vec<Linear>,
    /// Applied to hidden features.
    pub dropout: Dropout,
}

impl HyperNetworkConfig {
    /// A network whose weights depend on `seed` and on nothing else.
    ///
    /// # Panics
    ///
    /// When [`check`](Self::check) fails.
    pub fn init(&self, seed: RunSeed, device: &Device) -> HyperNetwork {
        if let Err(error) = self.check() {
            panic!("{error}");
        }
        let num_hidden = self.hidden_sizes.len();
        let layers = self
            .layer_shapes()
            .enumerate()
            .map(|(layer_idx, shape)| {
                let stream = numbered(seed, "layer", layer_idx).stream("weight");
                let weight = match self.output_init {
                    _ if layer_idx < num_hidden => xavier_uniform(shape, stream, device),
                    OutputInit::Zeros => zeros(shape, device),
                    OutputInit::Normal { std } => normal(shape, std, stream, device),
                };
                let bias = Some(zeros([shape[1]], device));
                Linear { weight, bias }
            })
            .collect();
        HyperNetwork {
            layers,
            dropout: DropoutConfig::new(self.dropout).init(),
        }
    }

    /// Rejects sizes of zero and invalid dropout.
    ///
    /// # Errors
    ///
    /// Names the first invalid setting.
    pub fn check(&self) -> Result<(), HypernetError> {
        let zero = |size| Err(HypernetError::ZeroSize { size });
        if self.condition_size == 0 {
            return zero("condition size");
        }
        if self.output_size == 0 {
            return zero("output size");
        }
        if self.hidden_sizes.contains(&0) {
            return zero("a hidden size of the hypernetwork");
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(HypernetError::Dropout {
                found: self.dropout,
            });
        }
        Ok(())
    }

    /// Parameters of all weights and biases.
    pub fn num_params(&self) -> usize {
        self.layer_shapes()
            .map(|[in_size, out_size]| (in_size + 1) * out_size)
            .sum()
    }

    /// The input width of the output layer.
    pub fn num_features(&self) -> usize {
        self.hidden_sizes
            .last()
            .copied()
            .unwrap_or(self.condition_size)
    }

    fn layer_shapes(&self) -> impl Iterator<Item = [usize; 2]> {
        let inputs = std::iter::once(&self.condition_size).chain(&self.hidden_sizes);
        let outputs = self.hidden_sizes.iter().chain([&self.output_size]);
        inputs.zip(outputs).map(|(&input, &output)| [input, output])
    }
}

impl HyperNetwork {
    /// Predictions for each condition.
    ///
    /// # Shapes
    ///
    /// - `conditions`: `[groups, condition]`
    /// - output: `[groups, output]`
    ///
    /// # Panics
    ///
    /// When the conditions do not have the configured width.
    pub fn forward(&self, conditions: Tensor<2>) -> Tensor<2> {
        self.predict(self.features(conditions))
    }

    /// The last hidden features, the input of the output layer. Other output layers may share them.
    ///
    /// # Shapes
    ///
    /// - `conditions`: `[groups, condition]`
    /// - output: `[groups, features]`
    ///
    /// # Panics
    ///
    /// When the conditions do not have the configured width.
    pub fn features(&self, conditions: Tensor<2>) -> Tensor<2> {
        let (_, hidden_layers) = self.split();
        hidden_layers.iter().fold(conditions, |features, layer| {
            self.dropout.forward(relu(layer.forward(features)))
        })
    }

    /// The output layer.
    ///
    /// # Shapes
    ///
    /// - `features`: `[groups, features]`
    /// - output: `[groups, output]`
    ///
    /// # Panics
    ///
    /// When the features do not have the width of the last hidden layer.
    pub fn predict(&self, features: Tensor<2>) -> Tensor<2> {
        let [num_groups, _] = features.dims();
        let output = self.split().0.forward(features);
        assert_shape!(output, [num_groups, _]);
        output
    }

    fn split(&self) -> (&Linear, &[Linear]) {
        self.layers
            .split_last()
            .expect("a network has an output layer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, normal as normal_tensor, values};

    fn config() -> HyperNetworkConfig {
        HyperNetworkConfig::new(6, 5)
            .with_hidden_sizes(vec![8, 7])
            .with_dropout(0.5)
            .with_output_init(OutputInit::Normal { std: 0.3 })
    }

    #[test]
    fn a_seed_fixes_every_weight_whatever_was_drawn_before() {
        let device = Device::flex();
        let conditions = normal_tensor([3, 6], 1);
        let first = config().init(RunSeed(7), &device);
        device.seed(99);
        let again = config().init(RunSeed(7), &device);
        let other = config().init(RunSeed(8), &device);
        let output = |network: &HyperNetwork| values(network.forward(conditions.clone()));
        assert_eq!(output(&first), output(&again));
        assert_ne!(output(&first), output(&other));
    }

    #[test]
    fn layers_do_not_share_a_stream() {
        let network = HyperNetworkConfig::new(8, 8)
            .with_hidden_sizes(vec![8, 8])
            .init(RunSeed(7), &Device::flex());
        let weight = |layer_idx: usize| values(network.layers[layer_idx].weight.val());
        assert_ne!(weight(0), weight(1));
    }

    #[test]
    fn zero_init_predicts_nothing_for_any_condition() {
        let network = config()
            .with_output_init(OutputInit::Zeros)
            .init(RunSeed(7), &Device::flex());
        let output = network.forward(normal_tensor([3, 6], 1));
        assert_close(&output, &Tensor::zeros_like(&output));
    }

    #[test]
    fn dropout_acts_in_training_only() {
        let device = Device::flex().autodiff();
        let training = config().init(RunSeed(7), &device);
        let conditions = normal_tensor([16, 6], 1);
        let tracked = Tensor::from_data(conditions.to_data(), &device);
        let noisy = training.forward(tracked.clone()).into_data();
        let noisier = training.forward(tracked).into_data();
        assert_ne!(noisy, noisier);

        let plain = config().init(RunSeed(7), &Device::flex());
        let expected = plain.forward(conditions.clone());
        assert_close(&training.valid().forward(conditions.clone()), &expected);
        assert_close(&plain.forward(conditions), &expected);
    }

    #[test]
    fn groups_do_not_see_each_other() {
        let network = config().init(RunSeed(7), &Device::flex());
        let conditions = normal_tensor([4, 6], 1);
        let together = network.forward(conditions.clone());
        for group_idx in 0..4 {
            let alone = network.forward(conditions.clone().slice([group_idx..=group_idx]));
            assert_close(&alone, &together.clone().slice([group_idx..=group_idx]));
        }
    }

    #[test]
    fn the_configuration_counts_the_parameters_of_the_module() {
        let config = config();
        let network = config.init(RunSeed(7), &Device::flex());
        assert_eq!(config.num_params(), network.num_params());
        let perceptron = config.with_hidden_sizes(vec![]);
        assert_eq!(perceptron.num_params(), 6 * 5 + 5);
        let output = perceptron
            .init(RunSeed(7), &Device::flex())
            .forward(normal_tensor([2, 6], 1));
        assert_eq!(output.dims(), [2, 5]);
    }

    #[test]
    fn impossible_settings_are_named() {
        let message = |config: HyperNetworkConfig| config.check().unwrap_err().to_string();
        assert!(message(HyperNetworkConfig::new(0, 5)).contains("condition size"));
        assert!(message(HyperNetworkConfig::new(6, 0)).contains("output size"));
        assert!(message(config().with_hidden_sizes(vec![8, 0])).contains("hidden size"));
        for dropout in [1.0, -0.1, f64::NAN] {
            assert!(message(config().with_dropout(dropout)).contains("dropout"));
        }
    }
}
