//! The exemplars of a group, up to the lowest adapted layer.

use burn::tensor::{Int, Tensor};
use chameleon_core::{
    AttentionContext, HeadInput, LoraFactors, SplitSequence, TokenBatch, linear_cross_entropy,
};
use chameleon_hypernet::LayerFactors;

use crate::families::causal_lm::{CausalLm, PassEnd, PassInput, SequencePass};
use crate::families::indices::index_tensor;
use crate::families::language_model::LanguageModel;

/// The exemplars of one group as they enter the lowest adapted layer: the frozen layers below it are run once.
#[derive(Debug, Clone)]
pub struct ExemplarStates {
    /// The lowest adapted layer.
    first_layer: usize,
    /// Exemplars of similar length together.
    batches: Vec<ExemplarBatch>,
}

#[derive(Debug, Clone)]
struct ExemplarBatch {
    /// Tokens of each exemplar.
    lens: Vec<usize>,
    /// States that enter the lowest adapted layer, padded on the right, `[exemplars, seq, hidden]`.
    entering: Tensor<3>,
    /// Positions whose states predict a token of an answer, in the flattened `exemplars * seq`, `[rows]`.
    predicting: Tensor<1, Int>,
    /// The tokens of the answers, `[rows]`.
    targets: Tensor<1, Int>,
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

    /// The keys and values of every exemplar in the adapted layers, each exemplar read alone: adding or removing one
    /// changes nothing of the others. Gradients reach `layers`.
    pub(super) fn context(&self, model: &LanguageModel, layers: &LayerFactors) -> AttentionContext {
        let contexts: Vec<AttentionContext> = self
            .batches
            .iter()
            .map(|batch| model.context_of(batch.pass(self.first_layer, layers), &batch.lens))
            .collect();
        AttentionContext::joined(&contexts)
    }

    /// Mean negative log-likelihood of the answers, in nats per token; gradients reach `layers`.
    pub(super) fn loss(
        &self,
        model: &LanguageModel,
        layers: &LayerFactors,
        head: &LoraFactors,
    ) -> Tensor<1> {
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
            lens: exemplars.iter().map(|exemplar| exemplar.len()).collect(),
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

    /// A pass through the adapted layers.
    fn pass<'a>(&self, first_layer: usize, layers: &'a LayerFactors) -> SequencePass<'a> {
        SequencePass {
            input: PassInput::Entering {
                layer_idx: first_layer,
                states: self.entering.clone(),
            },
            end: PassEnd::Head,
            factors: layers,
        }
    }

    /// The final states that predict the answers, `[rows, hidden]`.
    fn hidden(
        &self,
        model: &LanguageModel,
        first_layer: usize,
        layers: &LayerFactors,
    ) -> Tensor<2> {
        let states = model.forward(self.pass(first_layer, layers));
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
