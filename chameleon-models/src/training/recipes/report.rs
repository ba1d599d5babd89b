//! The results of a reproduction as values: a row for each recipe and method, learning curves, findings.

use std::fmt::{self, Write as _};

use chameleon_core::{RunSeed, perplexity};
use serde::Serialize;

use crate::training::experiment::{Finding, Interval, peak_memory};
use crate::training::fit::EpochRecord;
use crate::training::method::Method;

use super::answers::TextScores;
use super::findings::findings;
use super::recipe_name::RecipeName;
use super::runs::{Facts, Run, difference, of_method};

/// The results under every recipe.
#[derive(Debug, Serialize)]
pub struct ReproductionReport {
    /// In the requested order.
    pub recipes: Vec<RecipeRow>,
    /// Conclusions and warnings.
    pub findings: Vec<Finding>,
    /// Peak memory of the process, if the system reports it.
    pub peak_memory_bytes: Option<u64>,
}

impl ReproductionReport {
    /// Summarises finished runs. `seed` draws the resamples of the intervals.
    ///
    /// # Panics
    ///
    /// When a recipe has no run.
    pub fn new(runs: &[Run], recipes: &[RecipeName], seed: RunSeed) -> Self {
        let rows = recipes
            .iter()
            .map(|recipe| {
                let name = recipe.to_string();
                let own: Vec<&Run> = runs.iter().filter(|run| run.recipe == name).collect();
                RecipeRow {
                    leaks: recipe.leaks(),
                    facts: own[0].facts,
                    methods: method_rows(&own, seed),
                    name,
                }
            })
            .collect();
        Self {
            recipes: rows,
            findings: findings(runs, recipes, seed),
            peak_memory_bytes: runs
                .iter()
                .filter_map(|run| run.peak_memory_bytes)
                .chain(peak_memory::bytes())
                .max(),
        }
    }
}

/// The results under one recipe.
#[derive(Debug, Serialize)]
pub struct RecipeRow {
    /// Its name.
    pub name: String,
    /// Whether conditions contain scored tokens.
    pub leaks: bool,
    /// Sizes of its data.
    pub facts: Facts,
    /// One row for each method.
    pub methods: Vec<MethodRow>,
}

/// The results of one method under a recipe.
#[derive(Debug, Serialize)]
pub struct MethodRow {
    /// The method.
    pub method: Method,
    /// Number of trainable parameters.
    pub num_trainable_params: usize,
    /// Mean over the seeds, nats per token.
    pub valid_loss: f64,
    /// `exp` of the validation loss.
    pub valid_perplexity: f64,
    /// On the test rows, if the recipe has any.
    pub test_loss: Option<f64>,
    /// `exp` of the test loss.
    pub test_perplexity: Option<f64>,
    /// Nats per token against LoRA under the same recipe, with a 95 % interval.
    pub difference: Option<Interval>,
    /// All runs together.
    pub seconds: f64,
    /// The highest peak memory of its runs.
    pub peak_memory_bytes: Option<u64>,
    /// One for each seed.
    pub runs: Vec<RunRow>,
}

/// One run.
#[derive(Debug, Serialize)]
pub struct RunRow {
    /// Its seed.
    pub seed: u64,
    /// Counted from 1.
    pub chosen_epoch: Option<usize>,
    /// Nats per token.
    pub valid_loss: f64,
    /// On the test rows, if the recipe has any.
    pub test_loss: Option<f64>,
    /// Of generated answers.
    pub text: Option<TextScores>,
    /// One entry for each epoch.
    pub curve: Vec<EpochRecord>,
}

fn method_rows(runs: &[&Run], seed: RunSeed) -> Vec<MethodRow> {
    let lora = of_method(runs, Method::LORA);
    runs.chunk_by(|left, right| left.method == right.method)
        .map(|runs| {
            let mean = |value: &dyn Fn(&Run) -> f64| {
                runs.iter().map(|run| value(run)).sum::<f64>() / runs.len() as f64
            };
            let valid_loss = mean(&|run| run.valid_loss);
            let test_loss = runs[0]
                .test_loss
                .map(|_| mean(&|run| run.test_loss.unwrap_or(f64::NAN)));
            let method = runs[0].method;
            MethodRow {
                method,
                num_trainable_params: runs[0].num_trainable_params,
                valid_loss,
                valid_perplexity: perplexity(valid_loss),
                test_loss,
                test_perplexity: test_loss.map(perplexity),
                difference: if method == Method::LORA {
                    None
                } else {
                    difference(runs, &lora, seed)
                },
                seconds: runs.iter().map(|run| run.seconds).sum(),
                peak_memory_bytes: runs.iter().filter_map(|run| run.peak_memory_bytes).max(),
                runs: runs.iter().map(|run| RunRow::from(*run)).collect(),
            }
        })
        .collect()
}

impl From<&Run> for RunRow {
    fn from(run: &Run) -> Self {
        Self {
            seed: run.seed,
            chosen_epoch: run.chosen_epoch,
            valid_loss: run.valid_loss,
            test_loss: run.test_loss,
            text: run.text,
            curve: run.curve.clone(),
        }
    }
}

/// `curves.csv`: one line for each epoch of each run.
pub fn curves_csv(runs: &[Run]) -> String {
    let mut csv = String::from("recipe,method,seed,epoch,train_loss,valid_loss,valid_perplexity\n");
    for run in runs {
        for epoch in &run.curve {
            let EpochRecord {
                epoch,
                train_loss,
                valid_loss,
            } = epoch;
            let (recipe, method, seed) = (&run.recipe, run.method, run.seed);
            let perplexity = perplexity(*valid_loss);
            writeln!(
                csv,
                "{recipe},{method},{seed},{epoch},{train_loss},{valid_loss},{perplexity}"
            )
            .expect("a text takes every line");
        }
    }
    csv
}

impl MethodRow {
    /// The chosen epoch of every seed.
    pub fn epochs(&self) -> String {
        let epochs: Vec<String> = self
            .runs
            .iter()
            .filter_map(|run| Some(run.chosen_epoch?.to_string()))
            .collect();
        epochs.join(",")
    }
}

impl fmt::Display for Facts {
    /// Sizes of a recipe's data, in a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            num_train_rows,
            num_valid_rows,
            num_test_rows,
            num_clusters,
            num_train_batches,
            num_scored,
            num_scored_padding,
            ..
        } = self;
        write!(
            f,
            "{num_train_rows} training, {num_valid_rows} validation and {num_test_rows} test rows; {num_clusters} \
             groups in {num_train_batches} batches; {num_scored} validation tokens scored, {num_scored_padding} of \
             them padding"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::runs::test_run;
    use super::*;

    #[test]
    fn curves_have_a_line_for_each_epoch() {
        let csv = curves_csv(&[test_run("as-published", Method::LORA, 1, &[0.0, 0.0])]);
        assert_eq!(csv.lines().nth(1).unwrap(), "as-published,lora,1,1,0,0,1");
    }

    #[test]
    fn differences_are_taken_against_lora_of_the_same_recipe() {
        let runs = [
            test_run("causal", Method::LORA, 1, &[3.0, 5.0]),
            test_run("causal", Method::DENSE, 1, &[2.0, 4.0]),
        ];
        let rows = method_rows(&runs.iter().collect::<Vec<_>>(), RunSeed(1));
        assert!(rows[0].difference.is_none());
        assert!((rows[1].difference.unwrap().mean + 1.0).abs() < 1e-12);
    }
}
