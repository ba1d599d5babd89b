//! The fixed inputs of a training, whatever its objective.

use burn::tensor::Tensor;
use chameleon_core::{FrozenWeight, RunSeed};
use chameleon_hypernet::{Condition, ControlPlan};

use crate::adapter::learned_steps::StepsConfig;
use crate::training::grouped_examples::GroupedExamples;
use crate::training::states::HiddenStates;
use crate::training::train::TrainOptions;

/// The fixed inputs of a training.
#[derive(Debug, Clone)]
pub struct TrainSetup<'a> {
    /// The training data.
    pub data: &'a GroupedExamples,
    /// Its hidden states.
    pub hidden_states: HiddenStates<'a>,
    /// `[hidden, vocab]`, frozen.
    pub head_weight: FrozenWeight,
    /// `[clusters, hidden]`
    pub centroids: Tensor<2>,
    /// How the condition of a group is computed.
    pub condition: Condition,
    /// Which condition a group receives.
    pub control: ControlPlan,
    /// The steps by which groups are adapted to their exemplars, if they are learned.
    pub steps: Option<StepsConfig>,
    /// Settings of the optimizer.
    pub options: TrainOptions,
    /// Seed of the order of batches and of dropout.
    pub seed: RunSeed,
}
