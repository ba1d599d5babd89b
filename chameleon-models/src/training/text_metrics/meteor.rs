//! METEOR with its exact and stem stages, aligned as `nltk` aligns.

use std::collections::{HashMap, HashSet};

use super::porter::stem;
use super::tokens::words_13a;

/// Weight of recall against precision.
const ALPHA: f64 = 0.9;
/// Exponent of the fragmentation penalty.
const BETA: f64 = 3.0;
/// The penalty if every matched word is its own chunk.
const GAMMA: f64 = 0.5;

/// A mean over all pairs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Meteor {
    /// From 0 to 100.
    pub score: f64,
}

impl Meteor {
    /// The stages that ran, in their order. There is no synonym stage, so a text that says the same in other words
    /// scores less than with `WordNet`.
    pub const STAGES: [&'static str; 2] = ["exact", "stem"];
}

/// Scores answers, each with its reference; `(answer, reference)`. Words are 13a tokens in lower case.
pub fn meteor<A: AsRef<str>, R: AsRef<str>>(pairs: &[(A, R)]) -> Meteor {
    let sum: f64 = pairs
        .iter()
        .map(|(answer, reference)| score(&words(answer.as_ref()), &words(reference.as_ref())))
        .sum();
    Meteor {
        score: 100.0 * sum / pairs.len().max(1) as f64,
    }
}

fn words(text: &str) -> Vec<String> {
    words_13a(&text.to_lowercase())
}

fn score(answer: &[String], reference: &[String]) -> f64 {
    let alignment = align(answer, reference);
    if alignment.is_empty() {
        return 0.0;
    }
    let num_matches = alignment.len() as f64;
    let precision = num_matches / answer.len() as f64;
    let recall = num_matches / reference.len() as f64;
    let mean = precision * recall / (ALPHA * precision + (1.0 - ALPHA) * recall);
    let fragmentation = num_pieces(&alignment) as f64 / num_matches;
    mean * (1.0 - GAMMA * fragmentation.powf(BETA))
}

/// Pairs of positions, in the order of the answer: first the words that are equal, then those of equal stem.
fn align(answer: &[String], reference: &[String]) -> Vec<(usize, usize)> {
    let mut free: Vec<(usize, &str)> = numbered(answer);
    let mut free_reference: Vec<(usize, &str)> = numbered(reference);
    let mut alignment = match_from_the_end(&mut free, &mut free_reference);
    let stems: Vec<String> = free.iter().map(|(_, word)| stem(word)).collect();
    let reference_stems: Vec<String> = free_reference.iter().map(|(_, word)| stem(word)).collect();
    let mut free = positioned(&free, &stems);
    let mut free_reference = positioned(&free_reference, &reference_stems);
    alignment.extend(match_from_the_end(&mut free, &mut free_reference));
    alignment.sort_unstable();
    alignment
}

fn numbered(words: &[String]) -> Vec<(usize, &str)> {
    words.iter().map(String::as_str).enumerate().collect()
}

fn positioned<'a>(words: &[(usize, &str)], stems: &'a [String]) -> Vec<(usize, &'a str)> {
    let positions = words.iter().map(|(position, _)| *position);
    positions.zip(stems.iter().map(String::as_str)).collect()
}

/// Takes out pairs of equal words, from the last word of the answer on, each with the last that is free.
fn match_from_the_end(
    words: &mut Vec<(usize, &str)>,
    others: &mut Vec<(usize, &str)>,
) -> Vec<(usize, usize)> {
    let mut free: HashMap<&str, Vec<usize>> = HashMap::new();
    for &(position, other) in others.iter() {
        free.entry(other).or_default().push(position);
    }
    let mut pairs = Vec::new();
    for &(position, word) in words.iter().rev() {
        if let Some(other_position) = free.get_mut(word).and_then(Vec::pop) {
            pairs.push((position, other_position));
        }
    }
    let matched: HashSet<usize> = pairs.iter().map(|&(position, _)| position).collect();
    words.retain(|(position, _)| !matched.contains(position));
    let matched: HashSet<usize> = pairs.iter().map(|&(_, position)| position).collect();
    others.retain(|(position, _)| !matched.contains(position));
    pairs
}

/// How many runs there are in which both sides step by one.
fn num_pieces(alignment: &[(usize, usize)]) -> usize {
    let breaks = alignment
        .windows(2)
        .filter(|pair| pair[1].0 != pair[0].0 + 1 || pair[1].1 != pair[0].1 + 1)
        .count();
    breaks + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_matters_and_stems_count() {
        let reference = "the robin sings in winter";
        let in_order = meteor(&[("the robin sang in winter", reference)]).score;
        let shuffled = meteor(&[("winter in sang robin the", reference)]).score;
        let by_stem = meteor(&[("the robins sing in winters", reference)]).score;
        assert!(shuffled < in_order);
        assert!(by_stem > 95.0, "{by_stem}");
        assert!(meteor(&[("", reference)]).score.abs() < 1e-9);
    }
}
