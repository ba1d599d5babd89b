//! Cross-entropy of rows of logits: one pass for the maximum, one for the exponentials and their sum, and one for the
//! gradient, all in the buffer of the logits.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::math::{LANES, exp, max, sum_lanes};
use super::vectorised;

/// Logits and targets.
pub(in crate::fused) struct CrossEntropyRows<'a, L> {
    /// `[rows, vocab]`
    pub(in crate::fused) logits: L,
    /// `[rows]`
    pub(in crate::fused) targets: &'a [usize],
}

/// The losses; the logits become the gradient of the sum of `weights * losses`.
pub(in crate::fused) fn with_gradient(
    rows: CrossEntropyRows<'_, &mut [f32]>,
    weights: &[f32],
) -> Vec<f32> {
    let CrossEntropyRows { logits, targets } = rows;
    let vocab = logits.len() / targets.len();
    logits
        .par_chunks_mut(vocab)
        .zip(targets)
        .zip(weights)
        .map(|((row, &target), &weight)| {
            vectorised(Gradient {
                row,
                target,
                weight,
            })
        })
        .collect()
}

/// The losses alone.
pub(in crate::fused) fn without_gradient(rows: &CrossEntropyRows<'_, &[f32]>) -> Vec<f32> {
    let CrossEntropyRows { logits, targets } = *rows;
    let vocab = logits.len() / targets.len();
    logits
        .par_chunks(vocab)
        .zip(targets)
        .map(|(row, &target)| vectorised(Loss { row, target }))
        .collect()
}

struct Gradient<'a> {
    row: &'a mut [f32],
    target: usize,
    weight: f32,
}

impl WithSimd for Gradient<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f32 {
        let Self {
            row,
            target,
            weight,
        } = self;
        let largest = max(row);
        let shifted = row[target] - largest;
        let mut lanes = [0.0; LANES];
        let mut chunks = row.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *value = exp(*value - largest);
                *lane += *value;
            }
        }
        for (lane, value) in lanes.iter_mut().zip(chunks.into_remainder()) {
            *value = exp(*value - largest);
            *lane += *value;
        }
        let sum = sum_lanes(lanes);
        let share = weight / sum;
        for value in row.iter_mut() {
            *value *= share;
        }
        row[target] -= weight;
        sum.ln() - shifted
    }
}

struct Loss<'a> {
    row: &'a [f32],
    target: usize,
}

impl WithSimd for Loss<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f32 {
        let Self { row, target } = self;
        let largest = max(row);
        let mut lanes = [0.0; LANES];
        let chunks = row.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (lane, &value) in lanes.iter_mut().zip(chunk) {
                *lane += exp(value - largest);
            }
        }
        for (lane, &value) in lanes.iter_mut().zip(rest) {
            *lane += exp(value - largest);
        }
        sum_lanes(lanes).ln() - (row[target] - largest)
    }
}
