//! Activations of feed-forward parts, with their derivatives.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::math::exp;
use super::vectorised;

/// Elements per task.
const CHUNK: usize = 16 * 1024;

/// `gate * sigmoid(gate) * up`.
pub(in crate::fused) fn swiglu(gate: &[f32], up: &[f32]) -> Vec<f32> {
    let mut output = vec![0.0; gate.len()];
    output
        .par_chunks_mut(CHUNK)
        .zip(gate.par_chunks(CHUNK))
        .zip(up.par_chunks(CHUNK))
        .for_each(|((output, gate), up)| vectorised(Swiglu { output, gate, up }));
    output
}

/// Gradients of [`swiglu`]'s inputs from that of its output.
pub(in crate::fused) struct SwigluGradients {
    pub(in crate::fused) gate: Vec<f32>,
    pub(in crate::fused) up: Vec<f32>,
}

pub(in crate::fused) fn swiglu_backward(gate: &[f32], up: &[f32], grad: &[f32]) -> SwigluGradients {
    let mut gate_grad = vec![0.0; gate.len()];
    let mut up_grad = vec![0.0; gate.len()];
    gate_grad
        .par_chunks_mut(CHUNK)
        .zip(up_grad.par_chunks_mut(CHUNK))
        .zip(gate.par_chunks(CHUNK))
        .zip(up.par_chunks(CHUNK))
        .zip(grad.par_chunks(CHUNK))
        .for_each(|((((gate_grad, up_grad), gate), up), grad)| {
            vectorised(SwigluBackward {
                gate_grad,
                up_grad,
                gate,
                up,
                grad,
            });
        });
    SwigluGradients {
        gate: gate_grad,
        up: up_grad,
    }
}

/// GELU by its tanh approximation, `x * sigmoid(x * (SLOPE + CURVE * x * x))`.
pub(in crate::fused) fn gelu_tanh(x: &[f32]) -> Vec<f32> {
    let mut output = vec![0.0; x.len()];
    output
        .par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK))
        .for_each(|(output, x)| vectorised(GeluTanh { output, x }));
    output
}

/// The gradient of [`gelu_tanh`]'s input from that of its output.
pub(in crate::fused) fn gelu_tanh_backward(x: &[f32], grad: &[f32]) -> Vec<f32> {
    let mut x_grad = vec![0.0; x.len()];
    x_grad
        .par_chunks_mut(CHUNK)
        .zip(x.par_chunks(CHUNK))
        .zip(grad.par_chunks(CHUNK))
        .for_each(|((x_grad, x), grad)| vectorised(GeluTanhBackward { x_grad, x, grad }));
    x_grad
}

/// `2 * sqrt(2 / pi)`
const SLOPE: f32 = 1.595_769;
const CURVE: f32 = SLOPE * 0.044_715;

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

struct Swiglu<'a> {
    output: &'a mut [f32],
    gate: &'a [f32],
    up: &'a [f32],
}

impl WithSimd for Swiglu<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((output, &gate), &up) in self.output.iter_mut().zip(self.gate).zip(self.up) {
            *output = gate * sigmoid(gate) * up;
        }
    }
}

struct SwigluBackward<'a> {
    gate_grad: &'a mut [f32],
    up_grad: &'a mut [f32],
    gate: &'a [f32],
    up: &'a [f32],
    grad: &'a [f32],
}

impl WithSimd for SwigluBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let outputs = self.gate_grad.iter_mut().zip(self.up_grad);
        let inputs = self.gate.iter().zip(self.up).zip(self.grad);
        for ((gate_grad, up_grad), ((&gate, &up), &grad)) in outputs.zip(inputs) {
            let open = sigmoid(gate);
            *up_grad = grad * gate * open;
            *gate_grad = grad * up * open * (1.0 + gate * (1.0 - open));
        }
    }
}

struct GeluTanh<'a> {
    output: &'a mut [f32],
    x: &'a [f32],
}

impl WithSimd for GeluTanh<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (output, &x) in self.output.iter_mut().zip(self.x) {
            *output = x * sigmoid(x * (SLOPE + CURVE * x * x));
        }
    }
}

struct GeluTanhBackward<'a> {
    x_grad: &'a mut [f32],
    x: &'a [f32],
    grad: &'a [f32],
}

impl WithSimd for GeluTanhBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((x_grad, &x), &grad) in self.x_grad.iter_mut().zip(self.x).zip(self.grad) {
            let open = sigmoid(x * (SLOPE + CURVE * x * x));
            let steepness = SLOPE + 3.0 * CURVE * x * x;
            // For large inputs the sigmoid is saturated and its derivative is zero.
            *x_grad = grad * open * (1.0 + x * (1.0 - open) * steepness);
        }
    }
}
