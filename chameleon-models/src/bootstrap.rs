//! How sure a difference between two methods is: a paired bootstrap over seeds and sequences.

use chameleon_core::RunSeed;
use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};

/// A mean difference and the interval it lies in with 95 % confidence.
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
    /// Whether the interval lies wholly below zero.
    pub fn is_below_zero(&self) -> bool {
        self.high < 0.0
    }
}

/// Resamples drawn; the percentiles move by about a tenth of the interval's width between seeds.
const NUM_RESAMPLES: usize = 2000;

/// The token-weighted mean of paired differences, resampled over seeds and over sequences.
///
/// `differences[seed][sequence]` is what one method lost less what the other lost, in nats, both
/// trained with that seed; `num_tokens[sequence]` is how many tokens were scored.
///
/// # Panics
///
/// When there is no seed, no sequence, or the lengths differ.
pub fn paired_interval(differences: &[Vec<f64>], num_tokens: &[usize], seed: RunSeed) -> Interval {
    assert!(!differences.is_empty() && !num_tokens.is_empty());
    assert!(differences.iter().all(|run| run.len() == num_tokens.len()));
    let mut rng = seed.stream("bootstrap");
    let mut means: Vec<f64> = (0..NUM_RESAMPLES)
        .map(|_| resampled_mean(differences, num_tokens, &mut rng))
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
    let total: f64 = differences.iter().flatten().sum();
    let tokens = num_tokens.iter().sum::<usize>() * differences.len();
    Interval {
        mean: total / tokens as f64,
        low: percentile(0.025),
        high: percentile(0.975),
    }
}

fn resampled_mean(differences: &[Vec<f64>], num_tokens: &[usize], rng: &mut impl Rng) -> f64 {
    let runs: Vec<&Vec<f64>> = (0..differences.len())
        .map(|_| &differences[rng.random_range(0..differences.len())])
        .collect();
    let (mut total, mut tokens) = (0.0, 0);
    for _ in 0..num_tokens.len() {
        let sequence = rng.random_range(0..num_tokens.len());
        total += runs.iter().map(|run| run[sequence]).sum::<f64>();
        tokens += num_tokens[sequence] * runs.len();
    }
    total / tokens as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(shift: f64) -> (Vec<Vec<f64>>, Vec<usize>) {
        let mut rng = RunSeed(9).stream("test");
        let noise = |rng: &mut rand_chacha::ChaCha8Rng| rng.random_range(-10.0..10.0);
        let differences = (0..3)
            .map(|_| (0..400).map(|_| shift * 20.0 + noise(&mut rng)).collect())
            .collect();
        (differences, vec![20; 400])
    }

    #[test]
    fn a_clear_gain_excludes_zero_and_noise_does_not() {
        let (differences, num_tokens) = runs(-0.1);
        let interval = paired_interval(&differences, &num_tokens, RunSeed(1));
        assert!(interval.is_below_zero(), "{interval:?}");
        assert!((interval.low..=interval.high).contains(&interval.mean));

        let (differences, num_tokens) = runs(0.0);
        let interval = paired_interval(&differences, &num_tokens, RunSeed(1));
        assert!(
            !interval.is_below_zero() && interval.low < 0.0,
            "{interval:?}"
        );
    }

    #[test]
    fn one_sequence_has_an_interval_of_one_point() {
        let interval = paired_interval(&[vec![3.0]], &[2], RunSeed(1));
        assert_eq!(
            (interval.low, interval.mean, interval.high),
            (1.5, 1.5, 1.5)
        );
    }
}
