//! Checkpoints against the files that `gguf` and transformers wrote.

use std::path::PathBuf;

use chameleon_core::stored::TensorDtype;
use chameleon_models::{Architecture, Checkpoint, ModelError};
use safetensors::SafeTensors;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn f32_values(bytes: &[u8]) -> Vec<f32> {
    let (values, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty());
    values
        .iter()
        .map(|value| f32::from_le_bytes(*value))
        .collect()
}

#[test]
fn every_gguf_type_is_read_as_the_gguf_package_reads_it() {
    let checkpoint = Checkpoint::open(&fixture("gguf_blocks/blocks.gguf")).unwrap();
    let bytes = std::fs::read(fixture("gguf_blocks/expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(expected.len(), TensorDtype::ALL.len());
    for (name, expected) in expected.tensors() {
        let info = checkpoint.tensor(&name).unwrap();
        assert_eq!(info.dtype.to_string(), name);
        assert_eq!(info.shape, expected.shape());
        assert!(TensorDtype::NAMES.contains(&name));
        let found = checkpoint.read_f32(&name).unwrap();
        let expected = f32_values(expected.data());
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "{name}[{index}]");
        }
    }
}

#[test]
fn a_gguf_file_and_a_folder_of_one_model_are_the_same_checkpoint() {
    for (name, architecture) in [("llama", Architecture::Llama), ("gpt2", Architecture::Gpt2)] {
        let folder = Checkpoint::open(&fixture("gguf_models").join(name)).unwrap();
        let gguf = Checkpoint::open(&fixture("gguf_models").join(format!("{name}.gguf"))).unwrap();
        assert_eq!(folder.architecture(), architecture);
        assert_eq!(gguf.architecture(), architecture);
        let names = |checkpoint: &Checkpoint| {
            checkpoint
                .tensors()
                .map(|(name, info)| (name.to_owned(), info.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&folder), names(&gguf));
        for (name, _) in folder.tensors() {
            assert_eq!(
                folder.read_f32(name).unwrap(),
                gguf.read_f32(name).unwrap(),
                "{name}"
            );
        }
        for (key, expected) in folder.config().as_object().unwrap() {
            assert_eq!(&gguf.config()[key], expected, "{key}");
        }
    }
}

#[test]
fn shards_are_one_checkpoint_and_base_models_get_their_prefix() {
    let whole = Checkpoint::open(&fixture("gguf_models/gpt2")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: PathBuf, to: &str| std::fs::copy(from, folder.path().join(to)).unwrap();
    copy(fixture("gguf_models/gpt2/config.json"), "config.json");

    let bytes = std::fs::read(fixture("gguf_models/gpt2/model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut weight_map = serde_json::Map::new();
    let mut shards = [Vec::new(), Vec::new()];
    for (index, (name, view)) in tensors.tensors().into_iter().enumerate() {
        let bare = name.strip_prefix("transformer.").unwrap().to_owned();
        weight_map.insert(
            bare.clone(),
            format!("part-{}.safetensors", index % 2).into(),
        );
        shards[index % 2].push((bare, view));
    }
    for (index, shard) in shards.into_iter().enumerate() {
        let path = folder.path().join(format!("part-{index}.safetensors"));
        safetensors::serialize_to_file(shard, None, &path).unwrap();
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": weight_map }).to_string();
    chameleon_models::files::atomic_file::write(
        &folder.path().join("model.safetensors.index.json"),
        index.as_bytes(),
    )
    .unwrap();

    let sharded = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(sharded.tensors().count(), whole.tensors().count());
    for (name, info) in whole.tensors() {
        assert_eq!(sharded.tensor(name), Some(info));
        assert_eq!(
            sharded.read_f32(name).unwrap(),
            whole.read_f32(name).unwrap()
        );
    }
}

#[test]
fn half_precision_folders_are_read_as_f32() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(
        fixture("gguf_models/llama/config.json"),
        folder.path().join("config.json"),
    )
    .unwrap();
    let numbers = [0.5_f32, -2.0, 0.0, 3.0];
    let f16: Vec<u8> = numbers
        .iter()
        .flat_map(|&x| half::f16::from_f32(x).to_le_bytes())
        .collect();
    let bf16: Vec<u8> = numbers
        .iter()
        .flat_map(|&x| half::bf16::from_f32(x).to_le_bytes())
        .collect();
    let view = |dtype, data| safetensors::tensor::TensorView::new(dtype, vec![2, 2], data).unwrap();
    let tensors = [
        ("model.a", view(safetensors::Dtype::F16, &f16)),
        ("model.b", view(safetensors::Dtype::BF16, &bf16)),
    ];
    safetensors::serialize_to_file(tensors, None, &folder.path().join("model.safetensors"))
        .unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    assert_eq!(checkpoint.read_f32("model.a").unwrap(), numbers);
    assert_eq!(checkpoint.read_f32("model.b").unwrap(), numbers);
    assert!(matches!(
        checkpoint.read_f32("model.c"),
        Err(ModelError::TensorMissing { .. })
    ));
}
