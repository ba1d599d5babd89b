//! What the runs say: a table, learning curves, and sentences with numbers.

use std::fmt::Write as _;
use std::path::PathBuf;

use chameleon_core::{RunSeed, device::BackendKind, perplexity};
use chameleon_models::{
    Interval,
    recipes::{PaperSettings, PublishedLoss},
};
use clap::ValueEnum as _;
use serde::Serialize;

use crate::{
    commands::info::BURN_VERSION,
    memory,
    output::{Column, Page, Results, Table},
    report::{Finding, signed},
    resolve::ReproduceConfig,
};

use super::{
    answers::TextScores,
    findings::findings,
    leaks,
    runs::{Epoch, Facts, Method, Run, difference},
};

pub(super) const PAGE_FILE: &str = "report.html";
pub(super) const TABLE_FILE: &str = "reproduce.json";
pub(super) const CURVES_FILE: &str = "curves.csv";

/// `reproduce.json`
#[derive(Debug, Serialize)]
pub(super) struct ReproduceReport {
    pub(super) command: Vec<String>,
    pub(super) version: &'static str,
    pub(super) burn_version: &'static str,
    pub(super) backends: Vec<BackendKind>,
    pub(super) device: String,
    pub(super) experiment: String,
    pub(super) model: String,
    pub(super) settings: PaperSettings,
    pub(super) loss: PublishedLoss,
    pub(super) prefix: usize,
    pub(super) seeds: Vec<u64>,
    pub(super) recipes: Vec<RecipeRow>,
    pub(super) findings: Vec<Finding>,
    /// Of this invocation; runs that were finished before are not in it.
    pub(super) seconds: f64,
    pub(super) peak_memory_bytes: Option<u64>,
    pub(super) out: PathBuf,
}

#[derive(Debug, Serialize)]
pub(super) struct RecipeRow {
    pub(super) name: String,
    /// Whether conditions hold what is scored.
    pub(super) leaks: bool,
    pub(super) facts: Facts,
    pub(super) methods: Vec<MethodRow>,
}

#[derive(Debug, Serialize)]
pub(super) struct MethodRow {
    pub(super) method: Method,
    pub(super) num_trainable_params: usize,
    /// Means over the seeds, nats per token.
    pub(super) valid_loss: f64,
    pub(super) valid_perplexity: f64,
    pub(super) test_loss: Option<f64>,
    pub(super) test_perplexity: Option<f64>,
    /// Nats per token against LoRA under the same recipe, with a 95 % interval.
    pub(super) difference: Option<Interval>,
    pub(super) seconds: f64,
    /// The most memory that any of its runs needed.
    pub(super) peak_memory_bytes: Option<u64>,
    pub(super) runs: Vec<RunRow>,
}

#[derive(Debug, Serialize)]
pub(super) struct RunRow {
    pub(super) seed: u64,
    pub(super) chosen_epoch: Option<usize>,
    pub(super) valid_loss: f64,
    pub(super) test_loss: Option<f64>,
    pub(super) text: Option<TextScores>,
    pub(super) curve: Vec<Epoch>,
}

impl ReproduceReport {
    pub(super) fn new(runs: &[Run], config: &ReproduceConfig, device: &str, seconds: f64) -> Self {
        let seed = config.seeds[0];
        let recipes = config
            .recipes
            .iter()
            .map(|recipe| {
                let name = recipe.to_string();
                let own: Vec<&Run> = runs.iter().filter(|run| run.recipe == name).collect();
                RecipeRow {
                    leaks: leaks(recipe),
                    facts: own[0].facts,
                    methods: method_rows(&own, seed),
                    name,
                }
            })
            .collect();
        Self {
            command: std::env::args().collect(),
            version: env!("CARGO_PKG_VERSION"),
            burn_version: BURN_VERSION,
            backends: BackendKind::compiled_in(),
            device: device.to_owned(),
            experiment: config
                .experiment
                .to_possible_value()
                .map(|value| value.get_name().to_owned())
                .unwrap_or_default(),
            model: config.model.clone(),
            settings: config.settings.clone(),
            loss: config.loss,
            prefix: config.prefix,
            seeds: config.seeds.iter().map(|seed| seed.0).collect(),
            findings: findings(runs, &config.recipes, seed),
            peak_memory_bytes: runs
                .iter()
                .filter_map(|run| run.peak_memory_bytes)
                .chain(memory::peak_bytes())
                .max(),
            recipes,
            seconds,
            out: config.out.clone(),
        }
    }
}

impl ReproduceReport {
    /// What was run, in a sentence.
    pub(super) fn sentence(&self) -> String {
        let PaperSettings {
            batch_size,
            seq_len,
            num_epochs,
            rank,
            alpha,
            learning_rate,
            ..
        } = self.settings;
        format!(
            "{}, {}: batches of {batch_size}, {seq_len} tokens, {num_epochs} epochs, rank {rank}, alpha {alpha}, \
             learning rate {learning_rate}, seeds {:?}",
            self.experiment, self.model, self.seeds
        )
    }
}

fn method_rows(runs: &[&Run], seed: RunSeed) -> Vec<MethodRow> {
    let lora = of_method(runs, Method::Lora);
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
                difference: if method == Method::Lora {
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

/// The runs of one method among those of one recipe.
pub(super) fn of_method<'a>(runs: &[&'a Run], method: Method) -> Vec<&'a Run> {
    runs.iter()
        .filter(|run| run.method == method)
        .copied()
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
pub(super) fn curves_csv(runs: &[Run]) -> String {
    let mut csv = String::from("recipe,method,seed,epoch,train_loss,valid_loss,valid_perplexity\n");
    for run in runs {
        for epoch in &run.curve {
            let Epoch {
                number,
                train_loss,
                valid_loss,
            } = epoch;
            let (recipe, method, seed) = (&run.recipe, run.method.name(), run.seed);
            let perplexity = perplexity(*valid_loss);
            writeln!(
                csv,
                "{recipe},{method},{seed},{number},{train_loss},{valid_loss},{perplexity}"
            )
            .expect("a text takes every line");
        }
    }
    csv
}

impl Results for ReproduceReport {
    fn write_text(&self, page: &mut Page) {
        page.line(self.sentence());
        for recipe in &self.recipes {
            recipe.write_text(page);
        }
        page.heading("findings");
        for finding in &self.findings {
            page.line(finding.line());
        }
        page.heading("files");
        for file in [PAGE_FILE, TABLE_FILE, CURVES_FILE] {
            page.line(self.out.join(file).display());
        }
    }
}
impl RecipeRow {
    fn write_text(&self, page: &mut Page) {
        page.heading(&self.name);
        page.line(self.sizes());
        let mut table = Table::new([
            Column::text("method"),
            Column::number("trained"),
            Column::number("valid loss"),
            Column::number("valid ppl"),
            Column::number("epoch"),
            Column::number("test ppl"),
            Column::text("nats against lora [95 %]"),
            Column::number("seconds"),
        ]);
        for row in &self.methods {
            table.row([
                row.method.name().to_owned(),
                row.num_trainable_params.to_string(),
                format!("{:.4}", row.valid_loss),
                format!("{:.3}", row.valid_perplexity),
                row.epochs(),
                row.test_perplexity
                    .map_or_else(String::new, |value| format!("{value:.3}")),
                row.difference
                    .map_or_else(String::new, |difference| signed(difference, 4)),
                format!("{:.0}", row.seconds),
            ]);
        }
        page.table(&table);
        self.write_answers(page);
    }

    /// What the recipe makes of the data, in a sentence.
    pub(super) fn sizes(&self) -> String {
        let Facts {
            num_train_rows,
            num_valid_rows,
            num_test_rows,
            num_clusters,
            num_train_batches,
            num_scored,
            num_scored_padding,
            ..
        } = self.facts;
        format!(
            "{num_train_rows} training, {num_valid_rows} validation and {num_test_rows} test rows; {num_clusters} \
             groups in {num_train_batches} batches; {num_scored} validation tokens scored, {num_scored_padding} of \
             them padding"
        )
    }

    /// Scores of the first seed's answers.
    fn write_answers(&self, page: &mut Page) {
        let rows = self.answer_rows();
        if rows.is_empty() {
            return;
        }
        let [method, scores @ ..] = ANSWER_COLUMNS;
        let columns = std::iter::once(Column::text(method)).chain(scores.map(Column::number));
        let mut table = Table::new(columns);
        for row in rows {
            table.row(row);
        }
        page.table(&table);
    }

    /// What the answers of the first seed scored, for [`ANSWER_COLUMNS`].
    pub(super) fn answer_rows(&self) -> Vec<[String; 7]> {
        let scored = self
            .methods
            .iter()
            .filter_map(|row| Some((row.method.name(), row.runs.first()?.text?)));
        scored
            .map(|(method, text)| {
                let score = |score: f64| format!("{score:.2}");
                [
                    method.to_owned(),
                    text.num_answers.to_string(),
                    score(text.bleu),
                    score(text.rouge1),
                    score(text.rouge2),
                    score(text.rouge_l),
                    score(text.meteor),
                ]
            })
            .collect()
    }
}

impl MethodRow {
    /// The chosen epoch of every seed.
    pub(super) fn epochs(&self) -> String {
        let epochs: Vec<String> = self
            .runs
            .iter()
            .filter_map(|run| Some(run.chosen_epoch?.to_string()))
            .collect();
        epochs.join(",")
    }
}

pub(super) const ANSWER_COLUMNS: [&str; 7] = [
    "answers by",
    "answers",
    "BLEU",
    "ROUGE-1",
    "ROUGE-2",
    "ROUGE-L",
    "METEOR",
];

#[cfg(test)]
mod tests {
    use super::super::runs::test_run;
    use super::*;

    #[test]
    fn curves_have_a_line_for_each_epoch() {
        let csv = curves_csv(&[test_run("as-published", Method::Lora, 1, &[0.0, 0.0])]);
        assert_eq!(csv.lines().nth(1).unwrap(), "as-published,lora,1,1,0,0,1");
    }

    #[test]
    fn differences_are_taken_against_lora_of_the_same_recipe() {
        let runs = [
            test_run("causal", Method::Lora, 1, &[3.0, 5.0]),
            test_run("causal", Method::Dense, 1, &[2.0, 4.0]),
        ];
        let rows = method_rows(&runs.iter().collect::<Vec<_>>(), RunSeed(1));
        assert!(rows[0].difference.is_none());
        assert!((rows[1].difference.unwrap().mean + 1.0).abs() < 1e-12);
    }
}
