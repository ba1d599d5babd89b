//! The layers of one group: a few learned gradient steps down the loss of its exemplars.

use burn::module::Module as _;
use burn::tensor::Tensor;
use chameleon_core::LoraFactors;
use chameleon_hypernet::{LearnedSteps, SharedLayers, after_steps, normalised};

use crate::adapter::adaptation::AdapterModule;
use crate::adapter::exemplar_states::ExemplarStates;
use crate::families::language_model::LanguageModel;

/// The directions of the steps of one group: normalised gradients, `[steps][tensors]`, as constants.
#[derive(Debug, Clone)]
pub(super) struct StepDirections(Vec<Vec<Tensor<2>>>);

impl AdapterModule {
    /// The directions of `num_steps` steps from the start.
    ///
    /// # Panics
    ///
    /// When no steps are learned.
    pub(super) fn step_directions(
        &self,
        model: &LanguageModel,
        exemplars: &ExemplarStates,
        num_steps: usize,
    ) -> StepDirections {
        let plain = self.clone().valid();
        let (start, steps) = plain.start();
        let sizes = steps.sizes(num_steps);
        let head = plain.shared_head();
        let mut tensors = flat(start.factors());
        let mut directions = Vec::with_capacity(num_steps);
        for step in 0..num_steps {
            let tracked: Vec<Tensor<2>> = tensors
                .iter()
                .map(|tensor| tensor.clone().autodiff().require_grad())
                .collect();
            let layers = start.with_factors(paired(&tracked, start.factors()));
            let loss = exemplars.loss(model, &layers.for_all_groups().for_batch(), &head);
            let grads = loss.backward();
            let direction: Vec<Tensor<2>> = tracked
                .iter()
                .map(|tensor| {
                    let gradient = tensor.grad(&grads);
                    normalised(gradient.unwrap_or_else(|| tensor.clone().inner().zeros_like()))
                })
                .collect();
            let own_sizes = sizes.clone().narrow(0, step, 1);
            for (tensor_idx, (tensor, gradient)) in tensors.iter_mut().zip(&direction).enumerate() {
                let gradient = std::slice::from_ref(gradient);
                *tensor = after_steps(tensor.clone(), gradient, &own_sizes, tensor_idx);
            }
            directions.push(direction);
        }
        StepDirections(directions)
    }

    /// The layers of a group after steps in these directions. Gradients reach the start and the sizes of the steps.
    ///
    /// # Panics
    ///
    /// When no steps are learned.
    pub(super) fn layers_along(&self, directions: &StepDirections) -> SharedLayers {
        let (start, steps) = self.start();
        let sizes = steps.sizes(directions.0.len());
        let tensors: Vec<Tensor<2>> = flat(start.factors())
            .into_iter()
            .enumerate()
            .map(|(tensor_idx, tensor)| {
                let own: Vec<Tensor<2>> = directions
                    .0
                    .iter()
                    .map(|direction| {
                        let gradient = direction[tensor_idx].clone();
                        if tensor.device().is_autodiff() {
                            gradient.autodiff()
                        } else {
                            gradient
                        }
                    })
                    .collect();
                after_steps(tensor, &own, &sizes, tensor_idx)
            })
            .collect();
        start.with_factors(paired(&tensors, start.factors()))
    }

    fn start(&self) -> (SharedLayers, &LearnedSteps) {
        let layers = self
            .layers
            .as_ref()
            .expect("steps change factors of layers");
        let steps = self.steps.as_ref().expect("steps are learned");
        (layers.shared(), steps)
    }
}

/// `a` and `b` of each module, one after the other.
fn flat(factors: &[LoraFactors]) -> Vec<Tensor<2>> {
    factors
        .iter()
        .flat_map(|factors| [factors.a.clone(), factors.b.clone()])
        .collect()
}

/// The inverse of [`flat`], with the scales of `like`.
fn paired(tensors: &[Tensor<2>], like: &[LoraFactors]) -> Vec<LoraFactors> {
    tensors
        .chunks_exact(2)
        .zip(like)
        .map(|(pair, like)| LoraFactors {
            a: pair[0].clone(),
            b: pair[1].clone(),
            scale: like.scale,
        })
        .collect()
}
