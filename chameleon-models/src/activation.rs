//! The activations of both families, composed of the operations that are fast.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;

/// `x * sigmoid(x)`.
pub(crate) fn silu(x: Tensor<3>) -> Tensor<3> {
    times_sigmoid(x.clone(), x)
}

/// GELU by its tanh approximation, written with a sigmoid: `tanh(u) = 2 sigmoid(2u) - 1`.
///
/// The same function, to rounding; Burn's own version raises to a power and takes tanh on one thread.
pub(crate) fn gelu_new(x: Tensor<3>) -> Tensor<3> {
    /// `2 * sqrt(2 / pi)`
    const SLOPE: f64 = 1.595_769_121_605_731;
    let steepness = (x.clone() * x.clone()) * (SLOPE * 0.044_715) + SLOPE;
    times_sigmoid(x.clone(), steepness * x)
}

/// `x * sigmoid(gate)`.
fn times_sigmoid(x: Tensor<3>, gate: Tensor<3>) -> Tensor<3> {
    if x.is_tracked() || gate.is_tracked() {
        return sigmoid(gate) * x;
    }
    // Half the time of a sigmoid on the CPU. Not where gradients are recorded: for a gate below -88 the
    // exponential is infinite, which the quotient survives and its derivative does not.
    x / ((-gate).exp() + 1.0)
}

#[cfg(test)]
mod tests {
    use burn::tensor::activation::gelu_approximate;
    use burn::tensor::{Device, Tolerance};

    use super::*;

    fn far_and_near(device: &Device) -> Tensor<3> {
        let values: Vec<f32> = (-400..400).map(|step| step as f32 * 0.5).collect();
        Tensor::<1>::from_floats(values.as_slice(), device).reshape([1, 1, 800])
    }

    #[test]
    fn both_paths_are_the_textbook_functions_however_far_out() {
        let x = far_and_near(&Device::flex());
        let tracked = far_and_near(&Device::flex().autodiff()).require_grad();
        let near = Tolerance::absolute(1e-5);
        for (found, recorded, expected) in [
            (
                silu(x.clone()),
                silu(tracked.clone()),
                burn::tensor::activation::silu(x.clone()),
            ),
            (
                gelu_new(x.clone()),
                gelu_new(tracked.clone()),
                gelu_approximate(x),
            ),
        ] {
            let expected = expected.into_data();
            found.into_data().assert_approx_eq::<f32>(&expected, near);
            let grads = recorded.clone().sum().backward();
            let grad = tracked.grad(&grads).unwrap().into_data();
            assert!(grad.iter::<f32>().all(f32::is_finite));
            recorded
                .into_data()
                .assert_approx_eq::<f32>(&expected, near);
        }
    }
}
