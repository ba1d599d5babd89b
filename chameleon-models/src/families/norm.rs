//! Norms of either kind, and their places around a part of a layer.

use burn::module::{Initializer, Module, Param};
use burn::tensor::module::layer_norm;
use burn::tensor::{Device, Tensor};
use chameleon_core::fused;

use super::config::{NormConfig, NormKind, NormPlace};

/// A norm over the last axis: with a shift it centres, without one it divides by the root of the mean square.
#[derive(Module, Debug)]
pub struct Norm {
    /// The scale, `[width]`.
    pub gamma: Param<Tensor<1>>,
    /// The shift, `[width]`.
    pub beta: Option<Param<Tensor<1>>>,
    #[module(skip)]
    epsilon: f64,
}

impl NormConfig {
    /// A norm that scales by one.
    pub(crate) fn init(&self, width: usize, device: &Device) -> Norm {
        let beta = match self.kind {
            NormKind::RootMeanSquare => None,
            NormKind::Layer => Some(Initializer::Zeros.init([width], device)),
        };
        Norm {
            gamma: Initializer::Ones.init([width], device),
            beta,
            epsilon: self.epsilon,
        }
    }
}

impl Norm {
    /// `[batch, seq, width]` -> `[batch, seq, width]`
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match &self.beta {
            None => fused::rms_norm(x, self.gamma.val(), self.epsilon),
            Some(beta) => layer_norm(x, self.gamma.val(), Some(beta.val()), self.epsilon),
        }
    }
}

/// The norms around a part of a layer.
#[derive(Module, Debug)]
pub struct PartNorms {
    /// Of what enters the part.
    pub before: Option<Norm>,
    /// Of what leaves it.
    pub after: Option<Norm>,
}

impl PartNorms {
    pub(crate) fn init(place: NormPlace, norm: &NormConfig, width: usize, device: &Device) -> Self {
        let at = |places: [NormPlace; 2]| places.contains(&place).then(|| norm.init(width, device));
        Self {
            before: at([NormPlace::Before, NormPlace::Both]),
            after: at([NormPlace::After, NormPlace::Both]),
        }
    }

    /// What enters the part.
    pub(crate) fn entering(&self, states: Tensor<3>) -> Tensor<3> {
        apply(self.before.as_ref(), states)
    }

    /// What leaves it.
    pub(crate) fn leaving(&self, states: Tensor<3>) -> Tensor<3> {
        apply(self.after.as_ref(), states)
    }
}

fn apply(norm: Option<&Norm>, states: Tensor<3>) -> Tensor<3> {
    match norm {
        Some(norm) => norm.forward(states),
        None => states,
    }
}
