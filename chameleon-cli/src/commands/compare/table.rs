//! What `compare` found: a table, differences with intervals, and what they allow one to say.

use std::path::PathBuf;

use chameleon_core::{BackendKind, RunSeed};
use chameleon_hypernet::MemoryGate;
use chameleon_models::{ExampleScore, Interval, ScoreSummary, data::UnitKind};
use serde::Serialize;

use crate::{
    commands::info::BURN_VERSION,
    memory,
    output::{Column, Page, Results, Table},
    report::{
        BreakdownRow, Duel, Finding, MethodScores, Opponent, breakdown, finding, percent, signed,
    },
};

use super::duels::AllScores;
use super::recall::{MemoryFacts, MemoryScorer};
use super::runs::{Comparison, MethodRuns};
use super::store::{KeptEpoch, TrainedRun};

/// `compare.json`
#[derive(Debug, Clone, Serialize)]
pub(super) struct CompareReport {
    pub(super) command: Vec<String>,
    pub(super) version: &'static str,
    pub(super) burn_version: &'static str,
    pub(super) backends: Vec<BackendKind>,
    pub(super) device: String,
    pub(super) model: String,
    pub(super) seeds: Vec<u64>,
    pub(super) learning_rates: Vec<f64>,
    pub(super) num_epochs: usize,
    pub(super) num_train_examples: usize,
    pub(super) num_valid_examples: usize,
    pub(super) num_test_examples: usize,
    pub(super) num_test_documents: usize,
    pub(super) resampled: Resampled,
    pub(super) num_test_tokens: usize,
    pub(super) num_clusters: usize,
    /// What groups remember, if a method uses it.
    pub(super) memory: Option<MemoryFacts>,
    pub(super) prefix: usize,
    pub(super) seq_len: usize,
    pub(super) label_mutual_information: Option<f64>,
    /// The method that the differences of parts are about, and its baseline.
    pub(super) headline: Option<HeadlineNames>,
    pub(super) methods: Vec<MethodRow>,
    pub(super) labels: Vec<BreakdownRow>,
    pub(super) clusters: Vec<BreakdownRow>,
    /// Every hypernetwork against everything it has to beat.
    pub(super) duels: Vec<DuelRow>,
    pub(super) findings: Vec<Finding>,
    /// Of this invocation; runs that were finished before are not in it.
    pub(super) seconds: f64,
    pub(super) peak_memory_bytes: Option<u64>,
    pub(super) out: PathBuf,
}

/// What the intervals are drawn from.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Resampled {
    /// Examples of one unit are drawn together.
    pub(super) unit: UnitKind,
    /// Of the test.
    pub(super) num_units: usize,
    pub(super) num_seeds: usize,
}

impl Resampled {
    /// `37 sources and 3 seeds`
    pub(super) fn words(self) -> String {
        let Self {
            unit,
            num_units,
            num_seeds,
        } = self;
        let seeds = if num_seeds == 1 { "seed" } else { "seeds" };
        format!("{num_units} {} and {num_seeds} {seeds}", unit.name())
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct HeadlineNames {
    pub(super) method: &'static str,
    pub(super) baseline: &'static str,
}

/// One difference.
#[derive(Debug, Clone, Serialize)]
pub(super) struct DuelRow {
    pub(super) method: &'static str,
    pub(super) against: &'static str,
    #[serde(skip)]
    pub(super) opponent: Opponent,
    /// Nats per token, with a 95 % interval.
    pub(super) difference: Interval,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct MethodRow {
    pub(super) method: &'static str,
    pub(super) num_trainable_params: usize,
    /// Chosen on the validation texts with the first seed.
    pub(super) chosen: Option<Choice>,
    /// Nats per token over all seeds.
    pub(super) loss: f64,
    pub(super) perplexity: f64,
    pub(super) bits_per_byte: f64,
    pub(super) per_seed_perplexity: Vec<f64>,
    /// What the difference is against.
    pub(super) baseline: Option<&'static str>,
    /// Nats per token against the baseline, with a 95 % interval.
    pub(super) difference: Option<Interval>,
    /// All trainings and scorings.
    pub(super) seconds: f64,
    /// The most memory that any of its trainings needed.
    pub(super) peak_memory_bytes: Option<u64>,
    /// The first seed with every learning rate.
    pub(super) trials: Vec<TrainedRun>,
    /// Every seed with the chosen one.
    pub(super) runs: Vec<TrainedRun>,
}

/// What was chosen for a method.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Choice {
    pub(super) learning_rate: f64,
    #[serde(flatten)]
    pub(super) kept: KeptEpoch,
}

impl CompareReport {
    /// Puts the runs of a comparison together; `out` is where its files go.
    pub(super) fn new(
        comparison: &Comparison<'_>,
        methods: &[MethodRuns],
        out: PathBuf,
        seconds: f64,
    ) -> Self {
        let Comparison {
            config, prepared, ..
        } = comparison;
        let seed = config.seeds[0];
        let all = AllScores::of(methods, comparison.test);
        let scores: Vec<&MethodScores> = all.methods.iter().map(|(_, scores)| scores).collect();
        let headline = all.headline();
        let test = &comparison.test.data.examples;
        let label_names = &comparison.test.label_names;
        let documents: std::collections::BTreeSet<usize> =
            test.iter().map(|example| example.document_idx).collect();
        let resampled = Resampled {
            unit: comparison.test.units.kind,
            num_units: comparison.test.units.count(),
            num_seeds: config.seeds.len(),
        };
        let duels = all.duels(seed);
        let mut findings: Vec<Finding> = duels
            .iter()
            .map(|duel| finding(duel.method, duel.against, duel.opponent, duel.difference))
            .collect();
        findings.extend(cautions(
            methods,
            config.training.optimizer.num_epochs,
            resampled,
        ));
        Self {
            command: std::env::args().collect(),
            version: env!("CARGO_PKG_VERSION"),
            burn_version: BURN_VERSION,
            backends: BackendKind::compiled_in(),
            device: comparison.context.settings.device.to_string(),
            model: prepared.loaded.identity.to_string(),
            seeds: config.seeds.iter().map(|seed| seed.0).collect(),
            learning_rates: config.learning_rates.clone(),
            num_epochs: config.training.optimizer.num_epochs,
            num_train_examples: prepared.train.data.examples.len(),
            num_valid_examples: prepared.held_out.data.examples.len(),
            num_test_examples: test.len(),
            num_test_documents: documents.len(),
            resampled,
            num_test_tokens: test
                .iter()
                .map(|example| example.sequence.scored().len())
                .sum(),
            num_clusters: config.training.num_clusters,
            memory: comparison.recall.map(MemoryScorer::facts),
            prefix: config.training.span.prefix,
            seq_len: config.training.span.seq_len,
            label_mutual_information: prepared
                .agreement
                .as_ref()
                .map(|agreement| agreement.normalized_mutual_information),
            headline: headline.map(|duel| HeadlineNames {
                method: duel.method.name,
                baseline: duel.baseline.name,
            }),
            methods: methods
                .iter()
                .map(|runs| method_row(runs, all.duel(runs.method), seed))
                .collect(),
            labels: breakdown(
                &scores,
                headline,
                |score: &ExampleScore| score.label_idx,
                |label_idx| label_names[label_idx].clone(),
                seed,
            ),
            clusters: breakdown(
                &scores,
                headline,
                |score: &ExampleScore| Some(score.cluster_idx),
                |cluster_idx| cluster_idx.to_string(),
                seed,
            ),
            duels,
            findings,
            seconds,
            peak_memory_bytes: methods
                .iter()
                .filter_map(peak_memory)
                .chain(memory::peak_bytes())
                .max(),
            out,
        }
    }
}

fn peak_memory(runs: &MethodRuns) -> Option<u64> {
    runs.trials
        .iter()
        .chain(&runs.chosen)
        .filter_map(|run| run.peak_memory_bytes)
        .max()
}

fn method_row(runs: &MethodRuns, duel: Option<Duel<'_>>, seed: RunSeed) -> MethodRow {
    let per_seed: Vec<ScoreSummary> = runs
        .scored
        .iter()
        .map(|run| run.scores.iter().collect())
        .collect();
    let summary: ScoreSummary = runs.scored.iter().flat_map(|run| &run.scores).collect();
    let first = runs.chosen.first();
    let gate = runs.scored.first().and_then(|run| run.gate.as_ref());
    let gate_params = gate.map_or(0, MemoryGate::num_params);
    // The chosen trial is the first seed's run.
    let trained = runs.trials.iter().chain(runs.chosen.iter().skip(1));
    let scored = runs.scored.iter().map(|run| run.seconds);
    MethodRow {
        method: runs.method.name(),
        num_trainable_params: first.map_or(0, |run| run.num_trainable_params) + gate_params,
        chosen: first.and_then(|run| {
            Some(Choice {
                learning_rate: run.learning_rate,
                kept: run.kept?,
            })
        }),
        loss: summary.mean_nll(),
        perplexity: summary.perplexity(),
        bits_per_byte: summary.bits_per_byte(),
        per_seed_perplexity: per_seed.iter().map(ScoreSummary::perplexity).collect(),
        baseline: duel.map(|duel| duel.baseline.name),
        difference: duel.and_then(|duel| duel.method.less(duel.baseline, |_| true, seed)),
        seconds: trained.map(|run| run.seconds).chain(scored).sum(),
        peak_memory_bytes: peak_memory(runs),
        trials: runs.trials.clone(),
        runs: runs.chosen.clone(),
    }
}

/// Units below which a bootstrap over them says little.
const FEW_UNITS: usize = 30;

/// What the intervals do not hold, and choices that may not be the best ones.
fn cautions(methods: &[MethodRuns], num_epochs: usize, resampled: Resampled) -> Vec<Finding> {
    let mut notes = Vec::new();
    if methods.iter().all(|runs| runs.scored.len() == 1) {
        notes.push(Finding::note(
            "one seed: the intervals hold the variation of texts, not that of training; \
             add `--num-seeds 3`",
        ));
    }
    if resampled.num_units < FEW_UNITS {
        notes.push(Finding::note(format!(
            "the test has {} {}: intervals from so few are rough",
            resampled.num_units,
            resampled.unit.name()
        )));
    }
    let names = |is_meant: &dyn Fn(&MethodRuns) -> bool| -> Option<String> {
        let names: Vec<&str> = methods
            .iter()
            .filter(|runs| is_meant(runs))
            .map(|runs| runs.method.name())
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    if let Some(names) = names(&is_at_the_end) {
        notes.push(Finding::note(format!(
            "the chosen learning rate is the lowest or the highest of the list for {names}: \
             a wider `--lr` may serve better"
        )));
    }
    let improves = |runs: &MethodRuns| {
        let kept = runs.chosen.first().and_then(|run| run.kept);
        kept.is_some_and(|kept| kept.epoch == num_epochs)
    };
    if let Some(names) = names(&improves) {
        notes.push(Finding::note(format!(
            "the last epoch was the best for {names}: more `--epochs` may serve better"
        )));
    }
    notes
}

fn is_at_the_end(runs: &MethodRuns) -> bool {
    runs.chosen.first().is_some_and(|chosen| {
        let rates = || runs.trials.iter().map(|trial| trial.learning_rate);
        let is_lowest = rates().all(|rate| rate >= chosen.learning_rate);
        let is_highest = rates().all(|rate| rate <= chosen.learning_rate);
        is_lowest || is_highest
    })
}

impl Results for CompareReport {
    fn write_text(&self, page: &mut Page) {
        page.line(format_args!(
            "{} training, {} validation and {} test examples of {} tokens, prefix {}, {} groups, seeds {:?}",
            self.num_train_examples,
            self.num_valid_examples,
            self.num_test_examples,
            self.seq_len,
            self.prefix,
            self.num_clusters,
            self.seeds
        ));
        page.heading("methods");
        self.write_methods(page);
        page.line(format_args!(
            "intervals: 95 % of the differences when {} are drawn anew",
            self.resampled.words()
        ));
        if !self.labels.is_empty() {
            self.write_breakdown(page, "perplexity by label", &self.labels);
        }
        self.write_breakdown(page, "perplexity by group", &self.clusters);
        if !self.findings.is_empty() {
            page.heading("findings");
        }
        for finding in &self.findings {
            page.line(finding.line());
        }
        page.heading("files");
        for file in ["report.html", "compare.json", "runs"] {
            page.line(self.out.join(file).display());
        }
    }
}

impl CompareReport {
    fn write_methods(&self, page: &mut Page) {
        let mut table = Table::new([
            Column::text("method"),
            Column::number("trained"),
            Column::number("lr"),
            Column::number("epoch"),
            Column::number("perplexity"),
            Column::number("nats/token"),
            Column::text("difference [95 %]"),
            Column::text("perplexity [95 %]"),
            Column::text("against"),
            Column::number("seconds"),
        ]);
        for row in &self.methods {
            let interval =
                |write: fn(Interval) -> String| row.difference.map_or_else(String::new, write);
            table.row([
                row.method.to_owned(),
                row.num_trainable_params.to_string(),
                row.chosen
                    .map_or_else(String::new, |chosen| chosen.learning_rate.to_string()),
                row.chosen
                    .map_or_else(String::new, |chosen| chosen.kept.epoch.to_string()),
                format!("{:.3}", row.perplexity),
                format!("{:.4}", row.loss),
                interval(|interval| signed(interval, 4)),
                interval(percent),
                row.baseline.unwrap_or_default().to_owned(),
                format!("{:.0}", row.seconds),
            ]);
        }
        page.table(&table);
    }

    fn write_breakdown(&self, page: &mut Page, title: &str, rows: &[BreakdownRow]) {
        page.heading(title);
        let columns = self.methods.iter().map(|row| Column::number(row.method));
        let mut table = Table::new(
            [Column::text(""), Column::number("examples")]
                .into_iter()
                .chain(columns),
        );
        for row in rows {
            let cells = self.methods.iter().map(|method| {
                row.perplexity
                    .get(method.method)
                    .map_or_else(String::new, |value| format!("{value:.2}"))
            });
            table.row(
                [row.name.clone(), row.num_examples.to_string()]
                    .into_iter()
                    .chain(cells),
            );
        }
        page.table(&table);
    }
}
