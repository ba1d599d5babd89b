//! Scores of several methods on the same examples, and findings about their differences.

use std::collections::BTreeMap;
use std::rc::Rc;

use chameleon_core::{RunSeed, perplexity};
use serde::Serialize;

use crate::training::eval::{ExampleScore, summaries_by};

use super::bootstrap::{Interval, PairedSequence, paired_interval};

/// The scores of one method.
#[derive(Debug)]
pub struct MethodScores {
    /// Its name in tables.
    pub name: String,
    /// One run for each seed, each with every held-out example in the same order. A deterministic method has one run,
    /// which is paired with all seeds.
    pub runs: Vec<Vec<ExampleScore>>,
    /// The unit that each example is resampled with.
    pub units: Rc<[usize]>,
}

impl MethodScores {
    /// The loss of this method minus that of `other` on the examples that `keep` selects, paired by seed and example.
    pub fn less(
        &self,
        other: &Self,
        keep: impl Fn(&ExampleScore) -> bool,
        seed: RunSeed,
    ) -> Option<Interval> {
        let num_seeds = self.runs.len().max(other.runs.len());
        let sequences: Vec<PairedSequence> = self
            .run(0)
            .iter()
            .enumerate()
            .filter(|(_, score)| keep(score))
            .map(|(row, score)| PairedSequence {
                differences: (0..num_seeds)
                    .map(|seed_idx| self.run(seed_idx)[row].nll - other.run(seed_idx)[row].nll)
                    .collect(),
                num_tokens: score.num_tokens,
                unit_idx: self.units[row],
            })
            .collect();
        (!sequences.is_empty()).then(|| paired_interval(&sequences, seed))
    }

    fn run(&self, seed_idx: usize) -> &[ExampleScore] {
        &self.runs[seed_idx.min(self.runs.len() - 1)]
    }
}

/// A part of the held-out examples.
#[derive(Debug, Clone, Serialize)]
pub struct BreakdownRow {
    /// The label or cluster.
    pub name: String,
    /// Its examples.
    pub num_examples: usize,
    /// By method.
    pub perplexity: BTreeMap<String, f64>,
    /// Nats per token of the headline method against its baseline.
    pub difference: Option<Interval>,
}

/// A method and its baseline.
#[derive(Debug, Clone, Copy)]
pub struct PairedComparison<'a> {
    /// The method.
    pub method: &'a MethodScores,
    /// The method that it is compared with.
    pub baseline: &'a MethodScores,
}

/// Perplexity of every method on the examples of each key; those without a key are left out.
pub fn breakdown(
    methods: &[&MethodScores],
    pair: Option<PairedComparison<'_>>,
    key: impl Fn(&ExampleScore) -> Option<usize>,
    name: impl Fn(usize) -> String,
    seed: RunSeed,
) -> Vec<BreakdownRow> {
    let mut rows: BTreeMap<usize, BreakdownRow> = BTreeMap::new();
    for method in methods {
        let all: Vec<ExampleScore> = method.runs.iter().flatten().copied().collect();
        for (found, summary) in summaries_by(&all, &key) {
            let Some(found) = found else { continue };
            let row = rows.entry(found).or_insert_with(|| BreakdownRow {
                name: name(found),
                num_examples: summary.num_examples / method.runs.len(),
                perplexity: BTreeMap::new(),
                difference: pair.and_then(|pair| {
                    let keep = |score: &ExampleScore| key(score) == Some(found);
                    pair.method.less(pair.baseline, keep, seed)
                }),
            });
            row.perplexity
                .insert(method.name.clone(), perplexity(summary.mean_nll()));
        }
    }
    rows.into_values().collect()
}

/// A conclusion from the results, or a warning against one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its kind.
    pub kind: FindingKind,
    /// The sentence.
    pub text: String,
}

/// The kind of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// The interval is below zero: an improvement.
    Gain,
    /// The interval is not below zero.
    Warning,
    /// A limit of the results, such as what the intervals do not cover.
    Note,
}

impl Finding {
    /// A note.
    pub fn note(text: impl Into<String>) -> Self {
        Self {
            kind: FindingKind::Note,
            text: text.into(),
        }
    }

    /// A gain.
    pub fn gain(text: impl Into<String>) -> Self {
        Self {
            kind: FindingKind::Gain,
            text: text.into(),
        }
    }

    /// A warning.
    pub fn warning(text: impl Into<String>) -> Self {
        Self {
            kind: FindingKind::Warning,
            text: text.into(),
        }
    }

    /// One line of text.
    pub fn line(&self) -> String {
        match self.kind {
            FindingKind::Warning => format!("warning: {}", self.text),
            FindingKind::Gain | FindingKind::Note => self.text.clone(),
        }
    }
}

/// What a method is compared with, which decides the meaning of a gain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Against {
    /// The same method given wrong groups.
    Control,
    /// Another way to adapt: plain LoRA, or the larger network.
    Baseline,
}

/// The finding about a difference.
pub fn finding(
    method: impl std::fmt::Display,
    other: impl std::fmt::Display,
    kind: Against,
    difference: Interval,
) -> Finding {
    let figures = format!(
        "{method} against {other}: {} nats per token",
        signed(difference, 4)
    );
    let (kind, verdict) = match (kind, difference.is_below_zero(), difference.low > 0.0) {
        (Against::Control, true, _) => (FindingKind::Gain, "it uses the groups"),
        (Against::Control, false, _) => (
            FindingKind::Warning,
            "nothing shows that it has learned from the groups",
        ),
        (Against::Baseline, true, _) => (FindingKind::Gain, "it is better"),
        (Against::Baseline, false, true) => (FindingKind::Warning, "it is worse"),
        (Against::Baseline, false, false) => {
            (FindingKind::Warning, "nothing shows that it is better")
        }
    };
    Finding {
        kind,
        text: format!("{figures}; {verdict}"),
    }
}

/// `+0.0123 [-0.0010, +0.0256]`
pub fn signed(interval: Interval, digits: usize) -> String {
    let Interval { mean, low, high } = interval;
    format!("{mean:+.digits$} [{low:+.digits$}, {high:+.digits$}]")
}

/// The change of perplexity in percent: `-1.2 % [-2.0, -0.4]`.
pub fn percent(interval: Interval) -> String {
    let Interval { mean, low, high } = interval.perplexity_change();
    let [mean, low, high] = [mean, low, high].map(|share| share * 100.0);
    format!("{mean:+.2} % [{low:+.2}, {high:+.2}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(name: &str, losses: &[&[f64]]) -> MethodScores {
        let run = |losses: &&[f64]| {
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
        };
        MethodScores {
            name: name.to_owned(),
            runs: losses.iter().map(run).collect(),
            units: (0..losses[0].len()).collect(),
        }
    }

    #[test]
    fn a_single_run_is_paired_with_every_seed_of_the_other() {
        let frozen = scores("frozen", &[&[4.0, 6.0]]);
        let core = scores("core", &[&[3.0, 5.0], &[2.0, 4.0]]);
        let interval = core.less(&frozen, |_| true, RunSeed(1)).unwrap();
        assert!((interval.mean + 0.75).abs() < 1e-12, "{interval:?}");
    }

    #[test]
    fn only_a_gain_that_excludes_zero_is_no_warning() {
        let kind = |low, high| {
            let interval = Interval {
                mean: f64::midpoint(low, high),
                low,
                high,
            };
            [Against::Control, Against::Baseline]
                .map(|against| finding("core", "other", against, interval).kind)
        };
        assert_eq!(kind(-0.2, -0.1), [FindingKind::Gain; 2]);
        assert_eq!(kind(-0.2, 0.1), [FindingKind::Warning; 2]);
        assert_eq!(kind(0.1, 0.2), [FindingKind::Warning; 2]);
    }

    #[test]
    fn breakdowns_weigh_by_token_and_leave_unlabelled_examples_out() {
        let core = scores("core", &[&[2.0, 4.0, 6.0]]);
        let frozen = scores("frozen", &[&[3.0, 5.0, 7.0]]);
        let pair = PairedComparison {
            method: &core,
            baseline: &frozen,
        };
        let by = |key: fn(&ExampleScore) -> Option<usize>| {
            let name = |idx: usize| idx.to_string();
            breakdown(&[&frozen, &core], Some(pair), key, name, RunSeed(1))
        };
        let rows = by(|score| Some(score.cluster_idx));
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].num_examples, 2);
        assert!((rows[0].perplexity["core"] - 2f64.exp()).abs() < 1e-9);
        assert!((rows[0].difference.unwrap().mean + 0.5).abs() < 1e-12);
        assert!(by(|score| score.label_idx).is_empty());
    }

    #[test]
    fn a_change_is_written_in_percent_of_perplexity() {
        let mean = 0.95_f64.ln();
        let interval = Interval {
            mean,
            low: mean,
            high: mean,
        };
        assert_eq!(percent(interval), "-5.00 % [-5.00, -5.00]");
    }
}
