//! Weights that stay as the file stores them, against the same weights as f32; models in several files.

use std::path::Path;

use burn::module::Module as _;
use burn::tensor::{Device, Int, Tensor, TensorData};
use chameleon_core::FrozenWeight;
use chameleon_core::stored::TensorDtype;
use chameleon_models::families::{KvCache, Segment};
use chameleon_models::files::atomic_file;
use chameleon_models::{
    CausalLm, HubOptions, LoadedModel, ModelError, ModelSource, WeightStorage, load_as,
};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::gguf_builder::{GgufBuilder, Value};
use crate::load::complete;

fn load(storage: WeightStorage, path: &Path) -> Result<LoadedModel, ModelError> {
    let source = ModelSource::find(path.to_str().unwrap())?;
    load_as(storage, &source, &HubOptions::from_env(), &Device::flex())
}

/// A model of two layers, every matrix of which is stored in a format.
fn model_in(dtype: TensorDtype) -> GgufBuilder {
    const HIDDEN: u64 = 256;
    let number = (0..64)
        .find(|&number| TensorDtype::from_gguf(number) == Some(dtype))
        .unwrap();
    let mut file = GgufBuilder::valid();
    file.tensors.clear();
    file.data.clear();
    for (key, count) in [
        ("llama.embedding_length", 256),
        ("llama.feed_forward_length", 512),
        ("llama.block_count", 2),
        ("llama.attention.head_count", 4),
        ("llama.attention.head_count_kv", 2),
    ] {
        file.set(key, Value::U32(count));
    }
    file.add_stored("token_embd.weight", &[HIDDEN, 5], number, dtype);
    file.add_f32("output_norm.weight", &[HIDDEN]);
    for layer_idx in 0..2 {
        for (part, dims) in [
            ("attn_q", [HIDDEN, HIDDEN]),
            ("attn_k", [HIDDEN, HIDDEN / 2]),
            ("attn_v", [HIDDEN, HIDDEN / 2]),
            ("attn_output", [HIDDEN, HIDDEN]),
            ("ffn_gate", [HIDDEN, 512]),
            ("ffn_up", [HIDDEN, 512]),
            ("ffn_down", [512, HIDDEN]),
        ] {
            file.add_stored(
                &format!("blk.{layer_idx}.{part}.weight"),
                &dims,
                number,
                dtype,
            );
        }
        for part in ["attn_norm", "ffn_norm"] {
            file.add_f32(&format!("blk.{layer_idx}.{part}.weight"), &[HIDDEN]);
        }
    }
    file
}

fn written(folder: &Path, name: &str, file: &GgufBuilder) -> std::path::PathBuf {
    let path = folder.join(name);
    atomic_file::write(&path, &file.bytes()).unwrap();
    path
}

fn ids(ids: &[i64]) -> Tensor<2, Int> {
    let data = TensorData::new(ids.to_vec(), [1, ids.len()]);
    Tensor::from_data(data, &Device::flex())
}

fn assert_close<const D: usize>(found: Tensor<D>, expected: Tensor<D>, what: &str) {
    let largest: f32 = expected.clone().abs().max().into_scalar();
    let error: f32 = (found - expected).abs().max().into_scalar();
    assert!(error <= 1e-4 * largest, "{what}: {error} of {largest}");
}

/// Asserts that two models are the same but for rounding, and the first one is stored.
fn assert_twins(stored: &LoadedModel, dense: &LoadedModel, what: &str) {
    assert!(
        matches!(stored.model.head_weight(), FrozenWeight::Stored { .. }),
        "{what}"
    );
    assert!(matches!(
        dense.model.head_weight(),
        FrozenWeight::Dense { .. }
    ));
    assert_eq!(stored.identity, dense.identity, "{what}");
    assert_eq!(stored.num_params(), dense.num_params(), "{what}");
    assert!(stored.model.num_params() < dense.model.num_params() / 2);
    assert_ne!(stored.states_fingerprint(), dense.states_fingerprint());
    assert_eq!(stored.report, {
        let mut report = dense.report.clone();
        let order = |name: &String| stored.report.loaded.iter().position(|other| other == name);
        report.loaded.sort_by_key(order);
        report
    });
    let tokens = ids(&[1, 3, 2, 0]);
    let embedded = stored.model.embed(tokens.clone()).into_data();
    embedded.assert_eq(&dense.model.embed(tokens.clone()).into_data(), true);
    let states = stored.model.hidden_states(tokens.clone());
    assert_close(
        states.clone(),
        dense.model.hidden_states(tokens.clone()),
        what,
    );
    let rows = states.squeeze_dim::<2>(0);
    assert_close(
        stored.model.logits(rows.clone()),
        dense.model.logits(rows.clone()),
        what,
    );
    let weight = stored.model.head_weight().to_dense().into_data();
    weight.assert_eq(&dense.model.head_weight().to_dense().into_data(), true);
    // Token by token as together.
    let mut cache = KvCache::new(stored.model.sizes(), &Device::flex());
    let row = cache.add_row();
    let apart = [1, 3, 2, 0].map(|token_id| {
        let segment = Segment {
            row,
            token_ids: &[token_id],
            layers: None,
        };
        let segments = std::slice::from_ref(&segment);
        stored.model.hidden_states_with_cache(segments, &mut cache)
    });
    assert_close(Tensor::cat(apart.to_vec(), 0), rows, what);
}

#[test]
fn every_format_stays_as_it_is_stored_and_computes_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for dtype in TensorDtype::ALL {
        if dtype == TensorDtype::F32 {
            continue;
        }
        let name = dtype.to_string();
        let path = written(folder.path(), &format!("{name}.gguf"), &model_in(dtype));
        let stored = load(WeightStorage::Stored, &path).unwrap();
        let dense = load(WeightStorage::F32, &path).unwrap();
        assert_twins(&stored, &dense, &name);
    }
}

#[test]
fn folders_in_half_precision_stay_as_they_are_stored() {
    for family in ["llama", "gpt2"] {
        for dtype in [Dtype::F16, Dtype::BF16] {
            let folder = complete(family);
            let path = folder.path().join("model.safetensors");
            let bytes = std::fs::read(&path).unwrap();
            let whole = SafeTensors::deserialize(&bytes).unwrap();
            let halves: Vec<(String, Vec<usize>, Vec<u8>)> = whole
                .tensors()
                .into_iter()
                .map(|(name, view)| {
                    let (values, _) = view.data().as_chunks::<4>();
                    let halves = values.iter().flat_map(|value| {
                        let value = f32::from_le_bytes(*value);
                        if dtype == Dtype::F16 {
                            half::f16::from_f32(value).to_le_bytes()
                        } else {
                            half::bf16::from_f32(value).to_le_bytes()
                        }
                    });
                    (name, view.shape().to_vec(), halves.collect())
                })
                .collect();
            let views = halves.iter().map(|(name, shape, bytes)| {
                let view = TensorView::new(dtype, shape.clone(), bytes).unwrap();
                (name.as_str(), view)
            });
            safetensors::serialize_to_file(views, None, &path).unwrap();
            let stored = load(WeightStorage::Stored, folder.path()).unwrap();
            let dense = load(WeightStorage::F32, folder.path()).unwrap();
            assert_twins(&stored, &dense, &format!("{family} in {dtype:?}"));
        }
    }
}

#[test]
fn a_scale_that_is_not_finite_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for dtype in TensorDtype::ALL {
        let mut file = model_in(dtype);
        let name = "blk.1.ffn_up.weight";
        let start = usize::try_from(file.tensor(name).offset).unwrap();
        // Every 16 bits and the first eight are infinite, whatever is stored there.
        let infinity = if dtype == TensorDtype::Mxfp4 {
            [0xff, 0xff]
        } else {
            [0x80, 0x7f]
        };
        for (idx, byte) in file.data[start..start + 256].iter_mut().enumerate() {
            *byte = infinity[idx % 2];
        }
        let path = written(folder.path(), "broken.gguf", &file);
        for storage in [WeightStorage::Stored, WeightStorage::F32] {
            let error = load(storage, &path).unwrap_err();
            let ModelError::NonFinite { name, .. } = &error else {
                panic!("{dtype}: {error:?}");
            };
            assert_eq!(name, "model.layers.1.mlp.up_proj.weight");
        }
    }
}

/// The two parts of a model of which the second has the last layer.
fn parts() -> [GgufBuilder; 2] {
    let whole = || model_in(TensorDtype::Q4_0);
    let (mut first, mut second) = (whole(), whole());
    let num_tensors = u32::try_from(first.tensors.len()).unwrap();
    let is_second = |name: &str| name.starts_with("blk.1.");
    first.tensors.retain(|tensor| !is_second(&tensor.name));
    second.tensors.retain(|tensor| is_second(&tensor.name));
    second.values.clear();
    for (index, part) in [(0, &mut first), (1, &mut second)] {
        part.set("split.no", Value::U32(index));
        part.set("split.count", Value::U32(2));
        part.set("split.tensors.count", Value::U32(num_tensors));
    }
    [first, second]
}

#[test]
fn a_model_in_two_parts_is_one_model_whichever_part_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let whole = written(folder.path(), "whole.gguf", &model_in(TensorDtype::Q4_0));
    let whole = load(WeightStorage::Stored, &whole).unwrap();
    let [first, second] = parts();
    let first = written(folder.path(), "m-00001-of-00002.gguf", &first);
    let second = written(folder.path(), "m-00002-of-00002.gguf", &second);
    for part in [first, second] {
        let loaded = load(WeightStorage::Stored, &part).unwrap();
        assert_eq!(loaded.states_fingerprint(), whole.states_fingerprint());
    }
}

#[test]
fn parts_that_are_not_those_of_a_model_are_refused_in_words() {
    const FIRST: &str = "m-00001-of-00002.gguf";
    const SECOND: &str = "m-00002-of-00002.gguf";

    let error = |files: &[(&str, GgufBuilder)]| {
        let folder = tempfile::tempdir().unwrap();
        for (name, file) in files {
            written(folder.path(), name, file);
        }
        load(WeightStorage::Stored, &folder.path().join(files[0].0)).unwrap_err()
    };
    let [first, _] = parts();
    let alone = error(&[(FIRST, first)]);
    assert!(matches!(alone, ModelError::PartMissing { .. }), "{alone:?}");
    assert!(alone.to_string().contains(SECOND), "{alone}");

    let [first, _] = parts();
    let renamed = error(&[("m.gguf", first)]).to_string();
    assert!(renamed.contains("one of 2 parts"), "{renamed}");

    let [first, _] = parts();
    let [twice, _] = parts();
    let twice = error(&[(FIRST, first), (SECOND, twice)]).to_string();
    assert!(twice.contains("`split.no` is 0"), "{twice}");

    let [first, mut second] = parts();
    second.tensors.pop();
    let fewer = error(&[(FIRST, first), (SECOND, second)]).to_string();
    assert!(fewer.contains("have 19 tensors, expected 20"), "{fewer}");

    let [first, mut second] = parts();
    second.add_f32("output_norm.weight", &[256]);
    let double = error(&[(FIRST, first), (SECOND, second)]);
    assert!(
        matches!(double, ModelError::DuplicateName { .. }),
        "{double:?}"
    );
}
