//! Reads the fixtures that the `export.py` scripts wrote, and compares numbers.

use std::collections::HashMap;
use std::path::PathBuf;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bytes, DType, Gradients, Int, Tensor, TensorData};
use safetensors::SafeTensors;
use serde_json::Value;

/// The largest difference allowed, relative to the largest expected magnitude.
const TOLERANCE: f32 = 1e-4;

/// One tensor of a fixture.
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
    pub(crate) fn read(family: &str, case: &str) -> Self {
        let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/fixtures", family, case]
            .iter()
            .collect();
        let json = std::fs::read_to_string(folder.join("expected.json")).unwrap();
        Self {
            weights: read_arrays(&folder.join("weights.safetensors")),
            expected: read_arrays(&folder.join("expected.safetensors")),
            json: serde_json::from_str(&json).unwrap(),
        }
    }

    /// The weights as a checkpoint would hand them over.
    pub(crate) fn tensors(&self) -> Vec<burn_pack::Tensor> {
        self.weights
            .iter()
            .map(|(name, array)| stored(name, array))
            .collect()
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

    /// The module with the fixture's factors in the adapters that `apply_lora` attached.
    pub(crate) fn with_factors<M: Module>(&self, module: M) -> M {
        module.map(&mut Factors {
            fixture: self,
            path: Vec::new(),
        })
    }

    /// Compares the gradient of every factor; answers how many there were.
    pub(crate) fn check_factor_gradients<M: Module>(&self, module: &M, grads: &Gradients) -> usize {
        let mut visitor = FactorGradients {
            fixture: self,
            grads,
            path: Vec::new(),
            num_checked: 0,
        };
        module.visit(&mut visitor);
        visitor.num_checked
    }
}

pub(crate) fn stored(name: &str, array: &Array) -> burn_pack::Tensor {
    burn_pack::Tensor::new(
        name.to_owned(),
        DType::F32,
        array.shape.clone(),
        None,
        Bytes::from_elems(array.values.clone()),
    )
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

struct Factors<'a> {
    fixture: &'a Fixture,
    path: Vec<String>,
}

impl ModuleMapper for Factors<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(name) = factor_name(&self.path) else {
            return param;
        };
        let array = &self.fixture.expected[&name];
        param.map(|tensor| {
            let data = TensorData::new(array.values.clone(), array.shape.clone());
            Tensor::from_data(data, &tensor.device()).require_grad()
        })
    }
}

struct FactorGradients<'a> {
    fixture: &'a Fixture,
    grads: &'a Gradients,
    path: Vec<String>,
    num_checked: usize,
}

impl ModuleVisitor for FactorGradients<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let grad = param.val().grad(self.grads);
        match factor_name(&self.path) {
            Some(name) => {
                self.fixture
                    .assert_close(&format!("{name}.grad"), grad.expect("a gradient"));
                self.num_checked += 1;
            }
            // The stored weight below an adapter is frozen, its composed value is not.
            None => assert!(!param.base().is_require_grad(), "{:?}", self.path),
        }
    }
}

/// `lora.PATH.a` for the path of an adapter's factor.
fn factor_name(path: &[String]) -> Option<String> {
    let (factor, rest) = path.split_last()?;
    let (marker, weight) = rest.split_last()?;
    (marker == "lora").then(|| format!("lora.{}.{factor}", weight.join(".")))
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
