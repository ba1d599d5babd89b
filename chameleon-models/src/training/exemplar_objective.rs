//! The objective of adapters that use exemplars: the loss of a group's other answers.

use burn::tensor::{Device, Tensor};
use chameleon_core::{HeadInput, linear_cross_entropy};
use rand::seq::SliceRandom as _;

use crate::adapter::adaptation::AdapterModule;
use crate::adapter::exemplar_states::similar_lengths;
use crate::adapter::exemplar_use::ExemplarUse;
use crate::data::Example;
use crate::families::language_model::LanguageModel;
use crate::training::error::TrainingError;
use crate::training::exemplars::{ExemplarSplit, draw_num_exemplars, rows_by_key};
use crate::training::grouped_examples::scored_targets;
use crate::training::setup::TrainSetup;
use crate::training::states::HiddenStates;
use crate::training::train::{BatchLoss, Objective};

/// Groups of an optimizer step.
const GROUPS_PER_STEP: usize = 2;
/// Scored examples of a group in an optimizer step.
const MAX_SCORED: usize = 12;

/// Other answers of groups, by the layers that some of their answers give.
pub(crate) struct ExemplarObjective<'a> {
    setup: TrainSetup<'a>,
    model: &'a LanguageModel,
    how: ExemplarUse,
    first_layer: usize,
    /// The examples of each group.
    groups: Vec<Vec<usize>>,
}

impl<'a> ExemplarObjective<'a> {
    /// # Errors
    ///
    /// When the examples have no keys.
    ///
    /// # Panics
    ///
    /// When nothing inside the layers is adapted.
    pub(crate) fn new(
        setup: TrainSetup<'a>,
        how: ExemplarUse,
        module: &AdapterModule,
    ) -> Result<Self, TrainingError> {
        let (HiddenStates::Layers(model) | HiddenStates::UpperLayers { model, .. }) =
            setup.hidden_states
        else {
            panic!("exemplars run the upper layers");
        };
        let layers = module.layers.as_ref().expect("exemplars change the layers");
        Ok(Self {
            groups: rows_by_key(&setup.data.examples)?,
            first_layer: layers.first_layer(),
            setup,
            model,
            how,
        })
    }

    /// The groups of a batch; every epoch pairs them anew.
    fn groups_of(&self, batch_idx: usize, step: usize) -> Vec<usize> {
        let epoch = step / self.num_batches();
        let mut order: Vec<usize> = (0..self.groups.len()).collect();
        order.shuffle(&mut self.setup.seed.stream(&format!("epoch-{epoch}")));
        order
            .chunks(GROUPS_PER_STEP)
            .nth(batch_idx)
            .map_or_else(Vec::new, <[usize]>::to_vec)
    }

    /// Mean loss of a group's scored answers by gradients, their negative log-likelihood, and their tokens.
    fn group_loss(&self, module: &AdapterModule, split: &ExemplarSplit) -> (Tensor<1>, f64, usize) {
        let states = &self.setup.hidden_states;
        let data = self.setup.data;
        let exemplars = states.exemplars(data, split.exemplars(), self.first_layer);
        let layers = module
            .trained_group_layers(self.model, &exemplars, self.how)
            .for_batch();
        let device = self.device();
        let lens: Vec<usize> = split
            .scored()
            .iter()
            .map(|&row| data.examples[row].sequence.len())
            .collect();
        let (mut hidden, mut examples) = (Vec::new(), Vec::new());
        for members in similar_lengths(&lens) {
            let rows: Vec<usize> = members.iter().map(|&idx| split.scored()[idx]).collect();
            let own: Vec<&Example> = rows.iter().map(|&row| &data.examples[row]).collect();
            hidden.push(states.of_batch(&rows, &own, &layers, &device));
            examples.extend(own);
        }
        let hidden = Tensor::cat(hidden, 0).autodiff();
        let num_tokens = hidden.dims()[0];
        let input = HeadInput {
            hidden,
            head: self.setup.head.clone(),
            factors: Some(module.shared_head()),
        };
        let loss = linear_cross_entropy(input, scored_targets(&examples, &device));
        let nll = f64::from(loss.row_losses.sum().into_scalar::<f32>());
        (loss.mean_loss, nll, num_tokens)
    }
}

impl Objective for ExemplarObjective<'_> {
    fn num_batches(&self) -> usize {
        self.groups.len().div_ceil(GROUPS_PER_STEP)
    }

    fn order(&self, _epoch: usize) -> Vec<usize> {
        (0..self.num_batches()).collect()
    }

    fn device(&self) -> Device {
        self.setup.head.weight.device()
    }

    fn loss(&self, module: &AdapterModule, batch_idx: usize, step: usize) -> BatchLoss {
        let groups = self.groups_of(batch_idx, step);
        let share = 1.0 / groups.len() as f64;
        let (mut objective, mut nll, mut num_tokens) = (None, 0.0, 0);
        for group_idx in groups {
            let draw = format!("exemplars-{step}-{group_idx}");
            let mut rng = self.setup.seed.stream(&draw);
            let num_exemplars = draw_num_exemplars(self.how.num_exemplars(), &mut rng);
            let rows = &self.groups[group_idx];
            let split = ExemplarSplit::drawn(rows, num_exemplars, MAX_SCORED, &mut rng);
            let (loss, group_nll, group_tokens) = self.group_loss(module, &split);
            let part = loss * share;
            objective = Some(match objective {
                Some(total) => total + part,
                None => part,
            });
            nll += group_nll;
            num_tokens += group_tokens;
        }
        BatchLoss {
            objective: objective.expect("a batch has at least one group"),
            mean: nll / num_tokens as f64,
            num_tokens,
        }
    }
}
