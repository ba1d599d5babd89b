//! The configuration in a GGUF file, with the keys and defaults of a Hugging Face `config.json`.

use serde_json::{Map, Value, json};

use crate::error::ModelError;
use crate::files::architecture::Architecture;
use crate::files::gguf::{GgufFile, MetadataValue};

/// The family a file holds.
pub(crate) fn architecture(file: &GgufFile) -> Result<Architecture, ModelError> {
    const KEY: &str = "general.architecture";
    let found = file
        .text(KEY)?
        .ok_or_else(|| file.wrong_value(KEY, "a text"))?;
    let unsupported = |found: &str| ModelError::UnsupportedArchitecture {
        path: file.path().to_path_buf(),
        found: found.to_owned(),
        supported: Architecture::NAMES,
    };
    let architecture = Architecture::from_name(found).ok_or_else(|| unsupported(found))?;
    if file.count(&format!("{found}.expert_count"))?.unwrap_or(0) > 0 {
        return Err(unsupported("mixture-of-experts llama"));
    }
    Ok(architecture)
}

/// The configuration, with the keys and defaults of a Hugging Face `config.json`.
pub(crate) fn config(file: &GgufFile, architecture: Architecture) -> Result<Value, ModelError> {
    let reader = ConfigReader {
        file,
        prefix: architecture.name(),
    };
    let mut config = match architecture {
        Architecture::Llama => llama_config(&reader)?,
        Architecture::Gpt2 => gpt2_config(&reader)?,
    };
    for (key, stored) in [
        ("bos_token_id", "tokenizer.ggml.bos_token_id"),
        ("eos_token_id", "tokenizer.ggml.eos_token_id"),
        ("pad_token_id", "tokenizer.ggml.padding_token_id"),
    ] {
        if let Some(token_id) = file.token_id(stored)? {
            config.insert(key.to_owned(), token_id.into());
        }
    }
    Ok(Value::Object(config))
}

/// Whether the output projection is the embedding itself.
pub(crate) fn tied(file: &GgufFile) -> bool {
    !file.tensors().contains_key("output.weight")
        || file.stored_alike("output.weight", "token_embd.weight")
}

struct ConfigReader<'a> {
    file: &'a GgufFile,
    prefix: &'static str,
}

impl ConfigReader<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn count(&self, name: &str) -> Result<Option<usize>, ModelError> {
        self.file.count(&self.key(name))
    }

    fn required_count(&self, name: &str) -> Result<usize, ModelError> {
        self.count(name)?
            .ok_or_else(|| self.file.wrong_value(&self.key(name), "a count"))
    }

    /// A count that some writers repeat for each layer. Layers that differ are another family.
    fn uniform_count(&self, name: &str) -> Result<Option<usize>, ModelError> {
        let key = self.key(name);
        let Some(MetadataValue::Integers(per_layer)) = self.file.value(&key) else {
            return self.file.count(&key);
        };
        match per_layer.split_first() {
            Some((&first, others)) if others.iter().all(|&other| other == first) => {
                usize::try_from(first)
                    .map(Some)
                    .map_err(|_| self.file.wrong_value(&key, "a count"))
            }
            _ => Err(self
                .file
                .wrong_value(&key, "the same count for every layer")),
        }
    }

    fn number(&self, name: &str) -> Result<Option<f64>, ModelError> {
        self.file.number(&self.key(name))
    }

    fn text(&self, name: &str) -> Result<Option<&str>, ModelError> {
        self.file.text(&self.key(name))
    }

    /// The rows of the embedding: the only count that cannot disagree with the weights.
    fn vocab_size(&self) -> Result<usize, ModelError> {
        let name = "token_embd.weight";
        let embedding = self
            .file
            .tensors()
            .get(name)
            .ok_or_else(|| ModelError::TensorMissing {
                path: self.file.path().to_path_buf(),
                name: name.to_owned(),
            })?;
        Ok(embedding.shape[0])
    }

    fn has_tensor(&self, name: &str) -> bool {
        self.file.tensors().contains_key(name)
    }
}

fn llama_config(reader: &ConfigReader) -> Result<Map<String, Value>, ModelError> {
    let hidden_size = reader.required_count("embedding_length")?;
    let num_heads = reader
        .uniform_count("attention.head_count")?
        .ok_or_else(|| {
            reader
                .file
                .wrong_value(&reader.key("attention.head_count"), "a count")
        })?;
    let num_kv_heads = reader
        .uniform_count("attention.head_count_kv")?
        .unwrap_or(num_heads);
    let head_dim = match reader.count("attention.key_length")? {
        Some(head_dim) => head_dim,
        None => hidden_size.checked_div(num_heads).unwrap_or(0),
    };
    let mut config = Map::new();
    let mut set = |key: &str, value: Value| config.insert(key.to_owned(), value);
    set("architectures", json!(["LlamaForCausalLM"]));
    set("model_type", json!("llama"));
    set("vocab_size", json!(reader.vocab_size()?));
    set("hidden_size", json!(hidden_size));
    set(
        "intermediate_size",
        json!(reader.required_count("feed_forward_length")?),
    );
    set(
        "num_hidden_layers",
        json!(reader.required_count("block_count")?),
    );
    set("num_attention_heads", json!(num_heads));
    set("num_key_value_heads", json!(num_kv_heads));
    set("head_dim", json!(head_dim));
    set(
        "max_position_embeddings",
        json!(reader.required_count("context_length")?),
    );
    set("hidden_act", json!("silu"));
    let eps_key = "attention.layer_norm_rms_epsilon";
    let eps = reader.number(eps_key)?.ok_or_else(|| {
        reader
            .file
            .wrong_value(&reader.key(eps_key), "a finite number")
    })?;
    set("rms_norm_eps", json!(eps));
    set(
        "rope_theta",
        json!(reader.number("rope.freq_base")?.unwrap_or(10000.0)),
    );
    set(
        "attention_bias",
        json!(reader.has_tensor("blk.0.attn_q.bias")),
    );
    set("mlp_bias", json!(reader.has_tensor("blk.0.ffn_up.bias")));
    set("tie_word_embeddings", json!(tied(reader.file)));
    if let Some(scaling) = rope_scaling(reader, head_dim)? {
        set("rope_scaling", scaling);
    }
    Ok(config)
}

/// RoPE scaling, from metadata or, for Llama 3, from the table of divisors that its files carry.
fn rope_scaling(reader: &ConfigReader, head_dim: usize) -> Result<Option<Value>, ModelError> {
    if reader.has_tensor("rope_freqs.weight") {
        return llama3_scaling(reader, head_dim).map(Some);
    }
    let Some(kind) = reader
        .text("rope.scaling.type")?
        .filter(|&kind| kind != "none")
    else {
        return Ok(None);
    };
    let mut scaling = Map::from_iter([("rope_type".to_owned(), json!(kind))]);
    for (key, name) in [
        ("factor", "rope.scaling.factor"),
        (
            "original_max_position_embeddings",
            "rope.scaling.original_context_length",
        ),
    ] {
        if let Some(number) = reader.number(name)? {
            scaling.insert(key.to_owned(), json!(number));
        }
    }
    Ok(Some(Value::Object(scaling)))
}

/// Llama 3 files hold, for each rotary frequency, the number to divide it by, and not the rule that
/// made them. All published models share one rule but for its factor, which is the largest
/// divisor; whether the rule gives the table is checked.
fn llama3_scaling(reader: &ConfigReader, head_dim: usize) -> Result<Value, ModelError> {
    const NAME: &str = "rope_freqs.weight";
    const LOW_FREQ_FACTOR: f64 = 1.0;
    const HIGH_FREQ_FACTOR: f64 = 4.0;
    const ORIGINAL_CONTEXT: u32 = 8192;
    let context = f64::from(ORIGINAL_CONTEXT);
    let divisors = reader.file.read_f32(NAME)?;
    let factor = f64::from(divisors.iter().copied().fold(1.0, f32::max));
    let theta = reader.number("rope.freq_base")?.unwrap_or(10000.0);
    let from_rule = |index: usize| {
        let wavelength = std::f64::consts::TAU * theta.powf(2.0 * index as f64 / head_dim as f64);
        if wavelength < context / HIGH_FREQ_FACTOR {
            1.0
        } else if wavelength > context / LOW_FREQ_FACTOR {
            factor
        } else {
            let smooth =
                (context / wavelength - LOW_FREQ_FACTOR) / (HIGH_FREQ_FACTOR - LOW_FREQ_FACTOR);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    let follows_rule = divisors.len() == head_dim / 2
        && divisors.iter().enumerate().all(|(index, &divisor)| {
            let expected = from_rule(index);
            (f64::from(divisor) - expected).abs() <= 1e-4 * expected
        });
    if !follows_rule {
        return Err(ModelError::ConfigValue {
            path: reader.file.path().to_path_buf(),
            key: NAME.to_owned(),
            expected: "the frequency divisors of Llama 3",
            found: format!("{} other divisors", divisors.len()),
        });
    }
    Ok(json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": LOW_FREQ_FACTOR,
        "high_freq_factor": HIGH_FREQ_FACTOR,
        "original_max_position_embeddings": ORIGINAL_CONTEXT,
    }))
}

fn gpt2_config(reader: &ConfigReader) -> Result<Map<String, Value>, ModelError> {
    let max_seq_len = reader.required_count("context_length")?;
    let eps_key = "attention.layer_norm_epsilon";
    let eps = reader.number(eps_key)?.ok_or_else(|| {
        reader
            .file
            .wrong_value(&reader.key(eps_key), "a finite number")
    })?;
    let mut config = Map::new();
    let mut set = |key: &str, value: Value| config.insert(key.to_owned(), value);
    set("architectures", json!(["GPT2LMHeadModel"]));
    set("model_type", json!("gpt2"));
    set("vocab_size", json!(reader.vocab_size()?));
    set("n_embd", json!(reader.required_count("embedding_length")?));
    set(
        "n_inner",
        json!(reader.required_count("feed_forward_length")?),
    );
    set("n_layer", json!(reader.required_count("block_count")?));
    set(
        "n_head",
        json!(reader.required_count("attention.head_count")?),
    );
    set("n_positions", json!(max_seq_len));
    set("n_ctx", json!(max_seq_len));
    set("layer_norm_epsilon", json!(eps));
    set("activation_function", json!("gelu_new"));
    set("tie_word_embeddings", json!(tied(reader.file)));
    Ok(config)
}
