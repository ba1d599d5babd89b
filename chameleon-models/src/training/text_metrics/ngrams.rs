//! Runs of words and how often they occur.

use std::collections::HashMap;

/// How often each run of `length` words occurs.
pub(super) fn counts(words: &[String], length: usize) -> HashMap<&[String], usize> {
    let mut counts = HashMap::new();
    for ngram in words.windows(length) {
        *counts.entry(ngram).or_insert(0) += 1;
    }
    counts
}

/// How many runs of `length` words two texts share, each as often as both have it.
pub(super) fn num_shared(words: &[String], others: &[String], length: usize) -> usize {
    let counts_of_others = counts(others, length);
    counts(words, length)
        .into_iter()
        .map(|(ngram, count)| count.min(counts_of_others.get(ngram).copied().unwrap_or(0)))
        .sum()
}

/// How many runs of `length` words there are.
pub(super) fn num_runs(words: &[String], length: usize) -> usize {
    (words.len() + 1).saturating_sub(length)
}
