//! The examples of groups by key: exemplars, which a group is adapted by, and others, which are scored.

use std::collections::BTreeMap;

use chameleon_core::SplitSequence;
use rand::seq::SliceRandom as _;
use rand::{Rng, RngExt as _};

use crate::adapter::exemplar_states::ExemplarStates;
use crate::data::Example;
use crate::families::causal_lm::CausalLm;
use crate::training::error::TrainingError;
use crate::training::grouped_examples::GroupedExamples;
use crate::training::states::{HiddenStates, padded};

/// Some examples of one group, by their index: exemplars, and others that are scored. No example is both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExemplarSplit {
    exemplars: Vec<usize>,
    scored: Vec<usize>,
}

impl ExemplarSplit {
    /// The first `num_exemplars` rows are exemplars, the others are scored; `None` if that leaves nothing to score.
    pub fn first(rows: &[usize], num_exemplars: usize) -> Option<Self> {
        (num_exemplars < rows.len()).then(|| {
            let (exemplars, scored) = rows.split_at(num_exemplars);
            Self {
                exemplars: exemplars.to_vec(),
                scored: scored.to_vec(),
            }
        })
    }

    /// At most `num_exemplars` exemplars and `max_scored` others, drawn from the rows of a group.
    ///
    /// # Panics
    ///
    /// When there are fewer than two rows.
    pub(crate) fn drawn(
        rows: &[usize],
        num_exemplars: usize,
        max_scored: usize,
        rng: &mut impl Rng,
    ) -> Self {
        let mut rows = rows.to_vec();
        rows.shuffle(rng);
        let num_exemplars = num_exemplars.min(rows.len() - 1);
        let mut split = Self::first(&rows, num_exemplars).expect("a row is left to score");
        split.scored.truncate(max_scored);
        split
    }

    /// The exemplars.
    pub fn exemplars(&self) -> &[usize] {
        &self.exemplars
    }

    /// The scored examples.
    pub fn scored(&self) -> &[usize] {
        &self.scored
    }
}

/// The rows of each group with at least two examples, in the order of the labels, which are the keys.
///
/// # Errors
///
/// When no group has two examples.
pub(crate) fn rows_by_key(examples: &[Example]) -> Result<Vec<Vec<usize>>, TrainingError> {
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (row, example) in examples.iter().enumerate() {
        if let Some(key) = example.label_idx {
            groups.entry(key).or_default().push(row);
        }
    }
    let groups: Vec<Vec<usize>> = groups.into_values().filter(|rows| rows.len() > 1).collect();
    if groups.is_empty() {
        return Err(TrainingError::NoGroups);
    }
    Ok(groups)
}

/// The number of exemplars of a training step: mostly `usual`, else from one to twice as many, small numbers as often
/// as large ones.
pub(crate) fn draw_num_exemplars(usual: usize, rng: &mut impl Rng) -> usize {
    if rng.random_bool(0.5) {
        return usual;
    }
    let largest = (2 * usual) as f64;
    let drawn = largest.powf(rng.random::<f64>()).round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and twice the usual number"
    )]
    let drawn = drawn as usize;
    drawn.max(1)
}

impl HiddenStates<'_> {
    /// The exemplars with these indices as they enter the lowest adapted layer.
    ///
    /// # Panics
    ///
    /// When only final states are cached, or there is no exemplar.
    pub(crate) fn exemplars(
        &self,
        data: &GroupedExamples,
        rows: &[usize],
        first_layer: usize,
    ) -> ExemplarStates {
        let sequences: Vec<&SplitSequence> = rows
            .iter()
            .map(|&row| &data.examples[row].sequence)
            .collect();
        match *self {
            HiddenStates::UpperLayers {
                model, entering, ..
            } => {
                let device = model.head_weight().device();
                ExemplarStates::new(first_layer, &sequences, |members| {
                    let rows: Vec<usize> = members.iter().map(|&idx| rows[idx]).collect();
                    let examples: Vec<&Example> =
                        rows.iter().map(|&row| &data.examples[row]).collect();
                    padded(entering.gather(&rows, &device), &examples)
                })
            }
            HiddenStates::Layers(model) => ExemplarStates::of(model, first_layer, &sequences),
            HiddenStates::Cached(_) => panic!("exemplars run the upper layers"),
        }
    }
}

#[cfg(test)]
mod tests {
    use chameleon_core::RunSeed;

    use super::*;

    #[test]
    fn no_example_is_an_exemplar_and_scored() {
        let rows: Vec<usize> = (10..30).collect();
        let mut rng = RunSeed(3).stream("draws");
        for num_exemplars in [1, 7, 19, 40] {
            let split = ExemplarSplit::drawn(&rows, num_exemplars, 12, &mut rng);
            assert_eq!(split.exemplars().len(), num_exemplars.min(19));
            assert!((1..=12).contains(&split.scored().len()));
            assert!(
                split
                    .scored()
                    .iter()
                    .all(|row| !split.exemplars().contains(row))
            );
        }
        assert_eq!(ExemplarSplit::first(&rows, 20), None);
        assert_eq!(
            ExemplarSplit::first(&rows, 16).unwrap().scored(),
            [26, 27, 28, 29]
        );
    }

    #[test]
    fn most_draws_are_of_the_usual_number_and_none_is_above_twice_it() {
        let mut rng = RunSeed(4).stream("draws");
        let drawn: Vec<usize> = (0..400).map(|_| draw_num_exemplars(16, &mut rng)).collect();
        assert!(drawn.iter().all(|number| (1..=32).contains(number)));
        assert!(drawn.iter().filter(|&&number| number == 16).count() > 150);
        assert!(
            drawn.contains(&1) && drawn.contains(&2) && drawn.iter().any(|&number| number > 24)
        );
    }
}
