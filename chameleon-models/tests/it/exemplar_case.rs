//! A tiny Llama with LoRA in its upper layer, its exemplars and its requests, as the `export.py` scripts have them.

use burn::tensor::{Device, Gradients, Tensor};
use chameleon_core::{HeadInput, RunSeed, SplitSequence, linear_cross_entropy};
use chameleon_hypernet::{GroupLayers, LoraConfig};
use chameleon_models::adapter::{
    AdapterModule, ExemplarStates, HeadAdapter, LayerAdaptation, LayerKind, LayerRange, head_shape,
};
use chameleon_models::families::{PassEnd, PassInput, SequencePass};
use chameleon_models::{CausalLm, LanguageModel};

use crate::fixture::Fixture;

const LAYER_IDX: usize = 1;
/// First token, end and boundary, as in the scripts.
const EXEMPLARS: [(usize, usize, usize); 3] = [(0, 7, 4), (3, 16, 9), (8, 14, 2)];
const OTHERS: [(usize, usize, usize); 2] = [(5, 13, 3), (1, 9, 6)];

pub(crate) struct ExemplarCase {
    pub(crate) expected: Fixture,
    pub(crate) model: LanguageModel,
    pub(crate) module: AdapterModule,
    tokens: Vec<u32>,
}

impl ExemplarCase {
    pub(crate) fn read(expected: Fixture, targets: &[&str], device: &Device) -> Self {
        let base = Fixture::read("llama", "tied");
        let model = base.model(&Device::flex());
        let layers = LayerAdaptation {
            targets: targets.iter().map(|&target| target.to_owned()).collect(),
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
            factors.a = expected.parameter(&format!("{path}.a"), device);
            factors.b = expected.parameter(&format!("{path}.b"), device);
        }
        let mut head = LoraConfig::new(head_shape(&model, 3))
            .with_scale(0.7)
            .init(RunSeed(1), device);
        head.a = expected.parameter("head.a", device);
        head.b = expected.parameter("head.b", device);
        let mut module = AdapterModule::head_only(HeadAdapter::Lora(head));
        module.layers = Some(layers);
        let tokens = base.token_ids(&Device::flex()).into_data();
        Self {
            tokens: tokens
                .iter::<i64>()
                .map(|id| u32::try_from(id).unwrap())
                .collect(),
            expected,
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

    pub(crate) fn exemplars(&self) -> ExemplarStates {
        let exemplars = self.sequences(&EXEMPLARS);
        let exemplars: Vec<&SplitSequence> = exemplars.iter().collect();
        ExemplarStates::of(&self.model, LAYER_IDX, &exemplars)
    }

    /// Checks the loss of the requests by these layers, and the gradients of the factors; returns all gradients.
    pub(crate) fn check_loss_and_gradients(&self, layers: &GroupLayers) -> Gradients {
        let mut hidden = Vec::new();
        let mut targets = Vec::new();
        for sequence in self.sequences(&OTHERS) {
            let token_ids: Vec<i64> = sequence.token_ids().iter().map(|&id| id.into()).collect();
            let states = self.model.forward(SequencePass {
                input: PassInput::TokenIds(crate::engine::ids(&token_ids)),
                end: PassEnd::Head,
                factors: &layers.for_batch(),
            });
            let positions = sequence.predicting_positions();
            hidden.push(states.squeeze_dim::<2>(0).slice([positions]));
            targets.extend(sequence.scored().iter().map(|&id| i64::from(id)));
        }
        let input = HeadInput {
            hidden: Tensor::cat(hidden, 0),
            head: self.model.head(),
            factors: Some(self.module.shared_head()),
        };
        let targets = crate::engine::ids(&targets).squeeze_dim::<1>(0);
        let loss = linear_cross_entropy(input, targets).mean_loss;
        self.expected.assert_close("loss", loss.clone().inner());
        let grads = loss.backward();
        let layers = self.module.layers.as_ref().unwrap();
        for (factors, module) in layers.factors.iter().zip(layers.modules()) {
            for (name, param) in [("a", &factors.a), ("b", &factors.b)] {
                let grad = param.val().grad(&grads).unwrap();
                let name = format!("{}.{name}.grad", module.path);
                self.expected.assert_close(&name, grad);
            }
        }
        grads
    }
}
