//! Scores of texts, mixed with the probabilities of memories.

use burn::tensor::{Device, Int, Tensor, TensorData};
use chameleon_hypernet::memory::{GateFeatures, GateFit, GateObservations, MemoryGate};

use crate::families::indices::index_tensor;
use crate::training::eval::TokenScores;
use crate::training::grouped_examples::GroupedExamples;

/// The probabilities and gate features that memories give for some texts at one temperature.
#[derive(Debug, Clone)]
pub struct Observed {
    pub(super) temperature: f64,
    /// `[tokens]`, all scored tokens of all examples
    pub(super) target_probs: Tensor<1>,
    pub(super) gate_features: GateFeatures,
}

/// The gate whose temperature and weights predict these texts best.
///
/// # Panics
///
/// When there is no temperature, or the scores are of other examples.
pub(crate) fn fit_gate(
    observed: &[Observed],
    data: &GroupedExamples,
    scores: &[TokenScores],
    num_groups: usize,
) -> MemoryGate {
    let fits = observed.iter().map(|observed| {
        let device = observed.target_probs.device();
        let observations = GateObservations {
            features: &observed.gate_features,
            groups: groups_of_tokens(data, &device),
            model_log_probs: log_probs(scores, &device),
            memory_probs: observed.target_probs.clone(),
        };
        MemoryGate::fit(&observations, num_groups, observed.temperature)
    });
    let best: Option<GateFit> =
        fits.min_by(|left, right| left.mean_loss.total_cmp(&right.mean_loss));
    best.expect("at least one temperature").gate
}

/// The scores mixed with the memories' probabilities.
///
/// # Panics
///
/// When nothing was observed at the gate's temperature, or the scores are of other examples.
pub(crate) fn with_memory(
    gate: &MemoryGate,
    observed: &[Observed],
    data: &GroupedExamples,
    scores: Vec<TokenScores>,
) -> Vec<TokenScores> {
    let observed = observed
        .iter()
        .find(|observed| observed.temperature.to_bits() == gate.temperature.to_bits())
        .expect("observed at the temperature of the gate");
    let device = observed.target_probs.device();
    let losses = gate.losses(
        &observed.gate_features,
        groups_of_tokens(data, &device),
        log_probs(&scores, &device),
        observed.target_probs.clone(),
    );
    let mut losses = losses
        .into_data()
        .iter::<f32>()
        .collect::<Vec<_>>()
        .into_iter();
    scores
        .into_iter()
        .map(|mut score| {
            score.token_nlls = losses.by_ref().take(score.token_nlls.len()).collect();
            score.total.nll = score.token_nlls.iter().map(|&nll| f64::from(nll)).sum();
            score
        })
        .collect()
}

fn groups_of_tokens(data: &GroupedExamples, device: &Device) -> Tensor<1, Int> {
    let groups = data.examples.iter().zip(&data.assignments);
    let groups = groups.flat_map(|(example, &group_idx)| {
        std::iter::repeat_n(group_idx, example.sequence.scored().len())
    });
    index_tensor(groups, device)
}

fn log_probs(scores: &[TokenScores], device: &Device) -> Tensor<1> {
    let nlls = scores.iter().flat_map(|score| &score.token_nlls);
    let log_probs: Vec<f32> = nlls.map(|nll| -nll).collect();
    let num_tokens = log_probs.len();
    Tensor::from_data(TensorData::new(log_probs, [num_tokens]), device)
}
