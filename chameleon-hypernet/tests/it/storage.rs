//! Trained tensors in safetensors files: names, and what loading changes.

use burn::module::Module;
use burn::store::{ModuleSnapshot, SafetensorsStore};
use burn::tensor::Device;
use chameleon_core::RunSeed;
use chameleon_hypernet::{ConditionNorm, GeneratorKind};

use crate::support::{CONDITION_SIZE, full_head, normal, trained};

#[test]
fn names_are_readable_and_hide_the_variant() {
    let names = |kind: GeneratorKind| -> Vec<String> {
        let head = full_head(kind).init(RunSeed(0), &Device::flex());
        let tensors = head.collect(None, None, true);
        tensors.into_iter().map(|tensor| tensor.name).collect()
    };
    let network = |layer_idx: usize| {
        let layer = format!("generator.network.layers.{layer_idx}");
        [format!("{layer}.weight"), format!("{layer}.bias")]
    };
    let common = [
        "condition_norm.mean",
        "condition_norm.std",
        "static_factors.a",
        "static_factors.b",
    ];
    let mut expected: Vec<String> = common.map(str::to_owned).to_vec();
    expected.extend((0..3).flat_map(network));
    assert_eq!(names(GeneratorKind::Dense), expected);

    let at = common.len();
    expected.splice(at..at, ["generator.a0", "generator.b0"].map(str::to_owned));
    assert_eq!(names(GeneratorKind::Core), expected);
}

#[test]
fn a_stored_head_answers_the_same_after_loading() {
    for kind in [GeneratorKind::Dense, GeneratorKind::Core] {
        let device = Device::flex().autodiff();
        let norm = ConditionNorm::fit(normal([10, CONDITION_SIZE], &device));
        let head = full_head(kind)
            .init(RunSeed(0), &device)
            .with_condition_norm(norm);
        let head = trained(head, RunSeed(1));

        let mut file = SafetensorsStore::from_bytes(None).skip_enum_variants(true);
        head.save_into(&mut file).unwrap();
        let bytes = file.get_bytes().unwrap();

        let mut loaded = full_head(kind).init(RunSeed(2), &Device::flex());
        let mut file = SafetensorsStore::from_bytes(Some(bytes)).skip_enum_variants(true);
        let report = loaded.load_from(&mut file).unwrap();
        assert!(
            report.missing.is_empty() && report.unused.is_empty(),
            "{report:?}"
        );

        let conditions = normal([2, CONDITION_SIZE], &Device::flex());
        let expected = head.valid().factors(conditions.clone());
        for (found, expected) in loaded.factors(conditions).iter().zip(&expected) {
            assert_eq!(found.delta().into_data(), expected.delta().into_data());
        }
    }
}
