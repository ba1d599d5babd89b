//! Confidence intervals of the difference between two methods: a paired bootstrap over seeds and units of text.
//!
//! Sequences cut from one text are correlated, so whole units are resampled, not sequences: documents, or the sources
//! that several documents were cut from.

use std::collections::BTreeMap;

use chameleon_core::RunSeed;
use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};

/// A mean difference and its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The difference observed, nats per token.
    pub mean: f64,
    /// The 2.5th percentile of the resampled differences.
    pub low: f64,
    /// The 97.5th percentile.
    pub high: f64,
}

impl Interval {
    /// Whether the whole interval is below zero.
    pub fn is_below_zero(&self) -> bool {
        self.high < 0.0
    }

    /// Nats per token as the relative change of perplexity: -0.05 is five percent lower.
    #[must_use]
    pub fn perplexity_change(&self) -> Self {
        Self {
            mean: self.mean.exp_m1(),
            low: self.low.exp_m1(),
            high: self.high.exp_m1(),
        }
    }
}

/// Number of resamples; enough for percentiles that are stable across seeds.
const NUM_RESAMPLES: usize = 10_000;

/// A sequence that two methods scored.
#[derive(Debug, Clone, PartialEq)]
pub struct PairedSequence {
    /// The loss of one method minus that of the other, in nats; one entry for each seed.
    pub differences: Vec<f64>,
    /// Number of scored tokens.
    pub num_tokens: usize,
    /// The unit that it is resampled with: a document, or a source.
    pub unit_idx: usize,
}

/// The token-weighted mean of paired differences, resampled over seeds and over units.
///
/// With one seed the interval covers the variation between texts only, not between trainings.
///
/// # Panics
///
/// When there is no seed or no sequence, or the sequences have different numbers of seeds.
pub fn paired_interval(sequences: &[PairedSequence], seed: RunSeed) -> Interval {
    let units = Unit::gather(sequences);
    let num_seeds = units[0].differences.len();
    assert!(num_seeds > 0, "at least one seed");
    let mut rng = seed.stream("bootstrap");
    let mut means: Vec<f64> = (0..NUM_RESAMPLES)
        .map(|_| resampled_mean(&units, num_seeds, &mut rng))
        .collect();
    means.sort_by(f64::total_cmp);
    let percentile = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a small count"
        )]
        let idx = (share * (NUM_RESAMPLES - 1) as f64).round() as usize;
        means[idx]
    };
    let total: f64 = units.iter().flat_map(|unit| &unit.differences).sum();
    let tokens: usize = units.iter().map(|unit| unit.num_tokens).sum();
    Interval {
        mean: total / (tokens * num_seeds) as f64,
        low: percentile(0.025),
        high: percentile(0.975),
    }
}

/// The sums over the sequences of one unit.
struct Unit {
    differences: Vec<f64>,
    num_tokens: usize,
}

impl Unit {
    fn gather(sequences: &[PairedSequence]) -> Vec<Self> {
        let mut units: BTreeMap<usize, Self> = BTreeMap::new();
        for sequence in sequences {
            let unit = units.entry(sequence.unit_idx).or_insert_with(|| Self {
                differences: vec![0.0; sequence.differences.len()],
                num_tokens: 0,
            });
            assert_eq!(unit.differences.len(), sequence.differences.len());
            for (sum, difference) in unit.differences.iter_mut().zip(&sequence.differences) {
                *sum += difference;
            }
            unit.num_tokens += sequence.num_tokens;
        }
        assert!(!units.is_empty(), "at least one sequence");
        units.into_values().collect()
    }
}

fn resampled_mean(units: &[Unit], num_seeds: usize, rng: &mut impl Rng) -> f64 {
    let seeds: Vec<usize> = (0..num_seeds)
        .map(|_| rng.random_range(0..num_seeds))
        .collect();
    let (mut total, mut tokens) = (0.0, 0);
    for _ in 0..units.len() {
        let unit = &units[rng.random_range(0..units.len())];
        total += seeds
            .iter()
            .map(|&seed_idx| unit.differences[seed_idx])
            .sum::<f64>();
        tokens += unit.num_tokens * num_seeds;
    }
    total / tokens as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 400 sequences of 20 tokens, each a unit of its own.
    fn sequences(shift: f64) -> Vec<PairedSequence> {
        let mut rng = RunSeed(9).stream("test");
        (0..400)
            .map(|unit_idx| PairedSequence {
                differences: (0..3)
                    .map(|_| shift * 20.0 + rng.random_range(-10.0..10.0))
                    .collect(),
                num_tokens: 20,
                unit_idx,
            })
            .collect()
    }

    #[test]
    fn a_clear_gain_excludes_zero_and_noise_does_not() {
        let interval = paired_interval(&sequences(-0.1), RunSeed(1));
        assert!(interval.is_below_zero(), "{interval:?}");
        assert!((interval.low..=interval.high).contains(&interval.mean));

        let interval = paired_interval(&sequences(0.0), RunSeed(1));
        assert!(
            !interval.is_below_zero() && interval.low < 0.0,
            "{interval:?}"
        );
    }

    #[test]
    fn a_change_of_perplexity_is_what_the_perplexities_say() {
        let (before, after) = (20.0_f64, 19.0_f64);
        let mean = after.ln() - before.ln();
        let (low, high) = (mean - 0.01, mean + 0.01);
        let change = Interval { mean, low, high }.perplexity_change();
        assert!((change.mean + 0.05).abs() < 1e-12);
        assert!(change.low < change.mean && change.mean < change.high);
    }

    #[test]
    fn copies_of_a_seed_do_not_make_the_interval_narrower() {
        let width = |interval: Interval| interval.high - interval.low;
        let alone = sequences(0.0);
        let copied: Vec<_> = alone
            .iter()
            .map(|one| PairedSequence {
                differences: vec![one.differences[0]; 3],
                ..one.clone()
            })
            .collect();
        let single: Vec<_> = alone
            .iter()
            .map(|one| PairedSequence {
                differences: vec![one.differences[0]],
                ..one.clone()
            })
            .collect();
        let (one, three) = (
            width(paired_interval(&single, RunSeed(1))),
            width(paired_interval(&copied, RunSeed(2))),
        );
        assert!((one - three).abs() < 0.1 * one, "{one} and {three}");
    }

    #[test]
    fn one_sequence_has_an_interval_of_one_point() {
        let sequence = PairedSequence {
            differences: vec![3.0],
            num_tokens: 2,
            unit_idx: 0,
        };
        let interval = paired_interval(&[sequence], RunSeed(1));
        assert_eq!(
            (interval.low, interval.mean, interval.high),
            (1.5, 1.5, 1.5)
        );
    }

    #[test]
    fn copies_within_a_unit_do_not_make_the_interval_narrower() {
        let width = |interval: Interval| interval.high - interval.low;
        let alone = sequences(0.0);
        let copied: Vec<_> = alone.iter().flat_map(|one| vec![one.clone(); 4]).collect();
        let (once, four) = (
            width(paired_interval(&alone, RunSeed(1))),
            width(paired_interval(&copied, RunSeed(1))),
        );
        assert!((once - four).abs() < 1e-12, "{once} and {four}");
    }
}
