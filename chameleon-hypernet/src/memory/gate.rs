//! How much of a prediction is the memory's.

use burn::module::{Module, Param};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::log_sigmoid;
use burn::tensor::{Int, Tensor, assert_shape};
use serde::{Deserialize, Serialize};

/// What a gate decides by, for some rows.
#[derive(Debug, Clone)]
pub struct GateEvidence {
    /// `[rows, NUM_EVIDENCE]`
    columns: Tensor<2>,
}

/// A one; how near the nearest entry is; how many are as near; how agreed the votes are, plain and as a logarithm.
const NUM_EVIDENCE: usize = 5;

impl GateEvidence {
    /// # Shapes
    ///
    /// - all `[rows]`: cosine of the nearest entry, log of the part of the entries as near as it, the votes' share
    ///   for the nearest entry's token
    pub(super) fn new(nearest: Tensor<1>, crowding: Tensor<1>, agreement: Tensor<1>) -> Self {
        // Centres and scales bring each to about one, whatever the model: the weights start alike.
        let columns = vec![
            nearest.ones_like(),
            nearest * 4.0 - 2.0,
            crowding / 3.0 + 2.0,
            agreement.clone() * 4.0 - 1.0,
            (agreement + 1e-3).log() + 1.0,
        ];
        Self {
            columns: Tensor::stack(columns, 1),
        }
    }

    /// `[rows, evidence]`
    pub fn columns(&self) -> Tensor<2> {
        self.columns.clone()
    }

    /// The evidence of some rows after that of others.
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

/// Says how much of a prediction is the memory's: the logistic function of weighted evidence and a bias of the group.
///
/// The only trained part of a memory; it is fitted on texts that are neither in the memory nor in the test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemoryGate {
    /// How much louder nearer entries vote.
    pub temperature: f64,
    /// One weight for each piece of evidence.
    pub weights: Vec<f32>,
    /// One bias for each group; a group whose memory does not help closes its gate.
    pub group_bias: Vec<f32>,
}

/// What is known about some rows: enough to fit a gate.
#[derive(Debug, Clone)]
pub struct GateObservations<'a> {
    /// Of the votes at the temperature of the gate.
    pub evidence: &'a GateEvidence,
    /// `[rows]`, the group of each.
    pub groups: Tensor<1, Int>,
    /// `[rows]`, the model's log-probability of the token that followed.
    pub model_log_probs: Tensor<1>,
    /// `[rows]`, the votes' share for that token.
    pub shares: Tensor<1>,
}

#[derive(Module, Debug)]
struct GateParams {
    weights: Param<Tensor<1>>,
    group_bias: Param<Tensor<1>>,
}

const NUM_STEPS: usize = 400;
const LEARNING_RATE: f64 = 0.05;
/// Pulls weights to zero, and groups with few rows to the others.
const SHRINKAGE: f64 = 1e-4;
/// A gate starts nearly closed.
const FIRST_BIAS: f32 = -2.0;
/// More than any fit comes to.
const LARGEST: f32 = 1e4;
/// A vote of nothing stays a number.
const SMALLEST_SHARE: f64 = 1e-12;

impl MemoryGate {
    /// The gate that predicts the observed tokens best at this temperature, and its mean loss on them in nats.
    ///
    /// Full passes of Adam with a rate that falls to zero; the same observations give the same gate.
    ///
    /// # Panics
    ///
    /// When there is no row, the shapes disagree, or a group is not below `num_groups`.
    pub fn fit(
        observations: &GateObservations<'_>,
        num_groups: usize,
        temperature: f64,
    ) -> (Self, f64) {
        let [num_rows, num_evidence] = observations.evidence.columns.dims();
        assert!(num_rows > 0, "a gate fitted to nothing");
        assert_shape!(observations.groups, [num_rows]);
        assert_shape!(observations.model_log_probs, [num_rows]);
        assert_shape!(observations.shares, [num_rows]);
        let device = observations.shares.device().autodiff();
        let mut first = vec![0.0; num_evidence];
        first[0] = FIRST_BIAS;
        let mut params = GateParams {
            weights: Param::from_tensor(Tensor::from_floats(first.as_slice(), &device)),
            group_bias: Param::from_tensor(Tensor::zeros([num_groups], &device)),
        };
        let evidence = observations.evidence.columns.clone().autodiff();
        let groups = observations.groups.clone().autodiff();
        let model = observations.model_log_probs.clone().autodiff();
        let votes = (observations.shares.clone() + SMALLEST_SHARE)
            .log()
            .autodiff();
        let mut optimizer = AdamConfig::new().init();
        let mut mean_loss = f64::INFINITY;
        for step in 0..NUM_STEPS {
            let (weights, bias) = (params.weights.val(), params.group_bias.val());
            let logits = gate_logits(
                evidence.clone(),
                weights.clone(),
                bias.clone(),
                groups.clone(),
            );
            let losses = mixture_loss(logits, model.clone(), votes.clone());
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
        (gate, mean_loss)
    }

    /// Numbers that are fitted.
    pub fn num_params(&self) -> usize {
        1 + self.weights.len() + self.group_bias.len()
    }

    /// The logit of the memory's part of each row's prediction.
    ///
    /// # Shapes
    ///
    /// - `groups`: `[rows]`, the group of each
    /// - output: `[rows]`
    ///
    /// # Panics
    ///
    /// When there is no such group.
    pub fn logits(&self, evidence: &GateEvidence, groups: Tensor<1, Int>) -> Tensor<1> {
        let device = evidence.columns.device();
        let weights = Tensor::<1>::from_floats(self.weights.as_slice(), &device);
        let bias = Tensor::<1>::from_floats(self.group_bias.as_slice(), &device);
        gate_logits(evidence.columns.clone(), weights, bias, groups)
    }

    /// Whether there is a weight for each piece of evidence, a bias for each group, and all are numbers to work with:
    /// whatever the evidence, what the gate says is a number.
    pub fn is_sound(&self, num_groups: usize) -> bool {
        let mut numbers = self.weights.iter().chain(&self.group_bias);
        self.weights.len() == NUM_EVIDENCE
            && self.group_bias.len() == num_groups
            && self.temperature > 0.0
            && self.temperature <= f64::from(LARGEST)
            && numbers.all(|value| value.abs() <= LARGEST)
    }

    /// Negative log-likelihood of tokens under model and memory together, in nats.
    ///
    /// # Shapes
    ///
    /// - `model_log_probs`, `shares`: `[rows]`
    /// - output: `[rows]`
    ///
    /// # Panics
    ///
    /// When the shapes disagree or there is no such group.
    pub fn losses(
        &self,
        evidence: &GateEvidence,
        groups: Tensor<1, Int>,
        model_log_probs: Tensor<1>,
        shares: Tensor<1>,
    ) -> Tensor<1> {
        let votes = (shares + SMALLEST_SHARE).log();
        mixture_loss(self.logits(evidence, groups), model_log_probs, votes)
    }
}

/// # Shapes
///
/// - `evidence`: `[rows, evidence]`, `weights`: `[evidence]`, `bias`: `[groups]`, `groups`: `[rows]`
/// - output: `[rows]`
fn gate_logits(
    evidence: Tensor<2>,
    weights: Tensor<1>,
    bias: Tensor<1>,
    groups: Tensor<1, Int>,
) -> Tensor<1> {
    evidence
        .matmul(weights.unsqueeze_dim(1))
        .squeeze_dim::<1>(1)
        + bias.select(0, groups)
}

fn mixture_loss(logits: Tensor<1>, model: Tensor<1>, votes: Tensor<1>) -> Tensor<1> {
    -log_add_exp(
        log_sigmoid(-logits.clone()) + model,
        log_sigmoid(logits) + votes,
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
    fn observations(device: &Device) -> (GateEvidence, Tensor<1, Int>, Tensor<1>, Tensor<1>) {
        let n: i32 = 200;
        let evidence = GateEvidence::new(
            Tensor::full([200], 0.5, device),
            Tensor::full([200], -6.0, device),
            Tensor::full([200], 0.5, device),
        );
        let groups: Vec<i64> = (0..i64::from(n)).map(|row| row % 2).collect();
        let shares: Vec<f32> = (0..n)
            .map(|row| if row % 2 == 0 { 0.8 } else { 0.0 })
            .collect();
        (
            evidence,
            Tensor::from_ints(groups.as_slice(), device),
            Tensor::full([200], 0.1_f64.ln(), device),
            Tensor::from_floats(shares.as_slice(), device),
        )
    }

    #[test]
    fn a_gate_opens_for_a_memory_that_is_right_and_closes_for_one_that_is_wrong() {
        let device = Device::flex();
        let (evidence, groups, model_log_probs, shares) = observations(&device);
        let (gate, loss) = MemoryGate::fit(
            &GateObservations {
                evidence: &evidence,
                groups: groups.clone(),
                model_log_probs: model_log_probs.clone(),
                shares: shares.clone(),
            },
            2,
            1.0,
        );
        let logits = gate.logits(&evidence, groups.clone());
        let parts = values(burn::tensor::activation::sigmoid(logits));
        let part = |group_idx: usize| parts[group_idx];
        assert!(part(0) > 0.9, "{}", part(0));
        assert!(part(1) < 0.1, "{}", part(1));
        assert!(loss < 0.1_f64.ln().abs(), "{loss}");
        assert!(gate.is_sound(2) && !gate.is_sound(3));
        assert_eq!(gate.num_params(), 1 + NUM_EVIDENCE + 2);

        let own = values(gate.losses(&evidence, groups, model_log_probs, shares));
        let part = part(0);
        let expected = -((1.0 - part) * 0.1 + part * 0.8).ln();
        assert!((own[0] - expected).abs() < 1e-4, "{} {expected}", own[0]);
    }

    #[test]
    fn a_token_that_neither_knows_keeps_a_finite_loss() {
        let device = Device::flex();
        let (evidence, groups, ..) = observations(&device);
        let gate = MemoryGate {
            temperature: 1.0,
            weights: vec![0.0; NUM_EVIDENCE],
            group_bias: vec![0.0; 2],
        };
        let losses = gate.losses(
            &evidence,
            groups,
            Tensor::full([200], -80.0, &device),
            Tensor::zeros([200], &device),
        );
        assert!(values(losses).iter().all(|loss| loss.is_finite()));
    }
}
