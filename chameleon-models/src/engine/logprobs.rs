//! A sampled token with the logarithms of probabilities that were requested with it.

use super::event::TokenChoice;
use super::request::Logprobs;
use super::sampling::Sampler;

/// A token that was sampled for a row.
#[derive(Debug)]
pub(super) struct SampledToken {
    pub(super) token_id: u32,
    pub(super) logprob: Option<f32>,
    pub(super) top: Vec<TokenChoice>,
}

/// Samples a token from the logits of the whole vocabulary.
pub(super) fn sample(sampler: &mut Sampler, logprobs: Logprobs, logits: &[f32]) -> SampledToken {
    let token_id = sampler.sample(logits);
    let Logprobs::Top(num_top) = logprobs else {
        return SampledToken {
            token_id,
            logprob: None,
            top: Vec::new(),
        };
    };
    let total = log_sum_exp(logits);
    let logprob = |token_id: u32| logits[token_id as usize] - total;
    let top = likeliest(logits, num_top)
        .into_iter()
        .map(|token_id| TokenChoice {
            token_id,
            logprob: logprob(token_id),
        })
        .collect();
    SampledToken {
        token_id,
        logprob: Some(logprob(token_id)),
        top,
    }
}

/// The logarithm of the sum of the exponentials; logits less this are logarithms of probabilities.
pub(super) fn log_sum_exp(logits: &[f32]) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|&logit| f64::from((logit - largest).exp()))
        .sum();
    #[expect(clippy::cast_possible_truncation, reason = "logits are f32 as well")]
    let log = sum.ln() as f32;
    largest + log
}

/// The ids of the largest logits, the largest first, of equal ones the lowest id first.
fn likeliest(logits: &[f32], num: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..).take(logits.len()).collect();
    let by_rank = |left: &u32, right: &u32| {
        let (left_logit, right_logit) = (logits[*left as usize], logits[*right as usize]);
        right_logit.total_cmp(&left_logit).then(left.cmp(right))
    };
    let num = num.min(ids.len());
    if num < ids.len() && num > 0 {
        ids.select_nth_unstable_by(num - 1, by_rank);
    }
    ids.truncate(num);
    ids.sort_unstable_by(by_rank);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_first_and_probabilities_sum_to_one() {
        let logits = [0.5, 2.0, -1.0, 2.0];
        assert_eq!(likeliest(&logits, 3), [1, 3, 0]);
        assert_eq!(likeliest(&logits, 9), [1, 3, 0, 2]);
        assert!(likeliest(&logits, 0).is_empty());
        let total = log_sum_exp(&logits);
        let sum: f32 = logits.iter().map(|logit| (logit - total).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6);
    }
}
