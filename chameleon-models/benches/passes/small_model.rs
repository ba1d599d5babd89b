//! A small Llama with random weights, in a GGUF file of four-bit blocks, so that it can be loaded quantised or as f32;
//! and texts for it.

use std::io::Cursor;

use burn::module::Module as _;
use burn::tensor::Device;
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use chameleon_core::RunSeed;
use chameleon_models::families::ModelSizes;
use chameleon_models::files::atomic_file;
use chameleon_models::{HubOptions, LoadedModel, ModelSource, WeightStorage, load_as};
use rand::RngExt as _;

/// Words of the texts. Pieces of them are tokens.
const WORDS: [&str; 12] = [
    "the", "harbour", "was", "quiet", "that", "morning", "and", "boats", "lay", "there", "in",
    "light",
];

/// Pairs that byte-level BPE puts together, the first ones first.
const MERGES: [&str; 8] = ["t h", "Ġ th", "Ġth e", "a n", "an d", "i n", "in g", "Ġ b"];

/// What the model is made of; the embedding is the head.
pub(crate) fn sizes() -> ModelSizes {
    ModelSizes {
        vocab_size: 2048,
        hidden_size: 256,
        intermediate_size: 768,
        num_layers: 4,
        num_heads: 8,
        num_kv_heads: 4,
        head_dim: 32,
        max_seq_len: 512,
    }
}

/// The model, frozen, its weights held as asked for.
pub(crate) fn load(storage: WeightStorage) -> LoadedModel {
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    let path = folder.path().join("small.gguf");
    atomic_file::write(&path, &gguf(&sizes())).expect("the file is small");
    let source = ModelSource::Gguf(path);
    let mut loaded = load_as(storage, &source, &HubOptions::from_env(), &Device::flex())
        .expect("the file is whole");
    loaded.model = loaded.model.no_grad();
    loaded
}

/// Token ids of a prompt.
pub(crate) fn token_ids(count: usize, name: &str) -> Vec<u32> {
    let mut rng = RunSeed(1).stream(name);
    (0..count).map(|_| rng.random_range(0..2048)).collect()
}

/// A text of many words.
pub(crate) fn text(num_words: usize, name: &str) -> String {
    let mut rng = RunSeed(1).stream(name);
    let words: Vec<&str> = (0..num_words)
        .map(|_| WORDS[rng.random_range(0..WORDS.len())])
        .collect();
    words.join(" ")
}

fn gguf(sizes: &ModelSizes) -> Vec<u8> {
    let hidden = sizes.hidden_size;
    let kv_size = sizes.num_kv_heads * sizes.head_dim;
    let mut tensors = vec![
        packed("token_embd.weight", [sizes.vocab_size, hidden]),
        ones("output_norm.weight", hidden),
    ];
    for layer_idx in 0..sizes.num_layers {
        let name = |part: &str| format!("blk.{layer_idx}.{part}.weight");
        for (part, shape) in [
            ("attn_q", [hidden, hidden]),
            ("attn_k", [kv_size, hidden]),
            ("attn_v", [kv_size, hidden]),
            ("attn_output", [hidden, hidden]),
            ("ffn_gate", [sizes.intermediate_size, hidden]),
            ("ffn_up", [sizes.intermediate_size, hidden]),
            ("ffn_down", [hidden, sizes.intermediate_size]),
        ] {
            tensors.push(packed(&name(part), shape));
        }
        tensors.extend(["attn_norm", "ffn_norm"].map(|part| ones(&name(part), hidden)));
    }
    let metadata = metadata(sizes);
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    let mut file = Cursor::new(Vec::new());
    gguf_file::write(&mut file, &metadata, &tensors).expect("memory takes every byte");
    file.into_inner()
}

fn metadata(sizes: &ModelSizes) -> Vec<(&'static str, Value)> {
    let count = |count: usize| Value::U32(u32::try_from(count).expect("the model is small"));
    let text = |text: &str| Value::String(text.to_owned());
    let texts = |texts: Vec<String>| Value::Array(texts.into_iter().map(Value::String).collect());
    vec![
        ("general.architecture", text("llama")),
        ("llama.context_length", count(sizes.max_seq_len)),
        ("llama.embedding_length", count(sizes.hidden_size)),
        ("llama.feed_forward_length", count(sizes.intermediate_size)),
        ("llama.block_count", count(sizes.num_layers)),
        ("llama.attention.head_count", count(sizes.num_heads)),
        ("llama.attention.head_count_kv", count(sizes.num_kv_heads)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("smollm")),
        ("tokenizer.ggml.tokens", texts(tokens())),
        (
            "tokenizer.ggml.merges",
            texts(MERGES.map(str::to_owned).to_vec()),
        ),
    ]
}

/// Letters, the byte alphabet's spelling of a space, and what merges make of them.
fn tokens() -> Vec<String> {
    let letters = ('a'..='z').chain(['Ġ']).map(String::from);
    let merged = MERGES.map(|pair| pair.replace(' ', ""));
    letters.chain(merged).collect()
}

fn packed(name: &str, shape: [usize; 2]) -> (String, QTensor) {
    let mut rng = RunSeed(1).stream(name);
    let values: Vec<f32> = (0..shape[0] * shape[1])
        .map(|_| rng.random_range(-0.05..0.05))
        .collect();
    stored(name, &values, &shape, GgmlDType::Q4_1)
}

fn ones(name: &str, size: usize) -> (String, QTensor) {
    stored(name, &vec![1.0; size], &[size], GgmlDType::F32)
}

fn stored(name: &str, values: &[f32], shape: &[usize], dtype: GgmlDType) -> (String, QTensor) {
    let tensor = candle_core::Tensor::from_slice(values, shape, &candle_core::Device::Cpu)
        .and_then(|tensor| QTensor::quantize(&tensor, dtype))
        .expect("rows are whole blocks");
    (name.to_owned(), tensor)
}
