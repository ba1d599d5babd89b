//! What `compare` found: a table, differences with intervals, and what they allow one to say.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chameleon_core::{BackendKind, perplexity};
use chameleon_models::{
    ExampleScore, Interval, PairedSequence, ScoreSummary, eval::summaries_by, paired_interval,
};
use serde::Serialize;

use crate::{
    args::CompareMethod,
    commands::prepare::Prepared,
    output::{Column, Page, Results, Table},
    resolve::CompareConfig,
};

/// All runs of one method.
pub(super) struct MethodRuns {
    method: CompareMethod,
    pub(super) num_trainable_params: usize,
    /// Per seed, per held-out example.
    pub(super) scores: Vec<Vec<ExampleScore>>,
    /// Per seed, training and scoring.
    pub(super) seconds: Vec<f64>,
}

impl MethodRuns {
    pub(super) fn new(method: CompareMethod) -> Self {
        Self {
            method,
            num_trainable_params: 0,
            scores: Vec::new(),
            seconds: Vec::new(),
        }
    }

    /// The seeds of the comparison; a method without randomness repeats its only run.
    fn run(&self, seed_idx: usize) -> &[ExampleScore] {
        &self.scores[seed_idx.min(self.scores.len() - 1)]
    }

    fn summary(&self) -> ScoreSummary {
        self.scores.iter().flatten().collect()
    }

    /// What this method lost less what `other` lost, paired by seed and example.
    fn less(&self, other: &Self, seed: chameleon_core::RunSeed) -> Interval {
        let num_seeds = self.scores.len().max(other.scores.len());
        let sequences: Vec<PairedSequence> = self
            .run(0)
            .iter()
            .enumerate()
            .map(|(row, score)| PairedSequence {
                differences: (0..num_seeds)
                    .map(|seed_idx| self.run(seed_idx)[row].nll - other.run(seed_idx)[row].nll)
                    .collect(),
                num_tokens: score.num_tokens,
                document_idx: score.document_idx,
            })
            .collect();
        paired_interval(&sequences, seed)
    }
}

/// `compare.json`
#[derive(Debug, Serialize)]
pub(super) struct CompareReport {
    command: Vec<String>,
    version: &'static str,
    backends: Vec<BackendKind>,
    seeds: Vec<u64>,
    num_train_examples: usize,
    num_test_examples: usize,
    num_test_tokens: usize,
    num_clusters: usize,
    prefix: usize,
    seq_len: usize,
    label_mutual_information: Option<f64>,
    /// What the differences are against.
    baseline: Option<&'static str>,
    methods: Vec<MethodRow>,
    labels: Vec<BreakdownRow>,
    clusters: Vec<BreakdownRow>,
    findings: Vec<String>,
    seconds: f64,
    peak_memory_bytes: Option<u64>,
    out: PathBuf,
}

#[derive(Debug, Serialize)]
struct MethodRow {
    method: &'static str,
    num_trainable_params: usize,
    /// Nats per token over all seeds.
    loss: f64,
    perplexity: f64,
    bits_per_byte: f64,
    per_seed_perplexity: Vec<f64>,
    /// Nats per token against the baseline, with a 95 % interval.
    difference: Option<Interval>,
    seconds: f64,
}

/// Perplexity of every method on a part of the held-out examples.
#[derive(Debug, Serialize)]
struct BreakdownRow {
    name: String,
    num_examples: usize,
    perplexity: BTreeMap<&'static str, f64>,
}

impl CompareReport {
    pub(super) fn new(
        methods: &[MethodRuns],
        config: &CompareConfig,
        prepared: &Prepared,
        seconds: f64,
    ) -> Self {
        let find = |wanted| methods.iter().find(|runs| runs.method == wanted);
        let baseline = find(CompareMethod::Lora).or_else(|| find(CompareMethod::Frozen));
        let seed = config.seeds[0];
        let rows: Vec<MethodRow> = methods
            .iter()
            .map(|runs| {
                let summary = runs.summary();
                MethodRow {
                    method: method_name(runs.method),
                    num_trainable_params: runs.num_trainable_params,
                    loss: summary.mean_nll(),
                    perplexity: summary.perplexity(),
                    bits_per_byte: summary.bits_per_byte(),
                    per_seed_perplexity: runs
                        .scores
                        .iter()
                        .map(|scores| scores.iter().collect::<ScoreSummary>().perplexity())
                        .collect(),
                    difference: baseline
                        .filter(|baseline| baseline.method != runs.method)
                        .map(|baseline| runs.less(baseline, seed)),
                    seconds: runs.seconds.iter().sum(),
                }
            })
            .collect();
        let label_names = &prepared.held_out.label_names;
        let test = &prepared.held_out.data;
        Self {
            command: std::env::args().collect(),
            version: env!("CARGO_PKG_VERSION"),
            backends: BackendKind::compiled_in(),
            seeds: config.seeds.iter().map(|seed| seed.0).collect(),
            num_train_examples: prepared.train.data.examples.len(),
            num_test_examples: test.examples.len(),
            num_test_tokens: test
                .examples
                .iter()
                .map(|example| example.sequence.scored().len())
                .sum(),
            num_clusters: config.training.num_clusters,
            prefix: config.training.span.prefix,
            seq_len: config.training.span.seq_len,
            label_mutual_information: prepared
                .agreement
                .as_ref()
                .map(|agreement| agreement.normalized_mutual_information),
            baseline: baseline.map(|runs| method_name(runs.method)),
            methods: rows,
            labels: breakdown(
                methods,
                |score| score.label_idx,
                |label_idx| label_names[label_idx].clone(),
            ),
            clusters: breakdown(
                methods,
                |score| Some(score.cluster_idx),
                |cluster_idx| cluster_idx.to_string(),
            ),
            findings: findings(methods, seed),
            seconds,
            peak_memory_bytes: peak_memory_bytes(),
            out: config.out.clone(),
        }
    }
}

fn breakdown(
    methods: &[MethodRuns],
    key: impl Fn(&ExampleScore) -> Option<usize>,
    name: impl Fn(usize) -> String,
) -> Vec<BreakdownRow> {
    let mut rows: BTreeMap<usize, BreakdownRow> = BTreeMap::new();
    for runs in methods {
        let all: Vec<ExampleScore> = runs.scores.iter().flatten().copied().collect();
        for (key, summary) in summaries_by(&all, &key) {
            let Some(key) = key else { continue };
            let row = rows.entry(key).or_insert_with(|| BreakdownRow {
                name: name(key),
                num_examples: summary.num_examples / runs.scores.len(),
                perplexity: BTreeMap::new(),
            });
            row.perplexity
                .insert(method_name(runs.method), perplexity(summary.mean_nll()));
        }
    }
    rows.into_values().collect()
}

/// What the numbers allow one to say, and what they do not.
fn findings(methods: &[MethodRuns], seed: chameleon_core::RunSeed) -> Vec<String> {
    let find = |wanted| methods.iter().find(|runs| runs.method == wanted);
    let Some(core) = find(CompareMethod::Core) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let controls = [CompareMethod::CoreShuffled, CompareMethod::CoreConstant];
    for control in controls.into_iter().filter_map(find) {
        let difference = core.less(control, seed);
        findings.push(finding(method_name(control.method), difference));
    }
    if methods.iter().all(|runs| runs.scores.len() == 1) {
        findings.push(
            "one seed: the intervals hold the variation of texts, not that of training".to_owned(),
        );
    }
    findings
}

fn finding(control: &str, difference: Interval) -> String {
    let Interval { mean, low, high } = difference;
    let figures = format!("{mean:+.4} nats per token [{low:+.4}, {high:+.4}]");
    if difference.is_below_zero() {
        format!("core against its control {control}: {figures}; it uses the clusters")
    } else {
        format!(
            "warning: core against its control {control}: {figures}; \
             nothing shows that it has learned from the clusters"
        )
    }
}

/// The name a user types.
pub(super) fn method_name(method: CompareMethod) -> &'static str {
    match method {
        CompareMethod::Frozen => "frozen",
        CompareMethod::Lora => "lora",
        CompareMethod::LoraEqual => "lora-equal",
        CompareMethod::Experts => "experts",
        CompareMethod::Dense => "dense",
        CompareMethod::Core => "core",
        CompareMethod::CoreShuffled => "core-shuffled",
        CompareMethod::CoreConstant => "core-constant",
    }
}

/// The most memory this process ever held, where the system tells.
fn peak_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

impl Results for CompareReport {
    fn write_text(&self, page: &mut Page) {
        page.line(format_args!(
            "{} training and {} test examples of {} tokens, prefix {}, {} groups, seeds {:?}",
            self.num_train_examples,
            self.num_test_examples,
            self.seq_len,
            self.prefix,
            self.num_clusters,
            self.seeds
        ));
        let against = self
            .baseline
            .map_or_else(String::new, |name| format!("nats against {name} [95 %]"));
        page.heading("methods");
        let mut table = Table::new([
            Column::text("method"),
            Column::number("trained"),
            Column::number("perplexity"),
            Column::number("nats/token"),
            Column::number("bits/byte"),
            Column::text(&against),
            Column::number("seconds"),
        ]);
        for row in &self.methods {
            table.row([
                row.method.to_owned(),
                row.num_trainable_params.to_string(),
                format!("{:.3}", row.perplexity),
                format!("{:.4}", row.loss),
                format!("{:.4}", row.bits_per_byte),
                row.difference
                    .as_ref()
                    .map_or_else(String::new, |interval| {
                        format!(
                            "{:+.4} [{:+.4}, {:+.4}]",
                            interval.mean, interval.low, interval.high
                        )
                    }),
                format!("{:.0}", row.seconds),
            ]);
        }
        page.table(&table);
        if !self.labels.is_empty() {
            self.write_breakdown(page, "perplexity by label", &self.labels);
        }
        self.write_breakdown(page, "perplexity by group", &self.clusters);
        if !self.findings.is_empty() {
            page.heading("findings");
        }
        for finding in &self.findings {
            page.line(finding);
        }
        page.heading("files");
        page.line(self.out.join("compare.json").display());
    }
}

impl CompareReport {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(method: CompareMethod, losses: &[&[f64]]) -> MethodRuns {
        let mut runs = MethodRuns::new(method);
        runs.scores = losses
            .iter()
            .map(|losses| {
                losses
                    .iter()
                    .enumerate()
                    .map(|(document_idx, &nll)| ExampleScore {
                        nll,
                        num_tokens: 2,
                        num_bytes: 8,
                        document_idx,
                        cluster_idx: document_idx % 2,
                        label_idx: None,
                    })
                    .collect()
            })
            .collect();
        runs
    }

    #[test]
    fn a_single_run_is_paired_with_every_seed_of_the_other() {
        let frozen = runs(CompareMethod::Frozen, &[&[4.0, 6.0]]);
        let core = runs(CompareMethod::Core, &[&[3.0, 5.0], &[2.0, 4.0]]);
        let interval = core.less(&frozen, chameleon_core::RunSeed(1));
        assert!((interval.mean + 0.75).abs() < 1e-12, "{interval:?}");
    }

    #[test]
    fn no_gain_over_the_control_is_a_warning() {
        let core = runs(CompareMethod::Core, &[&[3.0, 5.0, 4.0]]);
        let control = runs(CompareMethod::CoreShuffled, &[&[3.0, 5.0, 4.0]]);
        let findings = findings(&[core, control], chameleon_core::RunSeed(1));
        assert!(findings[0].starts_with("warning: core against its control core-shuffled"));
        assert!(findings[1].starts_with("one seed"));
    }

    #[test]
    fn breakdowns_weigh_by_token_and_leave_unlabelled_examples_out() {
        let core = [runs(CompareMethod::Core, &[&[2.0, 4.0, 6.0]])];
        let rows = breakdown(
            &core,
            |score| Some(score.cluster_idx),
            |idx| idx.to_string(),
        );
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].num_examples, 2);
        assert!((rows[0].perplexity["core"] - 2f64.exp()).abs() < 1e-9);
        assert!(breakdown(&core, |score| score.label_idx, |idx| idx.to_string()).is_empty());
    }
}
