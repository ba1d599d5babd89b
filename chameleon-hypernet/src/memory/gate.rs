//! The weight of the memory in a prediction.

use burn::module::{Module, Param};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::log_sigmoid;
use burn::tensor::{Int, Tensor, assert_shape};
use serde::{Deserialize, Serialize};

/// The input of a gate, for some rows.
#[derive(Debug, Clone)]
pub struct GateFeatures {
    /// `[rows, NUM_FEATURES]`
    columns: Tensor<2>,
}

/// A constant one, the similarity of the nearest entry, the density around it, and the probability of the nearest
/// entry's token, plain and as a logarithm.
const NUM_FEATURES: usize = 5;

impl GateFeatures {
    /// # Shapes
    ///
    /// - all `[rows]`: cosine of the nearest entry, log of the part of the entries that is as near as it, and the
    ///   memory's probability of the nearest entry's token
    pub(super) fn new(nearest: Tensor<1>, density: Tensor<1>, agreement: Tensor<1>) -> Self {
        // Centred and scaled to about one for any model, so that the weights have a common scale.
        let columns = vec![
            nearest.ones_like(),
            nearest * 4.0 - 2.0,
            density / 3.0 + 2.0,
            agreement.clone() * 4.0 - 1.0,
            (agreement + 1e-3).log() + 1.0,
        ];
        Self {
            columns: Tensor::stack(columns, 1),
        }
    }

    /// `[rows, features]`
    pub fn columns(&self) -> Tensor<2> {
        self.columns.clone()
    }

    /// The rows of all parts, in order.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[must_use]
    pub fn cat(parts: Vec<Self>) -> Self {
        Self {
            columns: Tensor::cat(parts.into_iter().map(|part| part.columns).collect(), 0),
        }
    }
}

/// The weight of the memory in a prediction: the logistic function of weighted features and a bias of the group.
///
/// The only trained part of a memory; it is fitted on texts that are neither in the memory nor in the test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemoryGate {
    /// The inverse temperature of the attention over entries: larger is sharper.
    pub temperature: f64,
    /// One weight for each feature.
    pub weights: Vec<f32>,
    /// One bias for each group; it closes the gate of a group whose memory does not help.
    pub group_bias: Vec<f32>,
}

/// Observations that a gate is fitted to.
#[derive(Debug, Clone)]
pub struct GateObservations<'a> {
    /// Of the memory at the temperature of the gate.
    pub features: &'a GateFeatures,
    /// `[rows]`, the group of each.
    pub groups: Tensor<1, Int>,
    /// `[rows]`, the model's log-probability of the token that followed.
    pub model_log_probs: Tensor<1>,
    /// `[rows]`, the memory's probability of that token.
    pub memory_probs: Tensor<1>,
}

/// A fitted gate.
#[derive(Debug, Clone)]
pub struct GateFit {
    /// The gate.
    pub gate: MemoryGate,
    /// Its mean loss on the observations, in nats.
    pub mean_loss: f64,
}

#[derive(Module, Debug)]
struct GateParams {
    weights: Param<Tensor<1>>,
    group_bias: Param<Tensor<1>>,
}

const NUM_STEPS: usize = 400;
const LEARNING_RATE: f64 = 0.05;
/// Weight decay: pulls weights to zero, and biases of groups with few rows to the others.
const SHRINKAGE: f64 = 1e-4;
/// Initial bias: the gate is nearly closed.
const FIRST_BIAS: f32 = -2.0;
/// Larger than any fitted value.
const LARGEST: f32 = 1e4;
/// Keeps the logarithm of a probability of zero finite.
const SMALLEST_PROB: f64 = 1e-12;

impl MemoryGate {
    /// The gate that predicts the observed tokens best at this temperature.
    ///
    /// Full passes of Adam with a learning rate that falls to zero; the same observations give the same gate.
    ///
    /// # Panics
    ///
    /// When there is no row, the shapes disagree, or a group is not below `num_groups`.
    pub fn fit(
        observations: &GateObservations<'_>,
        num_groups: usize,
        temperature: f64,
    ) -> GateFit {
        let [num_rows, num_features] = observations.features.columns.dims();
        assert!(num_rows > 0, "a gate needs observations");
        assert_shape!(observations.groups, [num_rows]);
        assert_shape!(observations.model_log_probs, [num_rows]);
        assert_shape!(observations.memory_probs, [num_rows]);
        let device = observations.memory_probs.device().autodiff();
        let mut first = vec![0.0; num_features];
        first[0] = FIRST_BIAS;
        let mut params = GateParams {
            weights: Param::from_tensor(Tensor::from_floats(first.as_slice(), &device)),
            group_bias: Param::from_tensor(Tensor::zeros([num_groups], &device)),
        };
        let features = observations.features.columns.clone().autodiff();
        let groups = observations.groups.clone().autodiff();
        let model = observations.model_log_probs.clone().autodiff();
        let memory = (observations.memory_probs.clone() + SMALLEST_PROB)
            .log()
            .autodiff();
        let mut optimizer = AdamConfig::new().init();
        let mut mean_loss = f64::INFINITY;
        for step in 0..NUM_STEPS {
            let (weights, bias) = (params.weights.val(), params.group_bias.val());
            let logits = gate_logits(
                features.clone(),
                weights.clone(),
                bias.clone(),
                groups.clone(),
            );
            let losses = mixture_loss(logits, model.clone(), memory.clone());
            let loss = losses.mean();
            mean_loss = loss.clone().into_scalar::<f64>();
            let penalty = (weights.powi_scalar(2).sum() + bias.powi_scalar(2).sum()) * SHRINKAGE;
            let grads = GradientsParams::from_grads((loss + penalty).backward(), &params);
            let rate = LEARNING_RATE
                * 0.5
                * (1.0 + (std::f64::consts::PI * step as f64 / NUM_STEPS as f64).cos());
            params = optimizer.step(rate, params, grads);
        }
        let read = |param: &Param<Tensor<1>>| param.val().into_data().iter::<f32>().collect();
        let gate = Self {
            temperature,
            weights: read(&params.weights),
            group_bias: read(&params.group_bias),
        };
        GateFit { gate, mean_loss }
    }

    /// Fitted parameters.
    pub fn num_params(&self) -> usize {
        1 + self.weights.len() + self.group_bias.len()
    }

    /// The logit of the memory's weight in each row's prediction.
    ///
    /// # Shapes
    ///
    /// - `groups`: `[rows]`, the group of each
    /// - output: `[rows]`
    ///
    /// # Panics
    ///
    /// When there is no such group.
    pub fn logits(&self, features: &GateFeatures, groups: Tensor<1, Int>) -> Tensor<1> {
        let device = features.columns.device();
        let weights = Tensor::<1>::from_floats(self.weights.as_slice(), &device);
        let bias = Tensor::<1>::from_floats(self.group_bias.as_slice(), &device);
        gate_logits(features.columns.clone(), weights, bias, groups)
    }

    /// Whether there is a weight for each feature and a bias for each group, all bounded so that the gate is finite for
    /// any features.
    pub fn is_sound(&self, num_groups: usize) -> bool {
        let mut values = self.weights.iter().chain(&self.group_bias);
        self.weights.len() == NUM_FEATURES
            && self.group_bias.len() == num_groups
            && self.temperature > 0.0
            && self.temperature <= f64::from(LARGEST)
            && values.all(|value| value.abs() <= LARGEST)
    }

    /// Negative log-likelihood of tokens under model and memory together, in nats.
    ///
    /// # Shapes
    ///
    /// - `model_log_probs`, `memory_probs`: `[rows]`
    /// - output: `[rows]`
    ///
    /// # Panics
    ///
    /// When the shapes disagree or there is no such group.
    pub fn losses(
        &self,
        features: &GateFeatures,
        groups: Tensor<1, Int>,
        model_log_probs: Tensor<1>,
        memory_probs: Tensor<1>,
    ) -> Tensor<1> {
        let memory = (memory_probs + SMALLEST_PROB).log();
        mixture_loss(self.logits(features, groups), model_log_probs, memory)
    }
}

/// # Shapes
///
/// - `features`: `[rows, features]`, `weights`: `[features]`, `bias`: `[groups]`, `groups`: `[rows]`
/// - output: `[rows]`
fn gate_logits(
    features: Tensor<2>,
    weights: Tensor<1>,
    bias: Tensor<1>,
    groups: Tensor<1, Int>,
) -> Tensor<1> {
    features
        .matmul(weights.unsqueeze_dim(1))
        .squeeze_dim::<1>(1)
        + bias.select(0, groups)
}

fn mixture_loss(logits: Tensor<1>, model: Tensor<1>, memory: Tensor<1>) -> Tensor<1> {
    -log_add_exp(
        log_sigmoid(-logits.clone()) + model,
        log_sigmoid(logits) + memory,
    )
}

fn log_add_exp(left: Tensor<1>, right: Tensor<1>) -> Tensor<1> {
    let top = left.clone().max_pair(right.clone()).detach();
    ((left - top.clone()).exp() + (right - top.clone()).exp()).log() + top
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::testing::values;

    /// Half of the rows are of a group whose memory is right, half of one whose memory is wrong.
    fn observations(device: &Device) -> (GateFeatures, Tensor<1, Int>, Tensor<1>, Tensor<1>) {
        let n: i32 = 200;
        let features = GateFeatures::new(
            Tensor::full([200], 0.5, device),
            Tensor::full([200], -6.0, device),
            Tensor::full([200], 0.5, device),
        );
        let groups: Vec<i64> = (0..i64::from(n)).map(|row| row % 2).collect();
        let memory_probs: Vec<f32> = (0..n)
            .map(|row| if row % 2 == 0 { 0.8 } else { 0.0 })
            .collect();
        (
            features,
            Tensor::from_ints(groups.as_slice(), device),
            Tensor::full([200], 0.1_f64.ln(), device),
            Tensor::from_floats(memory_probs.as_slice(), device),
        )
    }

    #[test]
    fn a_gate_opens_for_a_memory_that_is_right_and_closes_for_one_that_is_wrong() {
        let device = Device::flex();
        let (features, groups, model_log_probs, memory_probs) = observations(&device);
        let GateFit { gate, mean_loss } = MemoryGate::fit(
            &GateObservations {
                features: &features,
                groups: groups.clone(),
                model_log_probs: model_log_probs.clone(),
                memory_probs: memory_probs.clone(),
            },
            2,
            1.0,
        );
        let logits = gate.logits(&features, groups.clone());
        let parts = values(burn::tensor::activation::sigmoid(logits));
        let part = |group_idx: usize| parts[group_idx];
        assert!(part(0) > 0.9, "{}", part(0));
        assert!(part(1) < 0.1, "{}", part(1));
        assert!(mean_loss < 0.1_f64.ln().abs(), "{mean_loss}");
        assert!(gate.is_sound(2) && !gate.is_sound(3));
        assert_eq!(gate.num_params(), 1 + NUM_FEATURES + 2);

        let own = values(gate.losses(&features, groups, model_log_probs, memory_probs));
        let part = part(0);
        let expected = -((1.0 - part) * 0.1 + part * 0.8).ln();
        assert!((own[0] - expected).abs() < 1e-4, "{} {expected}", own[0]);
    }

    #[test]
    fn a_token_that_neither_knows_keeps_a_finite_loss() {
        let device = Device::flex();
        let (features, groups, ..) = observations(&device);
        let gate = MemoryGate {
            temperature: 1.0,
            weights: vec![0.0; NUM_FEATURES],
            group_bias: vec![0.0; 2],
        };
        let losses = gate.losses(
            &features,
            groups,
            Tensor::full([200], -80.0, &device),
            Tensor::zeros([200], &device),
        );
        assert!(values(losses).iter().all(|loss| loss.is_finite()));
    }
}
