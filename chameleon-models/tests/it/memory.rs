//! The memory of an adapter: written and read back, hostile files, and its part of what is decoded.

use std::path::Path;

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use chameleon_cluster::principal_components;
use chameleon_core::RunSeed;
use chameleon_hypernet::memory::{GroupMemory, KeyProjection, MemoryGate, StateDirections};
use chameleon_hypernet::{Condition, LayerFactors};
use chameleon_models::adapter::{Adapter, AdapterMemory, GroupMemories, MemoryConfig};
use chameleon_models::engine::{
    Engine, Event, Logprobs, RandomSampling, Request, Sampling, Ticket,
};
use chameleon_models::families::{PassEnd, PassInput, SequencePass};
use chameleon_models::files::atomic_file;
use chameleon_models::{CausalLm, LoadedModel};
use safetensors::tensor::{Dtype, TensorView};

use crate::engine::{adapter, heard, ids, options};
use crate::load::tiny_with_letters;

const LAYER: usize = 1;
const KEY_SIZE: usize = 4;

/// States of the frozen model as they enter the memory's layer, `[tokens, hidden]`.
fn entering(loaded: &LoadedModel, token_ids: &[i64]) -> Tensor<2> {
    let states = loaded.model.forward(SequencePass {
        input: PassInput::TokenIds(ids(token_ids)),
        end: PassEnd::Entering(LAYER),
        factors: &LayerFactors::none(),
    });
    states.squeeze_dim(0)
}

fn text(group_idx: i64) -> Vec<i64> {
    (0..12 + group_idx)
        .map(|position| (position * position * 3 + group_idx * 5 + 1) % 24)
        .collect()
}

fn memory(loaded: &LoadedModel) -> AdapterMemory {
    let texts: Vec<Vec<i64>> = (0..3).map(text).collect();
    let all = texts.iter().map(|text| entering(loaded, text)).collect();
    let components = principal_components(&Tensor::cat(all, 0), KEY_SIZE).unwrap();
    let projection = KeyProjection::along(&StateDirections {
        mean: components.mean,
        axes: &components.axes,
        variances: &components.variances,
        total_variance: components.total_variance,
    })
    .unwrap();
    let groups = texts.iter().map(|text| {
        let num_entries = text.len() - 1;
        let states = entering(loaded, text).slice([0..num_entries]);
        let next_tokens = Tensor::from_ints(&text[1..], &Device::flex());
        GroupMemory::new(projection.keys(states), next_tokens)
    });
    let memories = GroupMemories {
        groups: groups.collect(),
        projection: projection.clone(),
    };
    let config = MemoryConfig {
        layer_idx: LAYER,
        key_size: KEY_SIZE,
        max_entries: 20,
    };
    let gate = MemoryGate {
        temperature: 5.0,
        weights: vec![-0.5, 0.3, 0.1, 0.7, -0.2],
        group_bias: vec![0.4, -0.3, 1.1],
    };
    AdapterMemory::new(config, gate, memories)
}

fn remembering(loaded: &LoadedModel, kind: &str) -> Adapter {
    adapter(loaded, kind, Condition::Centroid).with_memory(memory(loaded))
}

fn load(
    folder: &Path,
    loaded: &LoadedModel,
) -> Result<Adapter, chameleon_models::adapter::AdapterError> {
    Adapter::load(folder, &loaded.model, &loaded.identity, &Device::flex())
}

#[test]
fn a_memory_is_read_back_as_it_was_written() {
    let loaded = tiny_with_letters();
    let folder = tempfile::tempdir().unwrap();
    let written = remembering(&loaded, "core");
    written.save(folder.path()).unwrap();
    let read = load(folder.path(), &loaded).unwrap();
    assert_eq!(read.config, written.config);
    assert_eq!(
        read.memory.as_ref().unwrap().description,
        written.memory.as_ref().unwrap().description
    );
    // Of all numbers, so of keys, tokens and projection too.
    assert_eq!(read.fingerprint(), written.fingerprint());

    let forgetful = read.without_memory();
    assert_ne!(forgetful.fingerprint(), written.fingerprint());
    forgetful.save(folder.path()).unwrap();
    let config = std::fs::read_to_string(folder.path().join("adapter_config.json")).unwrap();
    assert!(!config.contains("memory"), "{config}");
    assert!(load(folder.path(), &loaded).unwrap().memory.is_none());
}

#[test]
fn an_adapter_of_the_second_format_is_read() {
    let loaded = tiny_with_letters();
    let folder = tempfile::tempdir().unwrap();
    let written = adapter(&loaded, "core-layers", Condition::Centroid);
    written.save(folder.path()).unwrap();
    rewrite(&folder.path().join("adapter_config.json"), |text| {
        assert!(text.contains("\"format_version\": 5"), "{text}");
        text.replace("\"format_version\": 5", "\"format_version\": 2")
    });
    let read = load(folder.path(), &loaded).unwrap();
    assert_eq!(read.fingerprint(), written.fingerprint());
}

fn rewrite(path: &Path, change: impl FnOnce(String) -> String) {
    let text = std::fs::read_to_string(path).unwrap();
    let changed = change(text.clone());
    assert_ne!(changed, text, "nothing was changed");
    atomic_file::write(path, changed.as_bytes()).unwrap();
}

/// A folder with one thing wrong, and words of the error that must follow.
fn refused(words: &str, spoil: impl FnOnce(&Path)) {
    let loaded = tiny_with_letters();
    let folder = tempfile::tempdir().unwrap();
    remembering(&loaded, "core").save(folder.path()).unwrap();
    spoil(folder.path());
    let error = load(folder.path(), &loaded).expect_err("a spoilt folder is refused");
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    let message = format!("{error}: {}", cause.unwrap_or_default());
    assert!(message.contains(words), "{message}");
}

struct StoredTensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Changes the tensors of `memory.safetensors`.
fn with_tensors(change: impl FnOnce(&mut Vec<StoredTensor>)) -> impl FnOnce(&Path) {
    move |folder| {
        let path = folder.join("memory.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors: Vec<StoredTensor> = file
            .iter()
            .map(|(name, view)| StoredTensor {
                name: name.to_owned(),
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                bytes: view.data().to_vec(),
            })
            .collect();
        change(&mut tensors);
        let views = tensors.iter().map(|tensor| {
            let shape = tensor.shape.clone();
            let view = TensorView::new(tensor.dtype, shape, &tensor.bytes).unwrap();
            (&tensor.name, view)
        });
        let bytes = safetensors::serialize(views, None).unwrap();
        atomic_file::write(&path, &bytes).unwrap();
    }
}

/// Changes the bytes of one tensor.
fn with_bytes(name: &'static str, at: usize, bytes: &'static [u8]) -> impl FnOnce(&Path) {
    with_tensors(move |tensors| {
        let tensor = tensors.iter_mut().find(|tensor| tensor.name == name);
        tensor.unwrap().bytes[at..at + bytes.len()].copy_from_slice(bytes);
    })
}

#[test]
fn spoilt_memories_are_refused_by_name() {
    let file = "memory.safetensors";
    refused("cannot read", |folder| {
        std::fs::remove_file(folder.join(file)).unwrap();
    });
    refused("is not a safetensors file", |folder| {
        let bytes = std::fs::read(folder.join(file)).unwrap();
        atomic_file::write(&folder.join(file), &bytes[..bytes.len() - 9]).unwrap();
    });
    refused(
        "missing `offsets`",
        with_tensors(|tensors| tensors.retain(|tensor| tensor.name != "offsets")),
    );
    refused(
        "unexpected `more`",
        with_tensors(|tensors| {
            tensors.push(StoredTensor {
                name: "more".to_owned(),
                dtype: Dtype::F32,
                shape: vec![1],
                bytes: vec![0; 4],
            });
        }),
    );
    refused(
        "`keys` is F16 [37, 4], expected F16 [36, 4]",
        with_tensors(|tensors| {
            let keys = tensors.iter_mut().find(|tensor| tensor.name == "keys");
            let keys = keys.unwrap();
            keys.shape[0] += 1;
            keys.bytes.extend([0; 2 * KEY_SIZE]);
        }),
    );
    let last_end = 3 * 8;
    refused("says 36", with_bytes("offsets", last_end, &[37]));
    refused("does not rise", with_bytes("offsets", last_end, &[200]));
    refused("does not rise", with_bytes("offsets", 8, &[0]));
    refused("does not rise", with_bytes("offsets", 0, &[1]));
    refused("does not rise", with_bytes("offsets", 8, &[255; 8]));
    refused("holds 24, and", with_bytes("next_tokens", 8, &[24]));
    refused("`keys` in", with_bytes("keys", 2, &[0x00, 0x7e]));
    refused("longer than 1", with_bytes("keys", 2, &[0x00, 0x44]));
    refused(
        "`projection.map` in",
        with_bytes("projection.map", 4, &[0, 0, 0x80, 0x7f]),
    );
    refused(
        "`projection.mean` holds a number beyond",
        with_bytes("projection.mean", 4, &[0, 0, 0, 0x7f]),
    );
    let with_config = |from: &'static str, to: &'static str| {
        move |folder: &Path| {
            rewrite(&folder.join("adapter_config.json"), |text| {
                text.replace(from, to)
            });
        }
    };
    refused(
        "layer 2 of a model with 2",
        with_config("\"layer_idx\": 1", "\"layer_idx\": 2"),
    );
    refused(
        "keys of width 0",
        with_config("\"key_size\": 4", "\"key_size\": 0"),
    );
    refused(
        "`projection.map` is F32",
        with_config("\"key_size\": 4", "\"key_size\": 5"),
    );
    refused(
        "a memory of at most 0 tokens",
        with_config("\"max_entries\": 20", "\"max_entries\": 0"),
    );
    refused(
        "does not rise",
        with_config("\"max_entries\": 20", "\"max_entries\": 11"),
    );
    refused("a gate that", with_config("-0.5", "-5e20"));
    refused("a gate that", with_config("-0.5,", ""));
    refused(
        "a gate that",
        with_config("\"temperature\": 5.0", "\"temperature\": 0.0"),
    );
    refused(
        "layer 1, which the adapter changes from layer 0",
        with_config(
            "\"layers\": null",
            r#""layers": {"targets": ["q_proj"], "layers": "0..2", "rank": 1, "scale": 1}"#,
        ),
    );
}

fn engine() -> Engine {
    let engine = Engine::start(tiny_with_letters(), options()).unwrap();
    for kind in ["core", "experts", "lora"] {
        let adapter = remembering(engine.model(), kind);
        engine.load_adapter(kind, adapter).unwrap();
    }
    let plain = adapter(engine.model(), "core", Condition::Centroid);
    engine.load_adapter("plain", plain).unwrap();
    engine
}

fn requests() -> Vec<Request> {
    (0..24_u32)
        .map(|idx| {
            let prompt = (0..=idx * 7 % 40).map(|position| (idx * 5 + position * 3) % 24);
            let mut request = Request::new(prompt.collect(), 1 + idx as usize * 3 % 11);
            let adapters = ["core", "plain", "experts", "lora"];
            request.adapter = adapters.get(idx as usize % 5).map(ToString::to_string);
            request.scale = [1.0, 0.5][idx as usize % 2];
            request.sampling = Sampling::Random(RandomSampling::new(1.0).unwrap());
            request.seed = RunSeed(u64::from(idx));
            request.logprobs = Logprobs::Top(3);
            request
        })
        .collect()
}

#[test]
fn answers_with_memories_are_the_same_alone_and_in_a_crowd() {
    let together = engine();
    let tickets: Vec<Ticket> = requests()
        .into_iter()
        .map(|request| together.submit(request).unwrap())
        .collect();
    let together: Vec<_> = tickets.into_iter().map(heard).collect();
    let one_by_one = engine();
    for (request, together) in requests().into_iter().zip(together) {
        assert_eq!(heard(one_by_one.submit(request).unwrap()), together);
    }
}

/// Probabilities of the token after a prompt, and the group of the prompt.
fn next_probs(engine: &Engine, adapter: &str, scale: f64, prompt: &[u32]) -> (Vec<f32>, usize) {
    let mut request = Request::new(prompt.to_vec(), 1);
    request.adapter = Some(adapter.to_owned());
    request.scale = scale;
    request.logprobs = Logprobs::Top(24);
    let (mut probs, mut group_idx) = (vec![0.0; 24], 0);
    for event in engine.submit(request).unwrap() {
        match event {
            Event::Started(started) => group_idx = started.group.unwrap().cluster_idx,
            Event::Token(token) => {
                for choice in token.top {
                    probs[choice.token_id as usize] = choice.logprob.exp();
                }
            }
            Event::Failed(failure) => panic!("{failure}"),
            _ => {}
        }
    }
    (probs, group_idx)
}

#[test]
fn decoding_mixes_what_the_model_and_the_groups_memory_predict() {
    let engine = engine();
    let loaded = engine.model();
    let prompt = [3_u32, 9, 1, 20, 4, 4, 8, 11, 2, 5];
    for scale in [1.0, 0.5, 0.0] {
        let (found, group_idx) = next_probs(&engine, "core", scale, &prompt);
        let (model, _) = next_probs(&engine, "plain", scale, &prompt);

        let memory = memory(loaded);
        let states = entering(loaded, &prompt.map(i64::from));
        let state = states.slice([prompt.len() - 1..prompt.len()]);
        let keys = memory.memories.groups[group_idx].keys().clone();
        let query = memory.memories.projection.keys(state);
        let weights = softmax(query.matmul(keys.transpose()) * 5.0, 1);
        let weights: Vec<f32> = weights.into_data().iter::<f32>().collect();
        let text = text(i64::try_from(group_idx).unwrap());
        let mut memory_probs = [0.0; 24];
        for (weight, &next) in weights.iter().zip(&text[1..]) {
            memory_probs[usize::try_from(next).unwrap()] += weight;
        }
        // The part is what one token says, and all others agree.
        let at = (0..24).max_by(|&left, &right| {
            let apart = |idx: usize| (memory_probs[idx] - model[idx]).abs();
            apart(left).total_cmp(&apart(right))
        });
        let at = at.unwrap();
        let part = (found[at] - model[at]) / (memory_probs[at] - model[at]);
        if scale == 0.0 {
            assert!(part.abs() < 1e-6, "{part}");
        } else {
            assert!((0.02..0.98).contains(&part), "{part}");
        }
        for ((found, model), memory) in found.iter().zip(&model).zip(memory_probs) {
            let expected = (1.0 - part) * model + part * memory;
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
        assert!((found.iter().sum::<f32>() - 1.0).abs() < 1e-5);
    }
}
