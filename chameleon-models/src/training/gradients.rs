//! Gradient clipping by the norm of all gradients together.
//!
//! Burn's own clipping looks at each tensor alone, which changes the direction of the step.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// Scales all gradients of `module` so that their common L2 norm is at most `max_norm`, and
/// returns the norm before.
pub(crate) fn clip_to_norm<M: Module>(
    module: &M,
    grads: &mut GradientsParams,
    max_norm: f64,
) -> f64 {
    let mut sum = SquareSum { grads, total: 0.0 };
    module.visit(&mut sum);
    let norm = sum.total.sqrt();
    if norm > max_norm {
        module.visit(&mut Scale {
            grads,
            factor: max_norm / norm,
        });
    }
    norm
}

struct SquareSum<'a> {
    grads: &'a GradientsParams,
    total: f64,
}

impl ModuleVisitor for SquareSum<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.total += f64::from(grad.square().sum().into_scalar::<f32>());
        }
    }
}

struct Scale<'a> {
    grads: &'a mut GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            self.grads.register(param.id, grad * self.factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::{Device, Distribution};

    use super::*;

    fn model_and_grads() -> (Linear, GradientsParams) {
        let device = Device::flex().autodiff();
        let model = LinearConfig::new(4, 3).init(&device);
        let input = Tensor::<2>::random([5, 4], Distribution::Normal(0.0, 3.0), &device);
        let grads = model.forward(input).square().sum().backward();
        let grads = GradientsParams::from_grads(grads, &model);
        (model, grads)
    }

    #[test]
    fn clipped_gradients_have_the_largest_norm_allowed() {
        let (model, mut grads) = model_and_grads();
        let before = clip_to_norm(&model, &mut grads, 0.5);
        assert!(before > 0.5);
        let after = clip_to_norm(&model, &mut grads, f64::INFINITY);
        assert!((after - 0.5).abs() < 1e-5, "{after}");
    }

    #[test]
    fn small_gradients_are_left_alone() {
        let (model, mut grads) = model_and_grads();
        let before = clip_to_norm(&model, &mut grads, 1e9);
        assert_eq!(
            before.to_bits(),
            clip_to_norm(&model, &mut grads, 1e9).to_bits()
        );
    }
}
