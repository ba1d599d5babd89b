//! The layers of one group: a few learned gradient steps down the loss of its exemplars.

use burn::module::Module as _;
use burn::tensor::{Int, Tensor};
use chameleon_core::{HeadInput, LoraFactors, SplitSequence, TokenBatch, linear_cross_entropy};
use chameleon_hypernet::{LayerFactors, LearnedSteps, SharedLayers, after_steps, normalised};
use serde::{Deserialize, Serialize};

use crate::adapter::adaptation::{AdapterModule, HeadAdapter};
use crate::families::causal_lm::{CausalLm, PassEnd, PassInput, SequencePass};
use crate::families::indices::index_tensor;
use crate::families::language_model::LanguageModel;

/// Learned gradient steps from the factors of the layers, down the loss of a group's exemplars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepsConfig {
    /// Steps that were learned, and are taken.
    pub num_steps: usize,
    /// Exemplars of a group in most training steps.
    pub num_exemplars: usize,
}

impl Default for StepsConfig {
    fn default() -> Self {
        Self {
            num_steps: 4,
            num_exemplars: 16,
        }
    }
}

/// The exemplars of one group as the steps read them: the frozen layers below the lowest adapted one are run once.
#[derive(Debug, Clone)]
pub struct ExemplarStates {
    /// The lowest adapted layer.
    first_layer: usize,
    /// Exemplars of similar length together.
    batches: Vec<ExemplarBatch>,
}

#[derive(Debug, Clone)]
struct ExemplarBatch {
    /// States that enter the lowest adapted layer, padded on the right, `[exemplars, seq, hidden]`.
    entering: Tensor<3>,
    /// Positions whose states predict a token of an answer, in the flattened `exemplars * seq`, `[rows]`.
    predicting: Tensor<1, Int>,
    /// The tokens of the answers, `[rows]`.
    targets: Tensor<1, Int>,
}

/// The directions of the steps of one group: normalised gradients, `[steps][tensors]`, as constants.
#[derive(Debug, Clone)]
pub struct StepDirections(Vec<Vec<Tensor<2>>>);

impl AdapterModule {
    /// The layers of a group after `num_steps` steps down the loss of its exemplars.
    ///
    /// # Panics
    ///
    /// When no steps are learned.
    pub fn layers_after_steps(
        &self,
        model: &LanguageModel,
        exemplars: &ExemplarStates,
        num_steps: usize,
    ) -> SharedLayers {
        let plain = self.clone().valid();
        let directions = plain.step_directions(model, exemplars, num_steps);
        plain.layers_along(&directions)
    }

    /// The directions of `num_steps` steps from the start.
    ///
    /// # Panics
    ///
    /// When no steps are learned.
    pub fn step_directions(
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
    pub fn layers_along(&self, directions: &StepDirections) -> SharedLayers {
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

    /// The changes of the layers for a batch, without any step.
    ///
    /// # Panics
    ///
    /// When no layer is adapted, or cores are generated.
    pub(crate) fn start_factors(&self) -> LayerFactors {
        let layers = self.layers.as_ref().expect("layers are adapted");
        layers.shared().for_all_groups().for_batch()
    }

    fn start(&self) -> (SharedLayers, &LearnedSteps) {
        let layers = self
            .layers
            .as_ref()
            .expect("steps change factors of layers");
        let steps = self.steps.as_ref().expect("steps are learned");
        (layers.shared(), steps)
    }

    /// The factors of the head, which the steps leave as they are.
    ///
    /// # Panics
    ///
    /// When the head is not adapted by one LoRA.
    pub fn shared_head(&self) -> LoraFactors {
        match &self.head {
            HeadAdapter::Lora(head) => head.factors(),
            HeadAdapter::Experts(_) | HeadAdapter::Hyper(_) => {
                panic!("learned steps are beside a LoRA at the head")
            }
        }
    }
}

impl ExemplarStates {
    /// Exemplars whose states `entering` gives: those of the exemplars with these indices as they enter `first_layer`,
    /// `[exemplars, seq, hidden]`, padded on the right.
    ///
    /// # Panics
    ///
    /// When there is no exemplar.
    pub(crate) fn new(
        first_layer: usize,
        exemplars: &[&SplitSequence],
        entering: impl Fn(&[usize]) -> Tensor<3>,
    ) -> Self {
        assert!(!exemplars.is_empty(), "at least one exemplar");
        let lens: Vec<usize> = exemplars.iter().map(|exemplar| exemplar.len()).collect();
        let batches = similar_lengths(&lens)
            .into_iter()
            .map(|members| {
                let own: Vec<&SplitSequence> = members.iter().map(|&idx| exemplars[idx]).collect();
                ExemplarBatch::new(entering(&members), &own)
            })
            .collect();
        Self {
            first_layer,
            batches,
        }
    }

    /// Exemplars, whose states the frozen layers below `first_layer` compute.
    ///
    /// # Panics
    ///
    /// When there is no exemplar.
    pub fn of(model: &LanguageModel, first_layer: usize, exemplars: &[&SplitSequence]) -> Self {
        let device = model.head_weight().device();
        Self::new(first_layer, exemplars, |members| {
            let rows: Vec<&[u32]> = members
                .iter()
                .map(|&idx| exemplars[idx].token_ids())
                .collect();
            // Attention is causal and padding is on the right, so no real position sees it.
            let token_ids = TokenBatch::from_rows(&rows, 0, &device).token_ids;
            model.forward(SequencePass {
                input: PassInput::TokenIds(token_ids),
                end: PassEnd::Entering(first_layer),
                factors: &LayerFactors::none(),
            })
        })
    }

    /// Mean negative log-likelihood of the answers, in nats per token; gradients reach `layers`.
    fn loss(&self, model: &LanguageModel, layers: &LayerFactors, head: &LoraFactors) -> Tensor<1> {
        let num_rows: usize = self.batches.iter().map(ExemplarBatch::num_rows).sum();
        self.batches
            .iter()
            .map(|batch| {
                let share = batch.num_rows() as f64 / num_rows as f64;
                batch.loss(model, self.first_layer, layers, head) * share
            })
            .reduce(|sum, loss| sum + loss)
            .expect("at least one exemplar")
    }
}

impl ExemplarBatch {
    fn new(entering: Tensor<3>, exemplars: &[&SplitSequence]) -> Self {
        let device = entering.device();
        let [_, seq_len, _] = entering.dims();
        let predicting = exemplars.iter().enumerate().flat_map(|(row, exemplar)| {
            let positions = exemplar.predicting_positions();
            positions.map(move |position| row * seq_len + position)
        });
        let targets = exemplars
            .iter()
            .flat_map(|exemplar| exemplar.scored())
            .map(|&token_id| token_id as usize);
        Self {
            predicting: index_tensor(predicting, &device),
            targets: index_tensor(targets, &device),
            entering,
        }
    }

    fn num_rows(&self) -> usize {
        self.targets.dims()[0]
    }

    /// Mean negative log-likelihood of the answers, in nats per token; gradients reach `layers`.
    fn loss(
        &self,
        model: &LanguageModel,
        first_layer: usize,
        layers: &LayerFactors,
        head: &LoraFactors,
    ) -> Tensor<1> {
        let hidden = self.hidden(model, first_layer, layers);
        let head = LoraFactors {
            a: head.a.clone().autodiff(),
            b: head.b.clone().autodiff(),
            scale: head.scale,
        };
        let input = HeadInput {
            hidden,
            head: model.head(),
            factors: Some(head),
        };
        linear_cross_entropy(input, self.targets.clone()).mean_loss
    }

    /// The final states that predict the answers, `[rows, hidden]`.
    fn hidden(
        &self,
        model: &LanguageModel,
        first_layer: usize,
        layers: &LayerFactors,
    ) -> Tensor<2> {
        let states = model.forward(SequencePass {
            input: PassInput::Entering {
                layer_idx: first_layer,
                states: self.entering.clone(),
            },
            end: PassEnd::Head,
            factors: layers,
        });
        let [batch, seq_len, hidden_size] = states.dims();
        let states = states.reshape([batch * seq_len, hidden_size]);
        let predicting = self.predicting.clone().autodiff();
        states.select(0, predicting)
    }
}

/// Indices of sequences in batches of similar length, each at least four fifths of the longest of its batch, so that
/// padding costs little. A batch of fewer than four takes shorter ones as well.
pub(crate) fn similar_lengths(lens: &[usize]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lens.len()).collect();
    order.sort_by_key(|&idx| (std::cmp::Reverse(lens[idx]), idx));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for idx in order {
        match batches.last_mut() {
            Some(batch) if batch.len() < 4 || 5 * lens[idx] >= 4 * lens[batch[0]] => {
                batch.push(idx);
            }
            _ => batches.push(vec![idx]),
        }
    }
    batches
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
