//! Sampling of the next token from logits, on the host and repeatable.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use crate::error::ModelError;

/// How the next token is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Sampling {
    /// The most likely token; of equal ones, that with the lowest id.
    #[default]
    Greedy,
    /// A random token, by its probability.
    Random(RandomSampling),
}

/// Random choice among the likelier tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RandomSampling {
    temperature: f32,
    top_k: usize,
    top_p: f32,
}

impl RandomSampling {
    /// A choice among all tokens; logits are divided by `temperature` first.
    ///
    /// # Errors
    ///
    /// Fails unless the temperature is a positive number.
    pub fn new(temperature: f32) -> Result<Self, ModelError> {
        if !(temperature.is_finite() && temperature > 0.0) {
            return Err(ModelError::SamplingValue {
                name: "temperature",
                found: f64::from(temperature),
                expected: "a positive number",
            });
        }
        Ok(Self {
            temperature,
            top_k: usize::MAX,
            top_p: 1.0,
        })
    }

    /// Only the `top_k` likeliest tokens.
    ///
    /// # Errors
    ///
    /// Fails if `top_k` is zero.
    pub fn with_top_k(self, top_k: usize) -> Result<Self, ModelError> {
        if top_k == 0 {
            return Err(ModelError::SamplingValue {
                name: "top-k",
                found: 0.0,
                expected: "at least 1",
            });
        }
        Ok(Self { top_k, ..self })
    }

    /// Only the likeliest tokens that together reach the probability `top_p`; at least one.
    ///
    /// # Errors
    ///
    /// Fails unless `top_p` is above zero and at most one.
    pub fn with_top_p(self, top_p: f32) -> Result<Self, ModelError> {
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(ModelError::SamplingValue {
                name: "top-p",
                found: f64::from(top_p),
                expected: "above 0 and at most 1",
            });
        }
        Ok(Self { top_p, ..self })
    }

    /// What logits are divided by.
    pub fn temperature(&self) -> f32 {
        self.temperature
    }
}

/// Samples the tokens of one row, from a random stream of its own.
#[derive(Debug, Clone)]
pub(crate) struct Sampler {
    sampling: Sampling,
    stream: ChaCha8Rng,
}

impl Sampler {
    /// A sampler that draws from `stream`.
    pub(crate) fn new(sampling: Sampling, stream: ChaCha8Rng) -> Self {
        Self { sampling, stream }
    }

    /// The next token, given the logits of the whole vocabulary. A logit that is NaN is never taken.
    ///
    /// # Panics
    ///
    /// Panics if there are no logits.
    pub(crate) fn sample(&mut self, logits: &[f32]) -> u32 {
        match self.sampling {
            Sampling::Greedy => argmax(logits),
            Sampling::Random(random) => random.draw(logits, self.stream.random()),
        }
    }
}

impl RandomSampling {
    /// The token whose share of the probability contains `point`, which lies in `[0, 1)`.
    fn draw(self, logits: &[f32], point: f32) -> u32 {
        let mut candidates: Vec<(u32, f32)> = (0..)
            .zip(logits)
            .filter(|(_, logit)| **logit > f32::NEG_INFINITY)
            .map(|(token_id, &logit)| (token_id, logit))
            .collect();
        let by_rank = |left: &(u32, f32), right: &(u32, f32)| {
            right.1.total_cmp(&left.1).then(left.0.cmp(&right.0))
        };
        if self.top_k < candidates.len() {
            candidates.select_nth_unstable_by(self.top_k - 1, by_rank);
            candidates.truncate(self.top_k);
        }
        let largest = candidates
            .iter()
            .fold(f32::NEG_INFINITY, |max, &(_, logit)| max.max(logit));
        if !largest.is_finite() {
            return argmax(logits);
        }
        for (_, weight) in &mut candidates {
            *weight = ((*weight - largest) / self.temperature).exp();
        }
        if self.top_p < 1.0 {
            candidates.sort_unstable_by(by_rank);
            let mut room = self.top_p * total(&candidates);
            let num_kept = candidates
                .iter()
                .take_while(|(_, weight)| {
                    let is_kept = room > 0.0;
                    room -= weight;
                    is_kept
                })
                .count();
            candidates.truncate(num_kept.max(1));
        }
        let mut left = point * total(&candidates);
        for &(token_id, weight) in &candidates {
            left -= weight;
            if left < 0.0 {
                return token_id;
            }
        }
        // Rounding can leave a sliver past the last candidate.
        candidates.last().map_or(0, |&(token_id, _)| token_id)
    }
}

fn total(candidates: &[(u32, f32)]) -> f32 {
    candidates.iter().map(|(_, weight)| weight).sum()
}

/// The position of the largest value, the first one of equals.
fn argmax(logits: &[f32]) -> u32 {
    assert!(!logits.is_empty(), "no logits to choose from");
    let mut best = (0, f32::NEG_INFINITY);
    for (token_id, &logit) in (0..).zip(logits) {
        if logit > best.1 {
            best = (token_id, logit);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use chameleon_core::RunSeed;

    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 3.0, f32::NAN, -1.0];

    fn random(temperature: f32) -> RandomSampling {
        RandomSampling::new(temperature).unwrap()
    }

    fn counts(sampling: RandomSampling, num_draws: usize) -> [usize; 5] {
        let stream = RunSeed(3).stream("test");
        let mut sampler = Sampler::new(Sampling::Random(sampling), stream);
        let mut counts = [0; 5];
        for _ in 0..num_draws {
            counts[sampler.sample(&LOGITS) as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_lowest_id_of_the_largest_logits() {
        let mut sampler = Sampler::new(Sampling::Greedy, RunSeed(0).stream("test"));
        assert_eq!(sampler.sample(&LOGITS), 1);
        assert_eq!(sampler.sample(&[f32::NAN, f32::NEG_INFINITY]), 0);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let num_draws = 20_000;
        let counts = counts(random(2.0), num_draws);
        let weights = [0.5_f32, 1.5, 1.5, f32::NEG_INFINITY, -0.5].map(f32::exp);
        let total: f32 = weights.iter().sum();
        for (count, weight) in counts.into_iter().zip(weights) {
            let share = count as f32 / num_draws as f32;
            assert!((share - weight / total).abs() < 0.015, "{counts:?}");
        }
    }

    #[test]
    fn top_k_and_top_p_leave_the_likeliest() {
        assert_eq!(counts(random(1.0).with_top_k(1).unwrap(), 50)[1], 50);
        let two = counts(random(1.0).with_top_k(2).unwrap(), 400);
        assert_eq!(two[1] + two[2], 400);
        assert!(two[1] > 100 && two[2] > 100);
        // The first of the two likeliest has 0.46 of the probability: alone it suffices for 0.4.
        assert_eq!(counts(random(1.0).with_top_p(0.4).unwrap(), 50)[1], 50);
        let two = counts(random(1.0).with_top_p(0.6).unwrap(), 400);
        assert_eq!(two[1] + two[2], 400);
    }

    #[test]
    fn the_same_stream_draws_the_same_tokens() {
        assert_eq!(counts(random(0.7), 64), counts(random(0.7), 64));
    }

    #[test]
    fn senseless_values_are_refused() {
        let message = |result: Result<RandomSampling, ModelError>| result.unwrap_err().to_string();
        assert_eq!(
            message(RandomSampling::new(0.0)),
            "temperature is 0, expected a positive number"
        );
        assert!(RandomSampling::new(f32::NAN).is_err());
        assert_eq!(
            message(random(1.0).with_top_k(0)),
            "top-k is 0, expected at least 1"
        );
        assert_eq!(
            message(random(1.0).with_top_p(1.5)),
            "top-p is 1.5, expected above 0 and at most 1"
        );
        assert!(random(1.0).with_top_p(f32::NAN).is_err());
    }
}
