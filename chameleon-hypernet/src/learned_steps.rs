//! Learned gradient steps: factors that are generated from the gradients of a few answered requests.
//!
//! A *start* (factors that are the same for every group) takes a few steps down the loss of a group's exemplars:
//! `w - size · g / rms(g)`. The start and the sizes, one for each step and tensor, are trained over many groups so that
//! the loss on *other* texts of a group is low after the steps (Li et al. 2017, arXiv 1707.09835). Gradients are divided
//! by their root mean square, so that a size says how far a value moves, whatever the scale of the loss.
//!
//! Training is first order (Finn et al. 2017, arXiv 1703.03400): the normalised gradients are constants, so the gradient
//! of the start is that of the factors after the steps, and each size has the gradient `-<gradient, step>`.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, assert_shape};

use crate::error::HypernetError;
use crate::init::zeros;

/// Size of every step before training: a hundredth of this would not move, and ten times as much would overshoot.
const FIRST_SIZE: f64 = 5e-3;

/// How much faster the logarithm of a size moves than a factor. Adam moves every parameter by about the learning rate,
/// which suits factors of a few hundredths; sizes change by powers of ten.
const LOG_SPEED: f64 = 20.0;

/// The gradient of a logarithm is multiplied by this. Adam's steps are the same whatever the scale of a gradient, but
/// clipping by the common norm of all gradients would otherwise look at nothing but the sizes.
const GRADIENT_SCALE: f64 = 1e-3;

/// Added to the root mean square of a gradient.
const EPSILON: f64 = 1e-12;

/// Sizes of the steps, for each step and tensor.
#[derive(Module, Debug)]
pub struct LearnedSteps {
    /// `[steps, tensors]`; a size is `5e-3 · 10^(20 · value)`.
    pub log_sizes: Param<Tensor<2>>,
}

impl LearnedSteps {
    /// Steps of equal size.
    ///
    /// # Errors
    ///
    /// When there are no steps or no tensors.
    pub fn new(
        num_steps: usize,
        num_tensors: usize,
        device: &Device,
    ) -> Result<Self, HypernetError> {
        for (size, found) in [
            ("number of learned steps", num_steps),
            ("number of tensors of the learned steps", num_tensors),
        ] {
            if found == 0 {
                return Err(HypernetError::ZeroSize { size });
            }
        }
        Ok(Self {
            log_sizes: zeros([num_steps, num_tensors], device),
        })
    }

    /// The number of steps that were learned.
    pub fn num_steps(&self) -> usize {
        self.log_sizes.dims()[0]
    }

    /// The sizes of `num_steps` steps; those beyond the learned ones have the sizes of the last.
    ///
    /// # Shapes
    ///
    /// - output: `[steps, tensors]`
    ///
    /// # Panics
    ///
    /// When there is no step.
    pub fn sizes(&self, num_steps: usize) -> Tensor<2> {
        let log_sizes = self.log_sizes.val();
        let constant = log_sizes.clone().detach() * (1.0 - GRADIENT_SCALE);
        let log_sizes = log_sizes * GRADIENT_SCALE + constant;
        let num_learned = self.num_steps();
        let log_sizes = if num_steps <= num_learned {
            log_sizes.narrow(0, 0, num_steps)
        } else {
            let last = log_sizes.clone().narrow(0, num_learned - 1, 1);
            Tensor::cat(
                vec![log_sizes, last.repeat_dim(0, num_steps - num_learned)],
                0,
            )
        };
        (log_sizes * (LOG_SPEED * std::f64::consts::LN_10)).exp() * FIRST_SIZE
    }
}

/// A gradient divided by its root mean square.
pub fn normalised(gradient: Tensor<2>) -> Tensor<2> {
    let root_mean_square = gradient.clone().square().mean().sqrt() + EPSILON;
    gradient / root_mean_square.unsqueeze()
}

/// A tensor after some steps: `start - Σ size · gradient`. Gradients reach the start and the sizes.
///
/// # Shapes
///
/// - `start`, `gradients`, output: `[rows, columns]`
/// - `sizes`: `[steps, tensors]`
///
/// # Panics
///
/// When there are more gradients than steps, or the shapes do not fit each other.
pub fn after_steps(
    start: Tensor<2>,
    gradients: &[Tensor<2>],
    sizes: &Tensor<2>,
    tensor_idx: usize,
) -> Tensor<2> {
    let [rows, columns] = start.dims();
    gradients
        .iter()
        .enumerate()
        .fold(start, |tensor, (step, gradient)| {
            assert_shape!(gradient, [rows, columns]);
            let size = sizes.clone().slice([step..=step, tensor_idx..=tensor_idx]); // [1, 1]
            tensor - gradient.clone() * size
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, normal, values};

    #[test]
    fn the_first_steps_are_of_equal_size_and_the_last_is_repeated() {
        let mut steps = LearnedSteps::new(2, 3, &Device::flex()).unwrap();
        assert_close(
            &steps.sizes(1),
            &Tensor::full([1, 3], FIRST_SIZE, &Device::flex()),
        );
        steps.log_sizes = Param::from_tensor(Tensor::from_floats(
            [[0.0, 0.05, 0.0], [0.0, -0.05, 0.0]],
            &Device::flex(),
        ));
        let sizes = values(steps.sizes(4));
        let expected = [5e-3, 5e-2, 5e-3, 5e-3, 5e-4, 5e-3];
        for (idx, size) in sizes.iter().enumerate() {
            let expected = expected[if idx < 6 { idx } else { 3 + idx % 3 }];
            assert!((size / expected - 1.0).abs() < 1e-4, "{idx}: {size}");
        }
        assert!(LearnedSteps::new(0, 3, &Device::flex()).is_err());
    }

    #[test]
    fn a_normalised_gradient_has_a_root_mean_square_of_one_and_zeros_stay_zeros() {
        let found = normalised(normal([5, 7], 3) * 1e-6);
        let mean_square: f32 = found.square().mean().into_scalar();
        assert!((mean_square - 1.0).abs() < 1e-3, "{mean_square}");
        let zeros = Tensor::<2>::zeros([2, 2], &Device::flex());
        assert_close(&normalised(zeros.clone()), &zeros);
    }

    #[test]
    fn gradients_reach_the_start_and_the_sizes() {
        let device = Device::flex().autodiff();
        let steps = LearnedSteps::new(2, 1, &device).unwrap();
        let start = normal([3, 2], 1).autodiff().require_grad();
        let gradients = [normal([3, 2], 2), normal([3, 2], 3)];
        let tracked: Vec<_> = gradients.iter().map(|g| g.clone().autodiff()).collect();
        let after = after_steps(start.clone(), &tracked, &steps.sizes(2), 0);
        let weights = normal([3, 2], 4);
        let grads = (after * weights.clone().autodiff()).sum().backward();
        assert_close(&start.grad(&grads).unwrap(), &weights);
        let found = values(steps.log_sizes.val().grad(&grads).unwrap());
        for (found, gradient) in found.iter().zip(gradients) {
            let inner: f32 = (gradient * weights.clone()).sum().into_scalar();
            #[expect(clippy::cast_possible_truncation, reason = "compared with f32")]
            let speed = (LOG_SPEED * std::f64::consts::LN_10 * FIRST_SIZE * GRADIENT_SCALE) as f32;
            assert!((found + inner * speed).abs() < 1e-6, "{found} {inner}");
        }
    }
}
