//! Intervals against those that numpy draws.

use chameleon_core::RunSeed;
use chameleon_models::training::experiment::{Interval, PairedSequence, paired_interval};
use serde::Deserialize;

#[derive(Deserialize)]
struct Expected {
    sequences: Vec<Sequence>,
    by_source: Interval,
    by_sequence: Interval,
}

#[derive(Deserialize)]
struct Sequence {
    source: usize,
    num_tokens: usize,
    differences: Vec<f64>,
}

fn interval(sequences: &[Sequence], unit: impl Fn(usize, &Sequence) -> usize) -> Interval {
    let paired: Vec<PairedSequence> = sequences
        .iter()
        .enumerate()
        .map(|(idx, sequence)| PairedSequence {
            differences: sequence.differences.clone(),
            num_tokens: sequence.num_tokens,
            unit_idx: unit(idx, sequence),
        })
        .collect();
    paired_interval(&paired, RunSeed(1))
}

fn assert_near(found: Interval, expected: Interval) {
    assert!((found.mean - expected.mean).abs() < 1e-9, "{found:?}");
    // Both ends are drawn; between runs of 10,000 draws they move by about 2 % of the width.
    let tolerance = 0.05 * (expected.high - expected.low);
    for (found_end, expected_end) in [(found.low, expected.low), (found.high, expected.high)] {
        assert!(
            (found_end - expected_end).abs() < tolerance,
            "{found:?} {expected:?}"
        );
    }
}

#[test]
fn intervals_over_sources_are_those_of_numpy_and_wider_than_over_sequences() {
    let expected: Expected =
        serde_json::from_str(include_str!("../fixtures/bootstrap/expected.json")).unwrap();
    let by_source = interval(&expected.sequences, |_, sequence| sequence.source);
    let by_sequence = interval(&expected.sequences, |idx, _| idx);
    assert_near(by_source, expected.by_source);
    assert_near(by_sequence, expected.by_sequence);
    let width = |interval: Interval| interval.high - interval.low;
    assert!(width(by_source) > 1.5 * width(by_sequence));
}
