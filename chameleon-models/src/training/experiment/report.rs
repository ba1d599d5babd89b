//! The results of a comparison: one row for each method, paired differences, and findings.

use std::collections::BTreeSet;

use chameleon_core::RunSeed;
use chameleon_hypernet::memory::MemoryGate;
use serde::Serialize;

use crate::data::UnitKind;
use crate::training::eval::{ExampleScore, ScoreSummary};
use crate::training::fit::KeptEpoch;
use crate::training::method::Method;
use crate::training::prepare::Split;

use super::bootstrap::Interval;
use super::comparison::Comparison;
use super::config::ComparisonConfig;
use super::memories::{ExperimentMemories, MemoryFacts};
use super::peak_memory;
use super::protocol;
use super::runs::{MethodRuns, TrainedRun};
use super::scores::{
    Against, BreakdownRow, Finding, MethodScores, PairedComparison, breakdown, finding,
};

/// The results of a comparison.
#[derive(Debug, Clone, Serialize)]
pub struct ComparisonReport {
    /// The frozen model.
    pub model: String,
    /// Seeds of the trainings.
    pub seeds: Vec<u64>,
    /// Learning rates that every method was tuned over.
    pub learning_rates: Vec<f64>,
    /// Epochs at most.
    pub num_epochs: usize,
    /// Training examples.
    pub num_train_examples: usize,
    /// Validation examples.
    pub num_valid_examples: usize,
    /// Test examples.
    pub num_test_examples: usize,
    /// Documents that the test examples were cut from.
    pub num_test_documents: usize,
    /// The units that the intervals resample.
    pub resampled: Resampled,
    /// Scored tokens of the test.
    pub num_test_tokens: usize,
    /// Clusters of the training prompts.
    pub num_clusters: usize,
    /// The groups' memories, if a method uses them.
    pub memory: Option<MemoryFacts>,
    /// Tokens of a prompt.
    pub prefix: usize,
    /// Tokens of an example at most.
    pub seq_len: usize,
    /// How the training groups agree with the labels, 0 to 1.
    pub label_mutual_information: Option<f64>,
    /// The method whose differences are broken down by label and cluster, and its baseline.
    pub headline: Option<Headline>,
    /// One row for each method.
    pub methods: Vec<MethodRow>,
    /// Scores by label.
    pub labels: Vec<BreakdownRow>,
    /// Scores by cluster.
    pub clusters: Vec<BreakdownRow>,
    /// Every hypernetwork and memory against its baselines and controls.
    pub comparisons: Vec<ComparisonRow>,
    /// Conclusions and warnings.
    pub findings: Vec<Finding>,
    /// Of this call; runs that were stored before are not included.
    pub seconds: f64,
    /// Peak memory of the process, if the system reports it.
    pub peak_memory_bytes: Option<u64>,
}

/// The units that intervals resample.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Resampled {
    /// Examples of one unit are resampled together.
    pub unit: UnitKind,
    /// Of the test.
    pub num_units: usize,
    /// Seeds of the trainings.
    pub num_seeds: usize,
}

impl std::fmt::Display for Resampled {
    /// `37 sources and 3 seeds`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            unit,
            num_units,
            num_seeds,
        } = self;
        let seeds = if *num_seeds == 1 { "seed" } else { "seeds" };
        write!(f, "{num_units} {} and {num_seeds} {seeds}", unit.name())
    }
}

/// The method that a report is about.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Headline {
    /// The method.
    pub method: Method,
    /// The method that it is compared with.
    pub baseline: Method,
}

/// One paired difference.
#[derive(Debug, Clone, Serialize)]
pub struct ComparisonRow {
    /// The method.
    pub method: Method,
    /// The method that it is compared with.
    pub against: Method,
    /// Nats per token, with a 95 % interval; below zero the method is better.
    pub difference: Interval,
}

/// The results of one method.
#[derive(Debug, Clone, Serialize)]
pub struct MethodRow {
    /// The method.
    pub method: Method,
    /// Trainable parameters, those of a gate included.
    pub num_trainable_params: usize,
    /// Chosen on the validation texts with the first seed.
    pub chosen: Option<Choice>,
    /// Nats per token over all seeds.
    pub loss: f64,
    /// `exp` of the loss.
    pub perplexity: f64,
    /// Comparable across tokenizers.
    pub bits_per_byte: f64,
    /// In the order of the seeds.
    pub per_seed_perplexity: Vec<f64>,
    /// The baseline of the difference.
    pub baseline: Option<Method>,
    /// Nats per token against the baseline, with a 95 % interval.
    pub difference: Option<Interval>,
    /// All trainings and scorings.
    pub seconds: f64,
    /// The highest peak memory of its trainings.
    pub peak_memory_bytes: Option<u64>,
    /// The first seed with every learning rate.
    pub trials: Vec<TrainedRun>,
    /// Every seed with the chosen one.
    pub runs: Vec<TrainedRun>,
}

/// The settings chosen for a method.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Choice {
    /// The learning rate.
    pub learning_rate: f64,
    /// The epoch.
    #[serde(flatten)]
    pub kept: KeptEpoch,
}

/// Scores by method, in the order of the table.
struct AllScores(Vec<(Method, MethodScores)>);

impl AllScores {
    fn of(methods: &[MethodRuns], test: &Split) -> Self {
        let scores = |runs: &MethodRuns| MethodScores {
            name: runs.method.to_string(),
            runs: runs.scored.iter().map(|run| run.scores.clone()).collect(),
            units: test.units.of_example.clone(),
        };
        Self(
            methods
                .iter()
                .map(|runs| (runs.method, scores(runs)))
                .collect(),
        )
    }

    fn get(&self, method: Method) -> Option<&MethodScores> {
        let found = self.0.iter().find(|(found, _)| *found == method);
        found.map(|(_, scores)| scores)
    }

    fn names(&self) -> Vec<Method> {
        self.0.iter().map(|(method, _)| *method).collect()
    }

    fn baseline(&self, method: Method) -> Option<Method> {
        method.baseline(&self.names())
    }

    /// A method and its baseline.
    fn pair(&self, method: Method) -> Option<PairedComparison<'_>> {
        Some(PairedComparison {
            method: self.get(method)?,
            baseline: self.get(self.baseline(method)?)?,
        })
    }

    /// The method that the report is about, and its baseline.
    fn headline(&self) -> Option<Headline> {
        let method = protocol::headline(&self.names())?;
        Some(Headline {
            method,
            baseline: self.baseline(method)?,
        })
    }

    /// Every hypernetwork and memory against its baselines and controls.
    fn comparisons(&self, seed: RunSeed) -> Vec<(ComparisonRow, Against)> {
        let mut rows = Vec::new();
        for (method, scores) in &self.0 {
            for (against, kind) in method.measured_against() {
                let Some(other) = self.get(against) else {
                    continue;
                };
                let difference = scores.less(other, |_| true, seed);
                let row = ComparisonRow {
                    method: *method,
                    against,
                    difference: difference.expect("there are test examples"),
                };
                rows.push((row, kind));
            }
        }
        rows
    }
}

impl ComparisonReport {
    /// Summarises the runs of a comparison.
    pub fn new(comparison: &Comparison<'_>, methods: &[MethodRuns], seconds: f64) -> Self {
        let Comparison {
            config,
            texts,
            test,
            ..
        } = comparison;
        let data = &texts.data;
        let ComparisonConfig {
            seeds, training, ..
        } = config;
        let seed = seeds[0];
        let all = AllScores::of(methods, test);
        let scores: Vec<&MethodScores> = all.0.iter().map(|(_, scores)| scores).collect();
        let headline = all.headline();
        let pair = headline.and_then(|names| all.pair(names.method));
        let examples = &test.data.examples;
        let documents: BTreeSet<usize> = examples
            .iter()
            .map(|example| example.document_idx)
            .collect();
        let resampled = Resampled {
            unit: test.units.kind,
            num_units: test.units.count(),
            num_seeds: seeds.len(),
        };
        let num_epochs = training.optimizer.num_epochs;
        let compared = all.comparisons(seed);
        let mut findings: Vec<Finding> = compared
            .iter()
            .map(|(row, kind)| finding(row.method, row.against, *kind, row.difference))
            .collect();
        findings.extend(cautions(methods, num_epochs, resampled));
        Self {
            model: data.loaded.identity.to_string(),
            seeds: seeds.iter().map(|seed| seed.0).collect(),
            learning_rates: config.learning_rates.clone(),
            num_epochs,
            num_train_examples: data.train.data.examples.len(),
            num_valid_examples: data.valid.data.examples.len(),
            num_test_examples: examples.len(),
            num_test_documents: documents.len(),
            resampled,
            num_test_tokens: examples
                .iter()
                .map(|example| example.sequence.scored().len())
                .sum(),
            num_clusters: training.num_clusters,
            memory: texts.memories.as_ref().map(ExperimentMemories::facts),
            prefix: training.span.prefix,
            seq_len: training.span.seq_len,
            label_mutual_information: data
                .agreement
                .as_ref()
                .map(|agreement| agreement.normalized_mutual_information),
            headline,
            methods: methods
                .iter()
                .map(|runs| method_row(runs, &all, seed))
                .collect(),
            labels: breakdown(
                &scores,
                pair,
                |score: &ExampleScore| score.label_idx,
                |label_idx| test.label_names[label_idx].clone(),
                seed,
            ),
            clusters: breakdown(
                &scores,
                pair,
                |score: &ExampleScore| Some(score.cluster_idx),
                |cluster_idx| cluster_idx.to_string(),
                seed,
            ),
            comparisons: compared.into_iter().map(|(row, _)| row).collect(),
            findings,
            seconds,
            peak_memory_bytes: methods
                .iter()
                .filter_map(peak_memory)
                .chain(peak_memory::bytes())
                .max(),
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

fn method_row(runs: &MethodRuns, all: &AllScores, seed: RunSeed) -> MethodRow {
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
    let pair = all.pair(runs.method);
    MethodRow {
        method: runs.method,
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
        baseline: all.baseline(runs.method),
        difference: pair.and_then(|pair| pair.method.less(pair.baseline, |_| true, seed)),
        seconds: trained.map(|run| run.seconds).chain(scored).sum(),
        peak_memory_bytes: peak_memory(runs),
        trials: runs.trials.clone(),
        runs: runs.chosen.clone(),
    }
}

/// With fewer units than this, a bootstrap interval is rough.
const FEW_UNITS: usize = 30;

/// Warnings about what the intervals do not cover, and about settings at the edge of their range.
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
        let names: Vec<String> = methods
            .iter()
            .filter(|runs| is_meant(runs))
            .map(|runs| runs.method.to_string())
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
