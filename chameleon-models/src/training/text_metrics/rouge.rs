//! ROUGE-1, ROUGE-2 and ROUGE-L, as `rouge-score` counts them.

use super::ngrams::{num_runs, num_shared};
use super::porter::stem;
use super::tokens::words_alphanumeric;

/// Whether words are compared by their stems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stemming {
    /// Words are compared as they are.
    Off,
    /// English words of more than three letters are cut to their stems.
    Porter,
}

/// The mean over all pairs of each F-measure, from 0 to 100.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rouge {
    /// Shared words.
    pub rouge1: f64,
    /// Shared pairs of neighbours.
    pub rouge2: f64,
    /// The longest shared sequence of words, gaps allowed.
    pub rouge_l: f64,
}

/// Scores answers, each with its reference; `(answer, reference)`.
pub fn rouge<A: AsRef<str>, R: AsRef<str>>(pairs: &[(A, R)], stemming: Stemming) -> Rouge {
    let mut sum = Rouge::default();
    for (answer, reference) in pairs {
        let answer = words(answer.as_ref(), stemming);
        let reference = words(reference.as_ref(), stemming);
        sum.rouge1 += f_of_runs(&answer, &reference, 1);
        sum.rouge2 += f_of_runs(&answer, &reference, 2);
        let common = longest_common_subsequence(&answer, &reference);
        sum.rouge_l += f_measure(common, answer.len(), reference.len());
    }
    let scale = 100.0 / pairs.len().max(1) as f64;
    Rouge {
        rouge1: sum.rouge1 * scale,
        rouge2: sum.rouge2 * scale,
        rouge_l: sum.rouge_l * scale,
    }
}

fn words(text: &str, stemming: Stemming) -> Vec<String> {
    let words = words_alphanumeric(text);
    match stemming {
        Stemming::Off => words,
        Stemming::Porter => words
            .into_iter()
            .map(|word| if word.len() > 3 { stem(&word) } else { word })
            .collect(),
    }
}

fn f_of_runs(answer: &[String], reference: &[String], length: usize) -> f64 {
    f_measure(
        num_shared(answer, reference, length),
        num_runs(answer, length),
        num_runs(reference, length),
    )
}

/// The harmonic mean of precision and recall.
fn f_measure(num_shared: usize, num_answered: usize, num_wanted: usize) -> f64 {
    if num_shared == 0 {
        return 0.0;
    }
    2.0 * num_shared as f64 / (num_answered + num_wanted) as f64
}

fn longest_common_subsequence(words: &[String], others: &[String]) -> usize {
    // Lengths for all of `words` so far and each start of `others`.
    let mut lengths = vec![0; others.len() + 1];
    for word in words {
        let mut diagonal = 0;
        for (idx, other) in others.iter().enumerate() {
            let above = lengths[idx + 1];
            lengths[idx + 1] = if word == other {
                diagonal + 1
            } else {
                above.max(lengths[idx])
            };
            diagonal = above;
        }
    }
    lengths[others.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_sequence_may_have_gaps() {
        let pairs = [("a x b y c", "a b c d")];
        let rouge = rouge(&pairs, Stemming::Off);
        let expected = 100.0 * 6.0 / 9.0;
        assert!((rouge.rouge_l - expected).abs() < 1e-9);
        assert!((rouge.rouge1 - expected).abs() < 1e-9);
        assert!(rouge.rouge2.abs() < 1e-9);
    }

    #[test]
    fn nothing_shares_nothing() {
        assert_eq!(
            rouge(&[("", "a"), ("...", "")], Stemming::Porter),
            Rouge::default()
        );
        assert_eq!(rouge::<&str, &str>(&[], Stemming::Off), Rouge::default());
    }

    #[test]
    fn stems_meet_where_words_do_not() {
        let pairs = [("the robins were singing", "a robin sings")];
        assert!(rouge(&pairs, Stemming::Off).rouge1.abs() < 1e-9);
        assert!(rouge(&pairs, Stemming::Porter).rouge1 > 50.0);
    }
}
