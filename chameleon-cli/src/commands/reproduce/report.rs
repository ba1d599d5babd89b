//! The results of a reproduction: tables on standard output, and `reproduce.json`.

use std::path::PathBuf;

use chameleon_core::device::BackendKind;
use chameleon_models::training::experiment::signed;
use chameleon_models::training::recipes::{
    Experiment, MethodRow, PaperSettings, PublishedLoss, RecipeRow, ReproductionReport, Run,
};
use serde::Serialize;

use crate::{
    commands::{Context, info::BURN_VERSION},
    output::{Column, Page, Results, Table},
    resolve::ReproduceConfig,
};

pub(super) const PAGE_FILE: &str = "report.html";
pub(super) const TABLE_FILE: &str = "reproduce.json";
pub(super) const CURVES_FILE: &str = "curves.csv";

/// `reproduce.json`
#[derive(Debug, Serialize)]
pub(super) struct ReproduceResults {
    pub(super) command: Vec<String>,
    pub(super) version: &'static str,
    pub(super) burn_version: &'static str,
    pub(super) backends: Vec<BackendKind>,
    pub(super) device: String,
    pub(super) experiment: Experiment,
    pub(super) model: String,
    pub(super) settings: PaperSettings,
    pub(super) loss: PublishedLoss,
    pub(super) prefix: usize,
    pub(super) seeds: Vec<u64>,
    #[serde(flatten)]
    pub(super) report: ReproductionReport,
    /// Of this invocation; runs that were stored before are not included.
    pub(super) seconds: f64,
    pub(super) out: PathBuf,
}

impl ReproduceResults {
    pub(super) fn new(
        runs: &[Run],
        config: &ReproduceConfig,
        seconds: f64,
        context: &Context,
    ) -> Self {
        Self {
            command: std::env::args().collect(),
            version: env!("CARGO_PKG_VERSION"),
            burn_version: BURN_VERSION,
            backends: BackendKind::compiled_in(),
            device: context.settings.device.to_string(),
            experiment: config.experiment,
            model: config.model.clone(),
            settings: config.settings.clone(),
            loss: config.loss,
            prefix: config.prefix,
            seeds: config.seeds.iter().map(|seed| seed.0).collect(),
            report: ReproductionReport::new(runs, &config.recipes, config.seeds[0]),
            seconds,
            out: config.out.clone(),
        }
    }

    /// The settings, in a sentence.
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

impl Results for ReproduceResults {
    fn write_text(&self, page: &mut Page) {
        page.line(self.sentence());
        for recipe in &self.report.recipes {
            write_recipe(recipe, page);
        }
        page.heading("findings");
        for finding in &self.report.findings {
            page.line(finding.line());
        }
        page.heading("files");
        for file in [PAGE_FILE, TABLE_FILE, CURVES_FILE] {
            page.line(self.out.join(file).display());
        }
    }
}

fn write_recipe(recipe: &RecipeRow, page: &mut Page) {
    page.heading(&recipe.name);
    page.line(recipe.facts);
    let mut table = Table::new([
        Column::text("method"),
        Column::number("parameters"),
        Column::number("valid loss"),
        Column::number("valid ppl"),
        Column::number("epoch"),
        Column::number("test ppl"),
        Column::text("nats against lora [95 %]"),
        Column::number("seconds"),
    ]);
    for row in &recipe.methods {
        table.row(method_cells(row));
    }
    page.table(&table);
    write_answers(recipe, page);
}

/// What both tables of a recipe show of a method.
pub(super) fn method_cells(row: &MethodRow) -> [String; 8] {
    [
        row.method.to_string(),
        row.num_trainable_params.to_string(),
        format!("{:.4}", row.valid_loss),
        format!("{:.3}", row.valid_perplexity),
        row.epochs(),
        row.test_perplexity
            .map_or_else(String::new, |value| format!("{value:.3}")),
        row.difference
            .map_or_else(String::new, |difference| signed(difference, 4)),
        format!("{:.0}", row.seconds),
    ]
}

/// Scores of the first seed's answers.
fn write_answers(recipe: &RecipeRow, page: &mut Page) {
    let rows = answer_rows(recipe);
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

/// The scores of the first seed's answers, for [`ANSWER_COLUMNS`].
pub(super) fn answer_rows(recipe: &RecipeRow) -> Vec<[String; 7]> {
    let scored = recipe
        .methods
        .iter()
        .filter_map(|row| Some((row.method, row.runs.first()?.text?)));
    scored
        .map(|(method, text)| {
            let score = |score: f64| format!("{score:.2}");
            [
                method.to_string(),
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

pub(super) const ANSWER_COLUMNS: [&str; 7] = [
    "answers by",
    "answers",
    "BLEU",
    "ROUGE-1",
    "ROUGE-2",
    "ROUGE-L",
    "METEOR",
];
