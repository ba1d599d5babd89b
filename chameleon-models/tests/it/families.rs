//! Every family against Hugging Face transformers, on tiny models whose weights follow from their names.

use std::collections::HashMap;
use std::path::PathBuf;

use burn::tensor::{Device, Int, Tensor, TensorData};
use chameleon_core::RunSeed;
use chameleon_hypernet::LayerFactors;
use chameleon_models::adapter::{LayerAdaptation, LayerKind, LayerRange};
use chameleon_models::families::{KvCache, Segment};
use chameleon_models::{CausalLm, Checkpoint, LanguageModel};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::fixture::{
    Array, adapted_logits, assert_all_close, checkpoint, next_token_loss, read_arrays, untrained,
};

/// One model of a family.
const CASES: [&str; 17] = [
    "llama-linear",
    "llama-dynamic",
    "llama-yarn",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3",
    "phi3",
    "phi3-longrope",
    "phi3-longrope-short",
    "smollm3",
    "olmo2",
    "granite",
    "gpt_neox",
    "gpt_neox-sequential",
    "gpt2-gelu-by-layer",
];

/// Those that are there as GGUF files as well.
const GGUF_CASES: [&str; 4] = ["gemma2", "phi3-longrope", "granite", "gpt_neox"];

#[derive(Deserialize)]
struct Case {
    config: Value,
    shapes: HashMap<String, Vec<usize>>,
    token_ids: Vec<u32>,
    prompt: Vec<u32>,
    continuation: Option<Vec<u32>>,
    rank: usize,
    scale: f64,
    targets: Vec<String>,
    #[serde(skip)]
    expected: HashMap<String, Array>,
}

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/families", name]
        .iter()
        .collect()
}

impl Case {
    fn read(name: &str) -> Self {
        let json = std::fs::read_to_string(fixture(&format!("{name}.json"))).unwrap();
        Self {
            expected: read_arrays(&fixture(&format!("{name}.safetensors"))),
            ..serde_json::from_str(&json).unwrap()
        }
    }

    fn weights(&self) -> HashMap<String, Array> {
        let is_gemma = self.config["model_type"]
            .as_str()
            .unwrap()
            .starts_with("gemma");
        self.shapes
            .iter()
            .map(|(name, shape)| (name.clone(), weight(name, shape, is_gemma)))
            .collect()
    }

    /// The model, loaded from a folder as `transformers` writes it.
    fn model(&self, device: &Device) -> LanguageModel {
        let weights = self.weights();
        let checkpoint = checkpoint(&self.config, &weights);
        let mut model = untrained(&checkpoint, device);
        let report = model.import(&checkpoint);
        assert!(report.is_complete(), "{report:?}");
        assert!(report.unused.is_empty(), "{report:?}");
        assert_eq!(report.loaded.len(), weights.len());
        model
    }

    fn token_ids(&self, device: &Device) -> Tensor<2, Int> {
        ids(&self.token_ids, device)
    }

    fn assert_close(&self, case: &str, name: &str, found: &[f32]) {
        let expected = &self.expected[name].values;
        assert_all_close(&format!("{case} {name}"), found, expected);
    }
}

fn ids(token_ids: &[u32], device: &Device) -> Tensor<2, Int> {
    let values: Vec<i64> = token_ids.iter().map(|&id| i64::from(id)).collect();
    let shape = [1, values.len()];
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().unwrap()
}

/// The numbers of a tensor, as `draw` of `export.py` has them.
#[expect(clippy::cast_possible_truncation, reason = "weights are f32")]
fn draw(name: &str, count: usize, scale: f64) -> Vec<f32> {
    // FNV-1a of 32 bits.
    let first = name.bytes().fold(0x811C_9DC5, |hash: u32, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (0..u32::try_from(count).unwrap())
        .map(|idx| {
            let mut state = first.wrapping_add(idx);
            for (multiplier, shift) in [(0x7FEB_352D, 16), (0x846C_A68B, 15)] {
                state ^= state >> shift;
                state = u32::wrapping_mul(state, multiplier);
            }
            state ^= state >> 16;
            ((f64::from(state) / 2_f64.powi(31) - 1.0) * scale) as f32
        })
        .collect()
}

fn weight(name: &str, shape: &[usize], less_one: bool) -> Array {
    let count = shape.iter().product();
    let values = if shape.len() == 2 {
        let is_embedding = name.contains("embed") || name.contains("wte");
        draw(name, count, if is_embedding { 1.0 } else { 0.4 })
    } else if name.contains("bias") || less_one {
        draw(name, count, 0.2)
    } else {
        draw(name, count, 0.2)
            .into_iter()
            .map(|value| 1.0 + value)
            .collect()
    };
    Array {
        shape: shape.to_vec(),
        values,
    }
}

fn factor(name: &str, shape: [usize; 2], device: &Device) -> Tensor<2> {
    let data = TensorData::new(draw(name, shape[0] * shape[1], 0.3), shape);
    Tensor::from_data(data, device)
}

#[test]
fn logits_and_loss_are_those_of_transformers() {
    let device = Device::flex();
    for name in CASES {
        let case = Case::read(name);
        let model = case.model(&device);
        let logits = adapted_logits(&model, case.token_ids(&device), &LayerFactors::none());
        case.assert_close(name, "logits", &values(logits.clone()));
        let loss = next_token_loss(logits, case.token_ids(&device));
        case.assert_close(name, "loss", &values(loss));
    }
}

#[test]
fn greedy_tokens_with_a_cache_are_those_of_transformers_without() {
    let device = Device::flex();
    for name in CASES {
        let case = Case::read(name);
        let Some(expected) = &case.continuation else {
            continue;
        };
        let model = case.model(&device);
        let mut cache = KvCache::new(model.sizes(), &device);
        let row = cache.add_row();
        let mut found: Vec<u32> = Vec::new();
        let mut next = case.prompt.clone();
        while found.len() < expected.len() {
            let segment = Segment {
                row,
                token_ids: &next,
                layers: None,
            };
            let hidden = model.hidden_states_with_cache(&[segment], &mut cache);
            let [num_tokens, _] = hidden.dims();
            let logits = model.logits(hidden.narrow(0, num_tokens - 1, 1));
            let best: i64 = logits.argmax(1).into_scalar();
            next = vec![u32::try_from(best).unwrap()];
            found.extend(&next);
        }
        assert_eq!(&found, expected, "{name}");
    }
}

/// Two rows that advance by different pieces, so that windows begin inside a piece, at its edge and before it.
#[test]
fn pieces_with_a_cache_are_a_whole_pass() {
    let device = Device::flex();
    for name in CASES {
        let case = Case::read(name);
        let model = case.model(&device);
        let len = case.token_ids.len().min(model.sizes().max_seq_len);
        let texts = [&case.token_ids[..len], &case.prompt];
        let mut cache = KvCache::new(model.sizes(), &device);
        let rows = [cache.add_row(), cache.add_row()];
        let mut found = [Vec::new(), Vec::new()];
        let mut starts = [0; 2];
        for sizes in [[9, 1], [1, 1], [3, 0], [1, 2]]
            .into_iter()
            .chain([[1, 0]].repeat(len))
        {
            let pieces: Vec<(usize, &[u32])> = (0..2)
                .map(|idx| {
                    let end = (starts[idx] + sizes[idx]).min(texts[idx].len());
                    (
                        idx,
                        &texts[idx][std::mem::replace(&mut starts[idx], end)..end],
                    )
                })
                .filter(|(_, piece)| !piece.is_empty())
                .collect();
            let segments: Vec<Segment<'_>> = pieces
                .iter()
                .map(|&(idx, token_ids)| Segment {
                    row: rows[idx],
                    token_ids,
                    layers: None,
                })
                .collect();
            if segments.is_empty() {
                break;
            }
            let hidden = model.hidden_states_with_cache(&segments, &mut cache);
            let mut first = 0;
            for (idx, piece) in pieces {
                found[idx].extend(values(hidden.clone().narrow(0, first, piece.len())));
                first += piece.len();
            }
        }
        for (found, text) in found.iter().zip(texts) {
            let whole = values(model.hidden_states(ids(text, &device)));
            assert_all_close(name, found, &whole);
        }
    }
}

#[test]
fn lora_gradients_are_those_of_transformers() {
    let device = Device::flex().autodiff();
    let mut num_checked = 0;
    for name in CASES {
        let case = Case::read(name);
        if case.targets.is_empty() {
            continue;
        }
        let model = case.model(&Device::flex());
        let layers = LayerAdaptation {
            targets: case.targets.clone(),
            layers: LayerRange::All,
            kind: LayerKind::Lora,
            rank: case.rank,
            scale: case.scale,
        };
        let mut layers = layers
            .config(&model, None)
            .unwrap()
            .init(RunSeed(1), &device);
        let modules: Vec<_> = layers.modules().to_vec();
        assert_eq!(modules.len(), case.targets.len() * model.sizes().num_layers);
        let path = |idx: usize| format!("{}.{}", modules[idx].layer_idx, modules[idx].path);
        for (idx, factors) in layers.factors.iter_mut().enumerate() {
            let module = &modules[idx];
            let a = factor(
                &format!("{}.a", path(idx)),
                [module.in_size, case.rank],
                &device,
            );
            let b = factor(
                &format!("{}.b", path(idx)),
                [case.rank, module.out_size],
                &device,
            );
            factors.a = burn::module::Param::from_tensor(a.require_grad());
            factors.b = burn::module::Param::from_tensor(b.require_grad());
        }
        let token_ids = case.token_ids(&Device::flex());
        let factors = layers.shared().for_all_groups().for_batch();
        let logits = adapted_logits(&model, token_ids.clone(), &factors);
        let loss = next_token_loss(logits, token_ids);
        case.assert_close(name, "lora.loss", &values(loss.clone().inner()));
        let grads = loss.backward();
        for (idx, factors) in layers.factors.iter().enumerate() {
            for (part, param) in [("a", &factors.a), ("b", &factors.b)] {
                let grad = param.val().grad(&grads).expect("a gradient");
                case.assert_close(name, &format!("{}.{part}.grad", path(idx)), &values(grad));
                num_checked += 1;
            }
        }
    }
    assert!(num_checked > 0);
}

#[test]
fn a_gguf_file_is_the_same_model() {
    let device = Device::flex();
    for name in GGUF_CASES {
        let case = Case::read(name);
        let checkpoint = Checkpoint::from_gguf(&fixture(&format!("{name}.gguf"))).unwrap();
        let model_type = case.config["model_type"].as_str().unwrap();
        assert_eq!(checkpoint.architecture().name(), model_type);
        let mut model = untrained(&checkpoint, &device);
        let report = model.import(&checkpoint);
        assert!(report.is_complete(), "{name}: {report:?}");
        assert!(report.unused.is_empty(), "{name}: {report:?}");
        assert_eq!(report.loaded.len(), case.shapes.len());
        let logits = adapted_logits(&model, case.token_ids(&device), &LayerFactors::none());
        case.assert_close(name, "logits", &values(logits));
    }
}

#[test]
fn the_text_part_of_a_model_with_a_vision_tower_is_read() {
    const VISION: &str = "vision_tower.patch_embedding.weight";
    let device = Device::flex();
    let case = Case::read("gemma3");
    let config = json!({"model_type": "gemma3", "text_config": case.config, "vision_config": {"hidden_size": 8}});
    for prefix in ["language_model.model.", "model.language_model."] {
        let weights = case.weights().into_iter();
        let mut weights: HashMap<String, Array> = weights
            .map(|(name, array)| (name.replacen("model.", prefix, 1), array))
            .collect();
        weights.insert(VISION.to_owned(), weight(VISION, &[2, 2], false));
        let checkpoint = checkpoint(&config, &weights);
        let mut model = untrained(&checkpoint, &device);
        let report = model.import(&checkpoint);
        assert!(report.is_complete(), "{report:?}");
        assert_eq!(report.unused, [VISION]);
        let logits = adapted_logits(&model, case.token_ids(&device), &LayerFactors::none());
        case.assert_close(prefix, "logits", &values(logits));
    }
}
