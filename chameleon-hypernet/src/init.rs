//! Initial weights that depend on the run seed alone.
//!
//! Burn draws from one generator per device, so its weights depend on earlier draws. Here every tensor has its own
//! random stream.

use std::f64::consts::TAU;

use burn::module::Param;
use burn::tensor::{Device, Shape, Tensor, TensorData};
use chameleon_core::RunSeed;
use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};

/// Initialisation of factors, generated or static.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FactorInit {
    /// `b` starts at zero and `a` does not: the first delta is zero, and `b` has a gradient from the first step on.
    #[default]
    ZeroDelta,
    /// Small normal values everywhere, so that the first delta is small but not zero.
    AsPublished,
}

/// A trainable tensor of independent normal values with mean zero.
pub(crate) fn normal<const D: usize>(
    shape: [usize; D],
    std: f64,
    stream: impl Rng,
    device: &Device,
) -> Param<Tensor<D>> {
    from_values(
        shape,
        normal_values(num_elements(shape), std, stream),
        device,
    )
}

/// A trainable `[in, out]` matrix, uniform with the bound of Glorot and Bengio (2010).
pub(crate) fn xavier_uniform(
    shape: [usize; 2],
    mut stream: impl Rng,
    device: &Device,
) -> Param<Tensor<2>> {
    let [in_size, out_size] = shape;
    let bound = (6.0 / (in_size + out_size) as f64).sqrt();
    let values = (0..in_size * out_size)
        .map(|_| single(stream.random_range(-bound..bound)))
        .collect();
    from_values(shape, values, device)
}

/// A trainable tensor of zeros.
pub(crate) fn zeros<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    from_values(shape, vec![0.0; num_elements(shape)], device)
}

/// A trainable tensor of these values, row by row.
pub(crate) fn from_values<const D: usize>(
    shape: [usize; D],
    values: Vec<f32>,
    device: &Device,
) -> Param<Tensor<D>> {
    Param::from_data(TensorData::new(values, Shape::from(shape)), device)
}

pub(crate) fn normal_values(len: usize, std: f64, mut stream: impl Rng) -> Vec<f32> {
    (0..len)
        .map(|_| single(std * standard_normal(&mut stream)))
        .collect()
}

/// Standard deviation of a factor `a` for which `hidden·a` has the scale of `hidden`.
pub(crate) fn factor_std(in_size: usize) -> f64 {
    1.0 / (in_size as f64).sqrt()
}

/// A seed for each layer or part: `seed.derive("layers.0")`, but for numbered parts.
pub(crate) fn numbered(seed: RunSeed, name: &str, idx: usize) -> RunSeed {
    seed.derive(&format!("{name}.{idx}"))
}

/// Box and Muller (1958); the second value of each pair is not used, for simplicity.
fn standard_normal(rng: &mut impl Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt(); // The logarithm's argument is in (0, 1].
    radius * (TAU * rng.random::<f64>()).cos()
}

fn num_elements<const D: usize>(shape: [usize; D]) -> usize {
    shape.iter().product()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "weights are stored in single precision"
)]
fn single(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_values_have_the_configured_spread() {
        let values = normal_values(20_000, 0.5, RunSeed(1).stream("test"));
        let len = values.len() as f32;
        let mean = values.iter().sum::<f32>() / len;
        let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / len).sqrt();
        assert!(
            mean.abs() < 0.015 && (std - 0.5).abs() < 0.015,
            "{mean} {std}"
        );
        let beyond_two = values.iter().filter(|v| v.abs() > 1.0).count() as f32 / len;
        assert!((beyond_two - 0.0455).abs() < 0.006, "{beyond_two}");
    }

    #[test]
    fn xavier_stays_within_its_bound_and_fills_it() {
        let weight = xavier_uniform([20, 30], RunSeed(1).stream("test"), &Device::flex());
        let largest = weight.val().abs().max().into_scalar::<f32>();
        let bound = (6.0f32 / 50.0).sqrt();
        assert!(largest <= bound && largest > 0.97 * bound);
    }
}
