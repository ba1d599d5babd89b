//! Word n-grams and their counts.

use std::collections::HashMap;

/// The count of each n-gram of `length` words.
pub(super) fn counts(words: &[String], length: usize) -> HashMap<&[String], usize> {
    let mut counts = HashMap::new();
    for ngram in words.windows(length) {
        *counts.entry(ngram).or_insert(0) += 1;
    }
    counts
}

/// The number of n-grams of `length` words that two texts share, each counted as often as it is in both.
pub(super) fn num_shared(words: &[String], others: &[String], length: usize) -> usize {
    let counts_of_others = counts(others, length);
    counts(words, length)
        .into_iter()
        .map(|(ngram, count)| count.min(counts_of_others.get(ngram).copied().unwrap_or(0)))
        .sum()
}

/// The number of n-grams of `length` words.
pub(super) fn num_runs(words: &[String], length: usize) -> usize {
    (words.len() + 1).saturating_sub(length)
}
