//! Generated cores inside the layers: PyTorch's numbers, merged weights, and passes that begin above frozen layers.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use chameleon_core::RunSeed;
use chameleon_hypernet::{AdaptedLayers, GroupLayers, LayerFactors};
use chameleon_models::adapter::{LayerAdaptation, LayerKind, LayerRange};
use chameleon_models::families::{PassEnd, PassInput, SequencePass};
use chameleon_models::{CausalLm, LanguageModel};

use crate::fixture::{Fixture, adapted_logits, next_token_loss};

const NUM_FEATURES: usize = 5;
const CASES: [(&str, &str, &[&str]); 3] = [
    ("llama", "tied", &["q_proj", "down_proj"]),
    ("llama", "llama3_rope", &["v_proj", "o_proj", "gate_proj"]),
    ("gpt2", "untied", &["c_attn", "mlp.c_proj"]),
];

/// The tokens of a family's fixture, the numbers of this one, and layers that hold them.
struct Case {
    name: String,
    base: Fixture,
    cores: Fixture,
    model: LanguageModel,
    layers: AdaptedLayers,
}

impl Case {
    fn read(family: &str, case: &str, targets: &[&str], device: &Device) -> Self {
        let base = Fixture::read(family, case);
        let cores = Fixture::of_cores(family, case);
        let model = base.model(&Device::flex());
        let layers = LayerAdaptation {
            targets: targets.iter().map(|&target| target.to_owned()).collect(),
            layers: LayerRange::Between { first: 1, end: 2 },
            kind: LayerKind::Core,
            rank: 3,
            scale: 0.7,
        };
        let config = layers.config(&model, Some(NUM_FEATURES)).unwrap();
        let mut layers = config.init(RunSeed(1), device);
        let paths: Vec<String> = layers.modules().iter().map(|m| m.path.clone()).collect();
        for (factors, path) in layers.factors.iter_mut().zip(paths) {
            factors.a = cores.parameter(&format!("{path}.a"), device);
            factors.b = cores.parameter(&format!("{path}.b"), device);
        }
        let linear = layers.cores.as_mut().unwrap();
        linear.weight = cores.parameter("cores.weight", device);
        linear.bias = Some(cores.parameter("cores.bias", device));
        Self {
            name: format!("{family} {case}"),
            base,
            cores,
            model,
            layers,
        }
    }

    fn groups(&self, device: &Device) -> Vec<GroupLayers> {
        self.layers
            .shared()
            .groups(self.cores.tensor("features", device))
    }
}

#[test]
fn logits_and_gradients_are_those_of_pytorch() {
    let device = Device::flex().autodiff();
    for (family, case, targets) in CASES {
        let case = Case::read(family, case, targets, &device);
        let groups = case.groups(&device);
        let rows: Vec<_> = groups.iter().map(Some).collect();
        let token_ids = case.base.token_ids(&Device::flex());
        let factors = LayerFactors::for_rows(&rows);
        let logits = adapted_logits(&case.model, token_ids.clone(), &factors);
        case.cores.assert_close("logits", logits.clone());
        let loss = next_token_loss(logits, token_ids);
        case.cores.assert_close("loss", loss.clone());
        let grads = loss.backward();
        let check = |name: &str, grad: Option<Tensor<2>>| {
            let grad = grad.unwrap_or_else(|| panic!("{}: no gradient for {name}", case.name));
            case.cores.assert_close(&format!("{name}.grad"), grad);
        };
        for (factors, module) in case.layers.factors.iter().zip(case.layers.modules()) {
            check(&format!("{}.a", module.path), factors.a.val().grad(&grads));
            check(&format!("{}.b", module.path), factors.b.val().grad(&grads));
        }
        let linear = case.layers.cores.as_ref().unwrap();
        check("cores.weight", linear.weight.val().grad(&grads));
        let bias = linear.bias.as_ref().unwrap().val().grad(&grads);
        case.cores.assert_close("cores.bias.grad", bias.unwrap());
    }
}

#[test]
fn one_group_at_a_time_and_merged_weights_give_the_same() {
    let device = Device::flex();
    let (family, name, targets) = CASES[0];
    let case = Case::read(family, name, targets, &device);
    let token_ids = case.base.token_ids(&device);
    for (row, group) in case.groups(&device).iter().enumerate() {
        let token_ids = token_ids.clone().slice([row..=row]);
        let expected = case.cores.tensor::<3>("logits", &device).slice([row..=row]);
        let expected: Vec<f32> = expected.into_data().try_to_vec().unwrap();
        let compare = |what: &str, logits: Tensor<3>| {
            let found: Vec<f32> = logits.into_data().try_to_vec().unwrap();
            crate::fixture::assert_all_close(what, &found, &expected);
        };
        let logits = adapted_logits(&case.model, token_ids.clone(), &group.for_batch());
        compare("alone", logits);
        let mut merged = case.model.clone();
        for (module, factors) in group.module_factors() {
            let linear = merged.linear_mut(module.layer_idx, &module.path).unwrap();
            linear.weight = linear.weight.clone().map(|weight| weight + factors.delta());
        }
        let merged = merged.no_grad();
        compare(
            "merged",
            adapted_logits(&merged, token_ids, &LayerFactors::none()),
        );
    }
}

#[test]
fn a_pass_that_begins_above_the_frozen_layers_gives_the_same() {
    let device = Device::flex().autodiff();
    for (family, name, targets) in CASES {
        let case = Case::read(family, name, targets, &device);
        let factors = case.groups(&device)[1].for_batch();
        let pass = |input, end, factors| {
            case.model.forward(SequencePass {
                input,
                end,
                factors,
            })
        };
        let token_ids = PassInput::TokenIds(case.base.token_ids(&Device::flex()));
        let states = pass(token_ids.clone(), PassEnd::Entering(1), &factors);
        assert!(
            !states.is_autodiff(),
            "nothing is recorded below the adapted layer"
        );
        let above = PassInput::Entering {
            layer_idx: 1,
            states,
        };
        let whole = pass(token_ids, PassEnd::Head, &factors);
        assert!(whole.is_tracked());
        let bits = |states: Tensor<3>| states.into_data();
        assert_eq!(bits(pass(above, PassEnd::Head, &factors)), bits(whole));
    }
}
