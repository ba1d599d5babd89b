//! Gradients of the hypernetwork against central differences, in double precision.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use chameleon_core::RunSeed;
use chameleon_hypernet::{GeneratorKind, HyperLoraHead};

use crate::support::{
    CONDITION_SIZE, SHAPE, double, full_head, gradients_by_name, normal, trained,
};

const STEP: f64 = 1e-5;
const TOLERANCE: f64 = 1e-3;

#[test]
fn dense_gradients_are_slopes() {
    gradients_are_slopes(GeneratorKind::Dense);
}

#[test]
fn core_gradients_are_slopes() {
    gradients_are_slopes(GeneratorKind::Core);
}

fn gradients_are_slopes(kind: GeneratorKind) {
    let device = Device::flex().autodiff();
    let head = double(trained(
        full_head(kind).init(RunSeed(1), &device),
        RunSeed(2),
    ));
    let task = Task::new(&device);
    let gradients = gradients_by_name(&head, &task.loss(&head).backward());
    assert!(gradients.len() >= 8, "{:?}", gradients.keys());

    let mut num_checked = 0;
    for (tensor_idx, gradient) in order_of_visit(&head)
        .iter()
        .map(|name| &gradients[name])
        .enumerate()
    {
        let values: Vec<f64> = gradient.iter().collect();
        let stride = (values.len() / 7).max(1);
        for element_idx in (0..values.len()).step_by(stride) {
            let nudged = |step: f64| {
                let nudged = nudge(head.clone(), tensor_idx, element_idx, step);
                task.loss(&nudged).into_scalar::<f64>()
            };
            let slope = (nudged(STEP) - nudged(-STEP)) / (2.0 * STEP);
            let found = values[element_idx];
            let error = (found - slope).abs();
            assert!(
                error <= TOLERANCE * slope.abs().max(1e-4),
                "tensor {tensor_idx}, element {element_idx}: gradient {found}, slope {slope}"
            );
            num_checked += usize::from(slope != 0.0);
        }
    }
    assert!(
        num_checked > 30,
        "only {num_checked} slopes differ from zero"
    );
}

/// Two groups, a few rows each, through a small frozen head into a softmax.
struct Task {
    conditions: Tensor<2>,
    hidden: Tensor<2>,
    weight: Tensor<2>,
    targets: Tensor<2, Int>,
}

impl Task {
    fn new(device: &Device) -> Self {
        let double = |tensor: Tensor<2>| tensor.cast(FloatDType::F64);
        Self {
            conditions: double(normal([2, CONDITION_SIZE], device)),
            hidden: double(normal([3, SHAPE.in_size], device)),
            weight: double(normal([SHAPE.in_size, SHAPE.out_size], device)),
            targets: Tensor::from_data([[1], [7], [20]], device),
        }
    }

    fn loss(&self, head: &HyperLoraHead) -> Tensor<1> {
        let factors = head.factors(self.conditions.clone());
        let losses = factors.iter().map(|factors| {
            let hidden = self.hidden.clone();
            let logits = hidden.clone().matmul(self.weight.clone()) + factors.apply(hidden);
            let log_probs = log_softmax(logits, 1).gather(1, self.targets.clone());
            log_probs.mean().neg()
        });
        Tensor::cat(losses.collect(), 0).mean()
    }
}

/// Names of the trained tensors in the order in which a mapper meets them.
fn order_of_visit(head: &HyperLoraHead) -> Vec<String> {
    use burn::store::ModuleSnapshot;
    let names = head
        .collect(None, None, true)
        .into_iter()
        .map(|tensor| tensor.name);
    names
        .filter(|name| !name.starts_with("condition_norm"))
        .collect()
}

fn nudge(head: HyperLoraHead, tensor_idx: usize, element_idx: usize, step: f64) -> HyperLoraHead {
    struct Nudge {
        num_left: usize,
        element_idx: usize,
        step: f64,
        is_done: bool,
    }
    impl ModuleMapper for Nudge {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if !param.is_require_grad() || self.is_done {
                return param;
            }
            if self.num_left > 0 {
                self.num_left -= 1;
                return param;
            }
            self.is_done = true;
            param.map(|tensor| {
                let mut values: Vec<f64> = tensor.to_data().iter().collect();
                values[self.element_idx] += self.step;
                let data = TensorData::new(values, tensor.shape());
                Tensor::from_data(data, (&tensor.device(), DType::F64)).require_grad()
            })
        }
    }
    head.map(&mut Nudge {
        num_left: tensor_idx,
        element_idx,
        step,
        is_done: false,
    })
}
