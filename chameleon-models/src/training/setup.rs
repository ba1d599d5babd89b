//! The fixed inputs of a training, whatever its objective.

use burn::tensor::Tensor;
use chameleon_core::{FrozenHead, RunSeed};
use chameleon_hypernet::{Condition, ControlPlan};

use crate::adapter::exemplar_use::ExemplarUse;
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
    /// The head of the model.
    pub head: FrozenHead,
    /// `[clusters, hidden]`
    pub centroids: Tensor<2>,
    /// How the condition of a group is computed.
    pub condition: Condition,
    /// Which condition a group receives.
    pub control: ControlPlan,
    /// What is done with the exemplars of a group, if anything.
    pub exemplars: Option<ExemplarUse>,
    /// Settings of the optimizer.
    pub options: TrainOptions,
    /// Seed of the order of batches and of dropout.
    pub seed: RunSeed,
}
