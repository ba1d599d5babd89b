//! Learned gradient steps: PyTorch's factors after them, and the gradients by which start and sizes are trained.

use burn::tensor::{Device, Tensor};
use chameleon_core::{HeadInput, RunSeed, SplitSequence, linear_cross_entropy};
use chameleon_hypernet::{LearnedSteps, LoraConfig};
use chameleon_models::adapter::{
    AdapterModule, ExemplarStates, HeadAdapter, LayerAdaptation, LayerKind, LayerRange, head_shape,
};
use chameleon_models::families::{PassEnd, PassInput, SequencePass};
use chameleon_models::{CausalLm, LanguageModel};

use crate::fixture::Fixture;

const LAYER_IDX: usize = 1;
const NUM_STEPS: usize = 2;
/// First token, end and boundary, as in the script.
const EXEMPLARS: [(usize, usize, usize); 3] = [(0, 7, 4), (3, 16, 9), (8, 14, 2)];
const OTHERS: [(usize, usize, usize); 2] = [(5, 13, 3), (1, 9, 6)];
/// Gradients of the sizes are scaled down, so that clipping looks at the factors.
const SIZE_GRADIENT_SCALE: f64 = 1e-3;

struct Case {
    steps: Fixture,
    model: LanguageModel,
    module: AdapterModule,
    tokens: Vec<u32>,
}

impl Case {
    fn read(device: &Device) -> Self {
        let base = Fixture::read("llama", "tied");
        let steps = Fixture::of_steps("llama", "tied");
        let model = base.model(&Device::flex());
        let layers = LayerAdaptation {
            targets: ["o_proj", "down_proj"].map(str::to_owned).to_vec(),
            layers: LayerRange::Between {
                first: LAYER_IDX,
                end: LAYER_IDX + 1,
            },
            kind: LayerKind::Lora,
            rank: 3,
            scale: 0.7,
        };
        let mut layers = layers
            .config(&model, None)
            .unwrap()
            .init(RunSeed(1), device);
        let paths: Vec<String> = layers.modules().iter().map(|m| m.path.clone()).collect();
        for (factors, path) in layers.factors.iter_mut().zip(paths) {
            factors.a = steps.parameter(&format!("{path}.a"), device);
            factors.b = steps.parameter(&format!("{path}.b"), device);
        }
        let mut head = LoraConfig::new(head_shape(&model, 3))
            .with_scale(0.7)
            .init(RunSeed(1), device);
        head.a = steps.parameter("head.a", device);
        head.b = steps.parameter("head.b", device);
        let mut learned = LearnedSteps::new(NUM_STEPS, 4, device).unwrap();
        learned.log_sizes = steps.parameter("log_sizes", device);
        let mut module = AdapterModule::head_only(HeadAdapter::Lora(head));
        module.layers = Some(layers);
        module.steps = Some(learned);
        let tokens = base.token_ids(&Device::flex()).into_data();
        Self {
            tokens: tokens
                .iter::<i64>()
                .map(|id| u32::try_from(id).unwrap())
                .collect(),
            steps,
            model,
            module,
        }
    }

    fn sequences(&self, ranges: &[(usize, usize, usize)]) -> Vec<SplitSequence> {
        let cut = |&(first, end, boundary): &(usize, usize, usize)| {
            SplitSequence::new(self.tokens[first..end].to_vec(), boundary).unwrap()
        };
        ranges.iter().map(cut).collect()
    }

    fn exemplars(&self) -> ExemplarStates {
        let exemplars = self.sequences(&EXEMPLARS);
        let exemplars: Vec<&SplitSequence> = exemplars.iter().collect();
        ExemplarStates::of(&self.model, LAYER_IDX, &exemplars)
    }
}

#[test]
fn factors_after_the_steps_are_those_of_pytorch() {
    for device in [Device::flex(), Device::flex().autodiff()] {
        let case = Case::read(&device);
        let layers = case
            .module
            .layers_after_steps(&case.model, &case.exemplars(), NUM_STEPS)
            .for_all_groups();
        for (module, factors) in layers.module_factors() {
            for (name, tensor) in [("a", factors.a), ("b", factors.b)] {
                let name = format!("after.{}.{name}", module.path);
                case.steps.assert_close(&name, tensor);
            }
        }
    }
}

#[test]
fn gradients_of_the_start_and_of_the_sizes_are_those_of_pytorch() {
    let device = Device::flex().autodiff();
    let case = Case::read(&device);
    let directions = case
        .module
        .step_directions(&case.model, &case.exemplars(), NUM_STEPS);
    let layers = case.module.layers_along(&directions).for_all_groups();
    let mut hidden = Vec::new();
    let mut targets = Vec::new();
    for sequence in case.sequences(&OTHERS) {
        let states = case.model.forward(SequencePass {
            input: PassInput::TokenIds(crate::engine::ids(
                &sequence
                    .token_ids()
                    .iter()
                    .map(|&id| i64::from(id))
                    .collect::<Vec<_>>(),
            )),
            end: PassEnd::Head,
            factors: &layers.for_batch(),
        });
        let positions = sequence.predicting_positions();
        hidden.push(states.squeeze_dim::<2>(0).slice([positions]));
        targets.extend(sequence.scored().iter().map(|&id| i64::from(id)));
    }
    let input = HeadInput {
        hidden: Tensor::cat(hidden, 0),
        head: case.model.head(),
        factors: Some(case.module.shared_head()),
    };
    let targets = crate::engine::ids(&targets).squeeze_dim::<1>(0);
    let loss = linear_cross_entropy(input, targets).mean_loss;
    case.steps.assert_close("loss", loss.clone().inner());
    let grads = loss.backward();
    let layers = case.module.layers.as_ref().unwrap();
    for (factors, module) in layers.factors.iter().zip(layers.modules()) {
        for (name, param) in [("a", &factors.a), ("b", &factors.b)] {
            let grad = param.val().grad(&grads).unwrap();
            case.steps
                .assert_close(&format!("{}.{name}.grad", module.path), grad);
        }
    }
    let sizes = &case.module.steps.as_ref().unwrap().log_sizes;
    let grad = sizes.val().grad(&grads).unwrap() / SIZE_GRADIENT_SCALE;
    case.steps.assert_close("log_sizes.grad", grad);
}
