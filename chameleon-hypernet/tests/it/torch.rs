//! Forward and gradients against PyTorch; see `tests/fixtures/hyper_head/export.py`.

use std::path::PathBuf;

use burn::module::Module;
use burn::store::{ModuleSnapshot, SafetensorsStore};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use chameleon_core::{HeadInput, RunSeed, linear_cross_entropy};
use chameleon_hypernet::{GeneratorKind, HyperLoraHead};
use safetensors::{Dtype, SafeTensors};

use crate::support::{assert_close, full_head, gradients_by_name};

const GROUPS: usize = 3;

#[test]
fn dense_matches_pytorch() {
    matches_pytorch(GeneratorKind::Dense);
}

#[test]
fn core_matches_pytorch() {
    matches_pytorch(GeneratorKind::Core);
}

fn matches_pytorch(kind: GeneratorKind) {
    let expected = Expected::read(kind);
    let device = Device::flex().autodiff();
    let head = stored_head(kind, &device);

    let (logits, loss) = expected.plain_loss(&head, &device);
    assert_close(&logits.to_data(), &expected.get("logits"));
    assert_close(&loss.to_data(), &expected.get("loss"));
    expected.assert_gradients(&head, &loss);

    let plain = Device::flex();
    let (plain_logits, plain_loss) = expected.plain_loss(&head.valid(), &plain);
    assert_eq!(plain_logits.into_data(), logits.into_data());
    assert_eq!(plain_loss.into_data(), loss.into_data());
}

#[test]
fn the_fused_loss_gives_the_same_gradients() {
    for kind in [GeneratorKind::Dense, GeneratorKind::Core] {
        let expected = Expected::read(kind);
        let device = Device::flex().autodiff();
        let head = stored_head(kind, &device);
        let factors = head.factors(expected.tensor("conditions", &device));
        let hidden: Tensor<3> = expected.tensor("hidden", &device);
        let targets = expected.targets(&device);
        let losses = factors.into_iter().enumerate().map(|(group_idx, factors)| {
            let input = HeadInput {
                hidden: hidden.clone().slice([group_idx..=group_idx]).squeeze_dim(0),
                weight: expected.tensor::<2>("weight", &device).into(),
                factors: Some(factors),
            };
            let targets = targets
                .clone()
                .slice([group_idx..=group_idx])
                .squeeze_dim(0);
            linear_cross_entropy(input, targets).mean_loss
        });
        let mean = Tensor::cat(losses.collect(), 0).mean();
        expected.assert_gradients(&head, &mean);
    }
}

fn stored_head(kind: GeneratorKind, device: &Device) -> HyperLoraHead {
    let mut head = full_head(kind).init(RunSeed(0), device);
    let mut store = SafetensorsStore::from_file(fixture(kind, "weights")).skip_enum_variants(true);
    let report = head.load_from(&mut store).unwrap();
    assert!(
        report.missing.is_empty() && report.unused.is_empty(),
        "{report:?}"
    );
    assert!(
        report.errors.is_empty() && report.skipped.is_empty(),
        "{report:?}"
    );
    head
}

fn fixture(kind: GeneratorKind, what: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/hyper_head");
    folder.join(format!("{kind}_{what}.safetensors"))
}

struct Expected(Vec<u8>);

impl Expected {
    fn read(kind: GeneratorKind) -> Self {
        Self(std::fs::read(fixture(kind, "expected")).unwrap())
    }

    /// `[groups, rows, out]` logits and their mean loss, without any fusing.
    fn plain_loss(&self, head: &HyperLoraHead, device: &Device) -> (Tensor<3>, Tensor<1>) {
        let hidden: Tensor<3> = self.tensor("hidden", device);
        let weight: Tensor<2> = self.tensor("weight", device);
        let groups = head.factors(self.tensor("conditions", device));
        assert_eq!(groups.len(), GROUPS);
        let logits = groups.iter().enumerate().map(|(group_idx, factors)| {
            let rows = hidden.clone().slice([group_idx..=group_idx]).squeeze_dim(0);
            rows.clone().matmul(weight.clone()) + factors.apply(rows)
        });
        let logits: Tensor<3> = Tensor::stack(logits.collect(), 0);
        let targets = self.targets(device).unsqueeze_dim(2);
        let loss = log_softmax(logits.clone(), 2)
            .gather(2, targets)
            .mean()
            .neg();
        (logits, loss)
    }

    #[track_caller]
    fn assert_gradients(&self, head: &HyperLoraHead, loss: &Tensor<1>) {
        let found = gradients_by_name(head, &loss.backward());
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let mut expected: Vec<&str> = tensors.names();
        expected.retain(|name| name.starts_with("grad."));
        assert_eq!(expected.len(), found.len());
        for name in expected {
            let gradient = &found[name.strip_prefix("grad.").unwrap()];
            assert_close(gradient, &self.get(name));
        }
    }

    fn targets(&self, device: &Device) -> Tensor<2, Int> {
        Tensor::from_data(self.get("targets"), device)
    }

    fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        Tensor::from_data(self.get(name), device)
    }

    fn get(&self, name: &str) -> TensorData {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let view = tensors.tensor(name).unwrap();
        let words = view
            .data()
            .chunks_exact(4)
            .map(|word| word.try_into().unwrap());
        match view.dtype() {
            Dtype::F32 => {
                let values: Vec<f32> = words.map(f32::from_le_bytes).collect();
                TensorData::new(values, view.shape().to_vec())
            }
            Dtype::I32 => {
                let values: Vec<i32> = words.map(i32::from_le_bytes).collect();
                TensorData::new(values, view.shape().to_vec())
            }
            other => panic!("{name} has type {other:?}"),
        }
    }
}
