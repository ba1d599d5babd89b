//! Scores of groups by key: each adapted by its exemplars, scored on its other examples.

use burn::module::Module as _;
use chameleon_core::{HeadInput, score_rows_with_matches};
use chameleon_hypernet::LayerFactors;

use crate::adapter::adaptation::AdapterModule;
use crate::adapter::exemplar_use::ExemplarUse;
use crate::data::Example;
use crate::families::causal_lm::CausalLm;
use crate::families::language_model::LanguageModel;
use crate::training::error::TrainingError;
use crate::training::eval::{ExampleScore, TokenScores};
use crate::training::exemplars::{ExemplarSplit, rows_by_key};
use crate::training::grouped_examples::{GroupedExamples, scored_targets};
use crate::training::observer::{Observer, Work};
use crate::training::states::HiddenStates;

/// The score of one answer, token by token.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerScore {
    /// Its loss.
    pub tokens: TokenScores,
    /// Whether every token of the answer is the likeliest one: greedy decoding gives this answer and no other.
    pub is_exact: bool,
}

/// Examples scored together.
const BATCH_SIZE: usize = 16;

/// Scores the examples of each group that are not among its first ones, which are its exemplars.
///
/// # Errors
///
/// When the examples have no keys, or the observer interrupts.
pub(crate) fn score_with_exemplars(
    module: &AdapterModule,
    model: &LanguageModel,
    data: &GroupedExamples,
    states: HiddenStates<'_>,
    how: ExemplarUse,
    observer: &dyn Observer,
) -> Result<Vec<AnswerScore>, TrainingError> {
    let module = module.clone().valid();
    let layers = module.layers.as_ref().expect("exemplars change the layers");
    let first_layer = layers.first_layer();
    let groups = rows_by_key(&data.examples)?;
    let mut progress = observer.begin(Work::items("scoring", groups.len()));
    let mut scores = Vec::new();
    for (group_idx, rows) in groups.iter().enumerate() {
        if observer.is_interrupted() {
            return Err(TrainingError::Interrupted);
        }
        let Some(split) = ExemplarSplit::first(rows, how.num_exemplars().min(rows.len() - 1))
        else {
            continue;
        };
        let exemplars = states.exemplars(data, split.exemplars(), first_layer);
        let layers = module.group_layers(model, &exemplars, how).for_batch();
        scores.extend(score_answers(
            &module,
            model,
            data,
            states,
            split.scored(),
            &layers,
        ));
        progress.set_position(group_idx as u64 + 1);
    }
    Ok(scores)
}

/// Scores answers by these factors of the layers, in the order of `rows`.
pub(crate) fn score_answers(
    module: &AdapterModule,
    model: &LanguageModel,
    data: &GroupedExamples,
    states: HiddenStates<'_>,
    rows: &[usize],
    layers: &LayerFactors,
) -> Vec<AnswerScore> {
    let device = model.head_weight().device();
    let mut scores = vec![None; rows.len()];
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&idx| data.examples[rows[idx]].sequence.len());
    for batch in order.chunks(BATCH_SIZE) {
        let rows: Vec<usize> = batch.iter().map(|&idx| rows[idx]).collect();
        let examples: Vec<&Example> = rows.iter().map(|&row| &data.examples[row]).collect();
        let input = HeadInput {
            hidden: states.of_batch(&rows, &examples, layers, &device),
            head: model.head(),
            factors: Some(module.shared_head()),
        };
        let found = score_rows_with_matches(input, scored_targets(&examples, &device));
        let losses: Vec<f32> = found.losses.into_data().iter::<f32>().collect();
        let matches: Vec<bool> = found.matches.into_data().iter::<bool>().collect();
        let mut first = 0;
        for ((&idx, &row), example) in batch.iter().zip(&rows).zip(&examples) {
            let end = first + example.sequence.scored().len();
            let own = &losses[first..end];
            scores[idx] = Some(AnswerScore {
                tokens: TokenScores {
                    total: ExampleScore {
                        nll: own.iter().map(|&loss| f64::from(loss)).sum(),
                        num_tokens: own.len(),
                        num_bytes: example.scored_bytes,
                        document_idx: example.document_idx,
                        cluster_idx: data.assignments[row],
                        label_idx: example.label_idx,
                    },
                    token_nlls: own.to_vec(),
                },
                is_exact: matches[first..end].iter().all(|&is_match| is_match),
            });
            first = end;
        }
    }
    scores
        .into_iter()
        .map(|score| score.expect("every row is scored"))
        .collect()
}
