//! Scores as values: the loss of each example, and the metrics computed from it.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};
use chameleon_core::{FrozenWeight, HeadInput, LoraFactors, perplexity, score_rows};
use chameleon_hypernet::{Condition, ControlPlan};
use serde::{Deserialize, Serialize};

use crate::adapter::adaptation::{AdapterModule, layer_factors};
use crate::data::{EvalWindow, Example};
use crate::families::causal_lm::CausalLm;
use crate::training::causal_objective::{batch_conditions, segments};
use crate::training::grouped_examples::{GroupedExamples, scored_targets};
use crate::training::states::HiddenStates;

/// The loss of one example.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ExampleScore {
    /// Negative log-likelihood of its scored tokens, in nats.
    pub nll: f64,
    /// Its scored tokens.
    pub num_tokens: usize,
    /// The bytes of those tokens.
    pub num_bytes: usize,
    /// The document it was cut from.
    pub document_idx: usize,
    /// The cluster it is assigned to.
    pub cluster_idx: usize,
    /// Its label, if the data has labels.
    pub label_idx: Option<usize>,
}

/// Total scores of many examples, weighted by token.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct ScoreSummary {
    /// Negative log-likelihood, in nats.
    pub nll: f64,
    /// Scored tokens.
    pub num_tokens: usize,
    /// The bytes of those tokens.
    pub num_bytes: usize,
    /// Examples.
    pub num_examples: usize,
}

/// The loss of one example, token by token.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenScores {
    /// The total.
    pub total: ExampleScore,
    /// Negative log-likelihood of each scored token, in nats.
    pub token_nlls: Vec<f32>,
}

impl ScoreSummary {
    /// The total of all examples.
    pub fn of_tokens(scores: &[TokenScores]) -> Self {
        scores.iter().map(|score| &score.total).collect()
    }

    /// Nats per token.
    pub fn mean_nll(&self) -> f64 {
        self.nll / self.num_tokens as f64
    }

    /// `exp` of the nats per token.
    pub fn perplexity(&self) -> f64 {
        perplexity(self.mean_nll())
    }

    /// Bits per byte of text, which compares across tokenizers.
    pub fn bits_per_byte(&self) -> f64 {
        self.nll / std::f64::consts::LN_2 / self.num_bytes as f64
    }
}

impl<'a> FromIterator<&'a ExampleScore> for ScoreSummary {
    fn from_iter<I: IntoIterator<Item = &'a ExampleScore>>(scores: I) -> Self {
        scores.into_iter().fold(Self::default(), |sum, score| Self {
            nll: sum.nll + score.nll,
            num_tokens: sum.num_tokens + score.num_tokens,
            num_bytes: sum.num_bytes + score.num_bytes,
            num_examples: sum.num_examples + 1,
        })
    }
}

/// One summary for each value of `key`, in the order of the keys.
pub(crate) fn summaries_by<K: Ord>(
    scores: &[ExampleScore],
    key: impl Fn(&ExampleScore) -> K,
) -> BTreeMap<K, ScoreSummary> {
    let mut groups: BTreeMap<K, Vec<&ExampleScore>> = BTreeMap::new();
    for score in scores {
        groups.entry(key(score)).or_default().push(score);
    }
    groups
        .into_iter()
        .map(|(key, scores)| (key, scores.into_iter().collect()))
        .collect()
}

/// Scores examples.
#[derive(Debug, Clone)]
pub struct Scorer<'a> {
    /// The adapter, off the autodiff device; `None` scores the frozen model.
    pub module: Option<&'a AdapterModule>,
    /// The hidden states of the examples.
    pub hidden_states: HiddenStates<'a>,
    /// `[hidden, vocab]`, frozen.
    pub head_weight: FrozenWeight,
    /// `[clusters, hidden]`
    pub centroids: Tensor<2>,
    /// How the condition of a group is computed.
    pub condition: Condition,
    /// Which condition a group receives.
    pub control: ControlPlan,
}

impl Scorer<'_> {
    /// Scores every example of `data`, in its order. `observe` is called with the number of finished batches.
    ///
    /// # Panics
    ///
    /// When the plan leaves an example out, or a layer is adapted that is not run.
    pub fn score(&self, data: &GroupedExamples, observe: impl FnMut(usize)) -> Vec<ExampleScore> {
        let scores = self.score_tokens(data, observe);
        scores.into_iter().map(|score| score.total).collect()
    }

    /// Like [`score`](Self::score), with the loss of every token.
    ///
    /// # Panics
    ///
    /// As [`score`](Self::score).
    pub fn score_tokens(
        &self,
        data: &GroupedExamples,
        mut observe: impl FnMut(usize),
    ) -> Vec<TokenScores> {
        let producer = self.module.map(AdapterModule::factor_producer);
        let mut scores = vec![None; data.examples.len()];
        for (batch_idx, batch) in data.plan.batches.iter().enumerate() {
            let examples: Vec<&Example> =
                batch.rows.iter().map(|&row| &data.examples[row]).collect();
            let conditions = batch_conditions(
                data,
                batch,
                &self.centroids,
                self.condition,
                &self.control,
                batch_idx,
            );
            let groups = producer
                .as_ref()
                .map(|producer| producer.groups(batch.cluster_idx, conditions));
            let hidden = self.hidden_states.of_batch(
                &batch.rows,
                &examples,
                &layer_factors(groups.as_deref().unwrap_or_default(), examples.len()),
                &self.head_weight.device(),
            );
            let factors = groups.map(|groups| groups.into_iter().map(|group| group.head).collect());
            let losses = self.row_losses(hidden, &examples, factors);
            let mut rest = losses.as_slice();
            for (&row, example) in batch.rows.iter().zip(&examples) {
                let (own, others) = rest.split_at(example.sequence.scored().len());
                rest = others;
                scores[row] = Some(TokenScores {
                    total: ExampleScore {
                        nll: own.iter().map(|&loss| f64::from(loss)).sum(),
                        num_tokens: own.len(),
                        num_bytes: example.scored_bytes,
                        document_idx: example.document_idx,
                        cluster_idx: batch.cluster_idx,
                        label_idx: example.label_idx,
                    },
                    token_nlls: own.to_vec(),
                });
            }
            observe(batch_idx + 1);
        }
        scores
            .into_iter()
            .map(|score| score.expect("a plan covers every example"))
            .collect()
    }

    fn row_losses(
        &self,
        hidden: Tensor<2>,
        examples: &[&Example],
        factors: Option<Vec<LoraFactors>>,
    ) -> Vec<f32> {
        let device = self.head_weight.device();
        let score = |hidden, examples: &[&Example], factors| {
            let input = HeadInput {
                hidden,
                weight: self.head_weight.clone(),
                factors,
            };
            score_rows(input, scored_targets(examples, &device))
        };
        let losses = match factors {
            None => score(hidden, examples, None),
            Some(factors) => Tensor::cat(
                segments(examples, factors)
                    .into_iter()
                    .map(|segment| {
                        score(
                            hidden.clone().slice([segment.rows]),
                            &examples[segment.examples],
                            Some(segment.factors),
                        )
                    })
                    .collect(),
                0,
            ),
        };
        losses.into_data().iter::<f32>().collect()
    }
}

/// Negative log-likelihood in nats of one evaluation window's scored tokens, by the frozen model.
///
/// # Panics
///
/// When the window scores its first token, which has no context.
pub(crate) fn window_nll(model: &impl CausalLm, window: &EvalWindow<'_>) -> f64 {
    let device = model.head_weight().device();
    let token_ids: Vec<i64> = window.token_ids.iter().map(|&id| i64::from(id)).collect();
    let seq_len = token_ids.len();
    let targets = seq_len - window.num_scored..seq_len;
    let token_ids =
        Tensor::<1, burn::tensor::Int>::from_data(TensorData::new(token_ids, [seq_len]), &device);
    let hidden = model
        .hidden_states(token_ids.clone().unsqueeze())
        .squeeze_dim::<2>(0); // [seq, hidden]
    let input = HeadInput {
        hidden: hidden.slice([targets.start - 1..targets.end - 1]),
        weight: model.head_weight(),
        factors: None,
    };
    let losses = score_rows(input, token_ids.slice([targets]));
    losses.into_data().iter::<f32>().map(f64::from).sum()
}
