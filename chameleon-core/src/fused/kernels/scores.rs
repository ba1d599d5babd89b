//! From attention scores to probabilities and back to gradients, row by row.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::math::{LANES, dot, exp, max, sum_lanes, tanh};
use crate::fused::inputs::ScoreRule;

/// `cap * tanh(score / cap)`.
pub(super) struct SoftCap<'a> {
    pub(super) scores: &'a mut [f32],
    pub(super) cap: f32,
}

impl WithSimd for SoftCap<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for score in self.scores {
            *score = self.cap * tanh(*score / self.cap);
        }
    }
}

/// The gradient of capped scores becomes that of the scores.
pub(super) struct SoftCapBackward<'a> {
    pub(super) grad: &'a mut [f32],
    /// After the cap.
    pub(super) scores: &'a [f32],
    pub(super) cap: f32,
}

impl WithSimd for SoftCapBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (grad, &score) in self.grad.iter_mut().zip(self.scores) {
            let share = score / self.cap;
            *grad *= 1.0 - share * share;
        }
    }
}

/// Scores become probabilities: each row a distribution over the keys that its query attends to, zero elsewhere.
pub(super) struct MaskedSoftmax<'a> {
    /// `[queries, keys]`
    pub(super) scores: &'a mut [f32],
    pub(super) keys: Range<usize>,
    pub(super) first_query: usize,
    pub(super) rule: ScoreRule,
}

impl WithSimd for MaskedSoftmax<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (row_idx, row) in self.scores.chunks_exact_mut(self.keys.len()).enumerate() {
            let query = self.first_query + row_idx;
            let first = self.rule.first_key(query) - self.keys.start;
            let (seen, later) = row.split_at_mut(query + 1 - self.keys.start);
            let (earlier, seen) = seen.split_at_mut(first);
            let largest = max(seen);
            let mut lanes = [0.0; LANES];
            let mut chunks = seen.chunks_exact_mut(LANES);
            for chunk in &mut chunks {
                for (lane, score) in lanes.iter_mut().zip(chunk) {
                    *score = exp(*score - largest);
                    *lane += *score;
                }
            }
            for (lane, score) in lanes.iter_mut().zip(chunks.into_remainder()) {
                *score = exp(*score - largest);
                *lane += *score;
            }
            let share = 1.0 / sum_lanes(lanes);
            for score in seen {
                *score *= share;
            }
            earlier.fill(0.0);
            later.fill(0.0);
        }
    }
}

/// `grad` becomes `probs * (grad - sum(probs * grad))`, row by row.
pub(super) struct SoftmaxBackward<'a> {
    /// `[queries, keys]`
    pub(super) grad: &'a mut [f32],
    /// `[queries, keys]`
    pub(super) probs: &'a [f32],
    pub(super) num_keys: usize,
}

impl WithSimd for SoftmaxBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let rows = self.grad.chunks_exact_mut(self.num_keys);
        for (grad, probs) in rows.zip(self.probs.chunks_exact(self.num_keys)) {
            let along = dot(grad, probs);
            for (grad, &prob) in grad.iter_mut().zip(probs) {
                *grad = prob * (*grad - along);
            }
        }
    }
}
