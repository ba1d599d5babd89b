//! Norms of rows, with a frozen scale.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::math::dot;
use super::vectorised;

/// Rows per task.
const CHUNK_ROWS: usize = 16;

/// What rows are divided by, and how they are scaled.
#[derive(Debug, Clone, Copy)]
pub(in crate::fused) struct RmsNorm<'a> {
    /// `[hidden]`
    pub(in crate::fused) scale: &'a [f32],
    pub(in crate::fused) epsilon: f32,
}

impl RmsNorm<'_> {
    /// `x / sqrt(mean(x * x) + epsilon) * scale` of each row.
    pub(in crate::fused) fn forward(self, x: &[f32]) -> Vec<f32> {
        let mut output = vec![0.0; x.len()];
        let chunk = CHUNK_ROWS * self.scale.len();
        output
            .par_chunks_mut(chunk)
            .zip(x.par_chunks(chunk))
            .for_each(|(output, x)| {
                vectorised(Forward {
                    norm: self,
                    output,
                    x,
                });
            });
        output
    }

    /// What a gradient of the output becomes for `x`.
    pub(in crate::fused) fn backward(self, x: &[f32], grad: &[f32]) -> Vec<f32> {
        let mut x_grad = vec![0.0; x.len()];
        let chunk = CHUNK_ROWS * self.scale.len();
        x_grad
            .par_chunks_mut(chunk)
            .zip(x.par_chunks(chunk))
            .zip(grad.par_chunks(chunk))
            .for_each(|((x_grad, x), grad)| {
                vectorised(Backward {
                    norm: self,
                    x_grad,
                    x,
                    grad,
                });
            });
        x_grad
    }

    #[inline(always)]
    fn inverse(self, row: &[f32]) -> f32 {
        let mean = dot(row, row) / row.len() as f32;
        1.0 / (mean + self.epsilon).sqrt()
    }
}

struct Forward<'a> {
    norm: RmsNorm<'a>,
    output: &'a mut [f32],
    x: &'a [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let scale = self.norm.scale;
        let rows = self.x.chunks_exact(scale.len());
        for (output, row) in self.output.chunks_exact_mut(scale.len()).zip(rows) {
            let inverse = self.norm.inverse(row);
            for ((output, &x), &scale) in output.iter_mut().zip(row).zip(scale) {
                *output = x * inverse * scale;
            }
        }
    }
}

struct Backward<'a> {
    norm: RmsNorm<'a>,
    x_grad: &'a mut [f32],
    x: &'a [f32],
    grad: &'a [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let scale = self.norm.scale;
        let size = scale.len();
        let inputs = self.x.chunks_exact(size).zip(self.grad.chunks_exact(size));
        for (x_grad, (row, grad)) in self.x_grad.chunks_exact_mut(size).zip(inputs) {
            let inverse = self.norm.inverse(row);
            for ((x_grad, &grad), &scale) in x_grad.iter_mut().zip(grad).zip(scale) {
                *x_grad = grad * scale;
            }
            let along = dot(x_grad, row) * inverse * inverse / size as f32;
            for (x_grad, &x) in x_grad.iter_mut().zip(row) {
                *x_grad = (*x_grad - x * along) * inverse;
            }
        }
    }
}
