//! Reads the fixtures that the `export.py` scripts wrote, and compares numbers.

use std::collections::HashMap;
use std::path::PathBuf;

use burn::module::Param;
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use chameleon_core::RunSeed;
use chameleon_hypernet::{AdaptedLayers, LayerFactors};
use chameleon_models::adapter::{LayerAdaptation, LayerKind, LayerRange};
use chameleon_models::families::{PassEnd, PassInput, SequencePass};
use chameleon_models::files::atomic_file;
use chameleon_models::{CausalLm, Checkpoint, LanguageModel};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;

/// The largest difference allowed, relative to the largest expected magnitude.
const TOLERANCE: f32 = 1e-4;

/// One tensor of a fixture.
#[derive(Clone)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// One case of a family.
pub(crate) struct Fixture {
    pub(crate) weights: HashMap<String, Array>,
    pub(crate) expected: HashMap<String, Array>,
    pub(crate) json: Value,
}

impl Fixture {
    pub(crate) fn folder(family: &str, case: &str) -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "tests/fixtures", family, case]
            .iter()
            .collect()
    }

    pub(crate) fn read(family: &str, case: &str) -> Self {
        let folder = Self::folder(family, case);
        let json = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        Self {
            weights: read_arrays(&folder.join("weights.safetensors")),
            expected: read_arrays(&folder.join("expected.safetensors")),
            json: serde_json::from_str(&json).unwrap(),
        }
    }

    /// What PyTorch computes with cores in the upper layer of a case.
    pub(crate) fn of_cores(family: &str, case: &str) -> Self {
        Self::of_adapted("layer_cores", family, case)
    }

    /// What PyTorch computes with learned steps in the upper layer of a case.
    pub(crate) fn of_steps(family: &str, case: &str) -> Self {
        Self::of_adapted("learned_steps", family, case)
    }

    /// What PyTorch computes when requests attend to exemplars in the upper layer of a case.
    pub(crate) fn of_attention(family: &str, case: &str) -> Self {
        Self::of_adapted("exemplar_attention", family, case)
    }

    fn of_adapted(what: &str, family: &str, case: &str) -> Self {
        let name = format!("{family}-{case}.safetensors");
        let folder = Self::folder(what, &name);
        Self {
            weights: HashMap::new(),
            expected: read_arrays(&folder),
            json: Value::Null,
        }
    }

    /// The model, every tensor of the fixture read.
    pub(crate) fn model(&self, device: &Device) -> LanguageModel {
        let checkpoint = self.checkpoint();
        let mut model = untrained(&checkpoint, device);
        let report = model.import(&checkpoint);
        assert!(report.is_complete(), "{report:?}");
        assert!(report.unused.is_empty(), "{report:?}");
        assert_eq!(report.loaded.len(), self.weights.len());
        model
    }

    /// The weights as a model folder holds them.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        checkpoint(&self.json["config"], &self.weights)
    }

    pub(crate) fn rename(&mut self, new_name: impl Fn(&str) -> String) {
        let weights = std::mem::take(&mut self.weights).into_iter();
        self.weights = weights
            .map(|(name, array)| (new_name(&name), array))
            .collect();
    }

    pub(crate) fn token_ids(&self, device: &burn::tensor::Device) -> Tensor<2, Int> {
        let array = &self.expected["token_ids"];
        let shape: [usize; 2] = array.shape.as_slice().try_into().unwrap();
        Tensor::<2>::from_data(TensorData::new(array.values.clone(), shape), device).int()
    }

    /// Lists of token ids under a key of `expected.json`.
    pub(crate) fn id_lists(&self, key: &str) -> Vec<Vec<u32>> {
        serde_json::from_value(self.json[key].clone()).unwrap()
    }

    pub(crate) fn assert_close<const D: usize>(&self, name: &str, found: Tensor<D>) {
        let expected = &self.expected[name];
        assert_eq!(found.dims().as_slice(), expected.shape, "{name}");
        assert_all_close(
            name,
            &found.into_data().try_to_vec().unwrap(),
            &expected.values,
        );
    }

    /// The rank and scale of the fixture's adapters.
    pub(crate) fn lora(&self) -> (usize, f64) {
        let rank = self.json["rank"].as_u64().unwrap();
        (
            usize::try_from(rank).unwrap(),
            self.json["scale"].as_f64().unwrap(),
        )
    }

    /// Plain LoRA on the named modules, holding the fixture's factors. `stack` is what the file calls the layers.
    pub(crate) fn adapted_layers(
        &self,
        model: &impl CausalLm,
        targets: &[&str],
        stack: &str,
        device: &Device,
    ) -> AdaptedLayers {
        let (rank, scale) = self.lora();
        let layers = LayerAdaptation {
            targets: targets.iter().map(|&target| target.to_owned()).collect(),
            layers: LayerRange::All,
            kind: LayerKind::Lora,
            rank,
            scale,
        };
        let mut layers = layers.config(model, None).unwrap().init(RunSeed(1), device);
        let names = factor_names(&layers, stack);
        for (factors, name) in layers.factors.iter_mut().zip(names) {
            factors.a = self.parameter(&format!("{name}.a"), device);
            factors.b = self.parameter(&format!("{name}.b"), device);
        }
        layers
    }

    /// Compares the gradient of every factor.
    pub(crate) fn check_factor_gradients(
        &self,
        layers: &AdaptedLayers,
        stack: &str,
        grads: &Gradients,
    ) {
        for (factors, name) in layers.factors.iter().zip(factor_names(layers, stack)) {
            for (factor, param) in [("a", &factors.a), ("b", &factors.b)] {
                let grad = param.val().grad(grads).expect("a gradient");
                self.assert_close(&format!("{name}.{factor}.grad"), grad);
            }
        }
    }

    /// A trainable tensor with the fixture's numbers.
    pub(crate) fn parameter<const D: usize>(
        &self,
        name: &str,
        device: &Device,
    ) -> Param<Tensor<D>> {
        let tensor = self.tensor(name, device);
        Param::from_tensor(if device.is_autodiff() {
            tensor.require_grad()
        } else {
            tensor
        })
    }

    pub(crate) fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        let array = &self.expected[name];
        let data = TensorData::new(array.values.clone(), array.shape.clone());
        Tensor::from_data(data, device)
    }
}

/// A model of a checkpoint's configuration, with random weights.
pub(crate) fn untrained(checkpoint: &Checkpoint, device: &Device) -> LanguageModel {
    let config = checkpoint.architecture().config(checkpoint.config());
    config.unwrap().init(device).unwrap()
}

/// Logits of the adapted model.
pub(crate) fn adapted_logits(
    model: &impl CausalLm,
    token_ids: Tensor<2, Int>,
    factors: &LayerFactors,
) -> Tensor<3> {
    let hidden = model.forward(SequencePass {
        input: PassInput::TokenIds(token_ids),
        end: PassEnd::Head,
        factors,
    });
    let head = model.head();
    head.cap(hidden.matmul(head.weight.to_dense().unsqueeze()))
}

/// `lora.STACK.N.PATH.weight` of every adapted module.
fn factor_names(layers: &AdaptedLayers, stack: &str) -> Vec<String> {
    layers
        .modules()
        .iter()
        .map(|module| format!("lora.{stack}.{}.{}.weight", module.layer_idx, module.path))
        .collect()
}

/// A model folder with these weights, opened.
pub(crate) fn checkpoint(config: &Value, weights: &HashMap<String, Array>) -> Checkpoint {
    let folder = tempfile::tempdir().unwrap();
    let bytes: HashMap<&String, Vec<u8>> = weights
        .iter()
        .map(|(name, array)| {
            (
                name,
                array.values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            )
        })
        .collect();
    let views = weights.iter().map(|(name, array)| {
        let view = TensorView::new(Dtype::F32, array.shape.clone(), &bytes[name]).unwrap();
        (name, view)
    });
    safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    let config = config.to_string();
    atomic_file::write(&folder.path().join("config.json"), config.as_bytes()).unwrap();
    Checkpoint::open(folder.path()).unwrap()
}

pub(crate) fn assert_all_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0, |max, value| value.abs().max(max));
    for (idx, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= TOLERANCE * scale,
            "{what}[{idx}]: found {found}, expected {expected}, largest {scale}"
        );
    }
}

/// Mean next-token loss of `[batch, seq, vocab]` logits, all positions but the last scored.
pub(crate) fn next_token_loss(logits: Tensor<3>, token_ids: Tensor<2, Int>) -> Tensor<1> {
    let [batch, seq_len, vocab_size] = logits.dims();
    let rows = logits
        .narrow(1, 0, seq_len - 1)
        .reshape([batch * (seq_len - 1), vocab_size]);
    let targets = token_ids
        .narrow(1, 1, seq_len - 1)
        .reshape([batch * (seq_len - 1), 1]);
    -burn::tensor::activation::log_softmax(rows, 1)
        .gather(1, targets)
        .mean()
}

pub(crate) fn read_arrays(path: &std::path::Path) -> HashMap<String, Array> {
    let bytes = std::fs::read(path).unwrap();
    SafeTensors::deserialize(&bytes)
        .unwrap()
        .iter()
        .map(|(name, view)| {
            let values = view
                .data()
                .chunks_exact(4)
                .map(|value| f32::from_le_bytes(value.try_into().unwrap()))
                .collect();
            let shape = view.shape().to_vec();
            (name.to_owned(), Array { shape, values })
        })
        .collect()
}
