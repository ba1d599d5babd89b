//! BLEU over a corpus, as `sacrebleu` counts it.

use super::ngrams::{num_runs, num_shared};
use super::tokens::words_13a;

const MAX_ORDER: usize = 4;

/// A corpus score and its components.
#[derive(Debug, Clone, PartialEq)]
pub struct Bleu {
    /// From 0 to 100.
    pub score: f64,
    /// Share of runs of 1, 2, 3 and 4 words that the references have, in percent, smoothed.
    pub precisions: [f64; MAX_ORDER],
    /// The factor for answers shorter than their references, from 0 to 1.
    pub brevity_penalty: f64,
}

impl Bleu {
    /// `sacrebleu`'s signature of the score, so that two scores can be compared.
    pub fn signature() -> String {
        let version = env!("CARGO_PKG_VERSION");
        format!("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:chameleon-{version}")
    }
}

/// Scores answers, each with its reference; `(answer, reference)`.
///
/// Counts are summed over all pairs before anything is divided. An order without a match counts as half a match,
/// the next one as a quarter, and so on.
pub fn bleu<A: AsRef<str>, R: AsRef<str>>(pairs: &[(A, R)]) -> Bleu {
    let mut num_words = 0;
    let mut num_reference_words = 0;
    let mut shared = [0; MAX_ORDER];
    let mut total = [0; MAX_ORDER];
    for (answer, reference) in pairs {
        let answer = words_13a(answer.as_ref());
        let reference = words_13a(reference.as_ref());
        num_words += answer.len();
        num_reference_words += reference.len();
        for order in 1..=MAX_ORDER {
            shared[order - 1] += num_shared(&answer, &reference, order);
            total[order - 1] += num_runs(&answer, order);
        }
    }
    let brevity_penalty = match num_words {
        0 => 0.0,
        _ if num_words >= num_reference_words => 1.0,
        _ => (1.0 - num_reference_words as f64 / num_words as f64).exp(),
    };
    let mut precisions = [0.0; MAX_ORDER];
    if shared.iter().any(|&count| count > 0) {
        let mut smoothing = 1.0;
        for (precision, (shared, total)) in precisions.iter_mut().zip(shared.into_iter().zip(total))
        {
            *precision = match (shared, total) {
                (_, 0) => 0.0,
                (0, total) => {
                    smoothing *= 2.0;
                    100.0 / (smoothing * total as f64)
                }
                (shared, total) => 100.0 * shared as f64 / total as f64,
            };
        }
    }
    let mean_log = precisions
        .iter()
        .map(|precision| precision.ln())
        .sum::<f64>()
        / MAX_ORDER as f64;
    Bleu {
        score: brevity_penalty * mean_log.exp(),
        precisions,
        brevity_penalty,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_score_a_hundred_and_strangers_nothing() {
        let text = "one two three four five";
        assert!((bleu(&[(text, text)]).score - 100.0).abs() < 1e-9);
        assert!(bleu(&[("six seven", text)]).score.abs() < 1e-9);
        assert!(bleu(&[("", text)]).score.abs() < 1e-9);
        assert!(bleu::<&str, &str>(&[]).score.abs() < 1e-9);
    }

    #[test]
    fn the_signature_says_how_it_was_counted() {
        assert!(Bleu::signature().starts_with("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|"));
    }
}
