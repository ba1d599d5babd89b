//! Learned gradient steps: PyTorch's factors after them, and the gradients by which start and sizes are trained.

use burn::tensor::Device;
use chameleon_hypernet::LearnedSteps;
use chameleon_models::adapter::{ExemplarUse, StepsConfig};

use crate::exemplar_case::ExemplarCase;
use crate::fixture::Fixture;

const NUM_STEPS: usize = 2;
const HOW: ExemplarUse = ExemplarUse::Steps(StepsConfig {
    num_steps: NUM_STEPS,
    num_exemplars: 3,
});
/// Gradients of the sizes are scaled down, so that clipping looks at the factors.
const SIZE_GRADIENT_SCALE: f64 = 1e-3;

fn case(device: &Device) -> ExemplarCase {
    let expected = Fixture::of_steps("llama", "tied");
    let mut case = ExemplarCase::read(expected, &["o_proj", "down_proj"], device);
    let mut learned = LearnedSteps::new(NUM_STEPS, 4, device).unwrap();
    learned.log_sizes = case.expected.parameter("log_sizes", device);
    case.module.steps = Some(learned);
    case
}

#[test]
fn factors_after_the_steps_are_those_of_pytorch() {
    for device in [Device::flex(), Device::flex().autodiff()] {
        let case = case(&device);
        let layers = case
            .module
            .group_layers(&case.model, &case.exemplars(), HOW);
        for (module, factors) in layers.module_factors() {
            for (name, tensor) in [("a", factors.a), ("b", factors.b)] {
                let name = format!("after.{}.{name}", module.path);
                case.expected.assert_close(&name, tensor);
            }
        }
    }
}

#[test]
fn gradients_of_the_start_and_of_the_sizes_are_those_of_pytorch() {
    let device = Device::flex().autodiff();
    let case = case(&device);
    let layers = case
        .module
        .trained_group_layers(&case.model, &case.exemplars(), HOW);
    let grads = case.check_loss_and_gradients(&layers);
    let sizes = &case.module.steps.as_ref().unwrap().log_sizes;
    let grad = sizes.val().grad(&grads).unwrap() / SIZE_GRADIENT_SCALE;
    case.expected.assert_close("log_sizes.grad", grad);
}
