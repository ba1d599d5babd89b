//! The configuration in a GGUF file, with the keys and defaults of a Hugging Face `config.json`.

use serde_json::{Map, Value, json};

use crate::error::ModelError;
use crate::files::architecture::Architecture;
use crate::files::gguf::{GgufFile, MetadataValue};
use crate::files::gguf_keys::{KeyRow, Kind};

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
    let architecture = Architecture::from_gguf_name(found).ok_or_else(|| unsupported(found))?;
    if file.count(&format!("{found}.expert_count"))?.unwrap_or(0) > 0 {
        return Err(unsupported(&format!("mixture-of-experts {found}")));
    }
    Ok(architecture)
}

/// The configuration, with the keys and defaults of a Hugging Face `config.json`.
pub(crate) fn config(file: &GgufFile, architecture: Architecture) -> Result<Value, ModelError> {
    let family = architecture.family();
    let reader = ConfigReader {
        file,
        prefix: family.gguf,
    };
    let mut config = Map::new();
    config.insert("model_type".to_owned(), family.name.into());
    config.insert("vocab_size".to_owned(), reader.vocab_size()?.into());
    for row in family.gguf_keys.iter().copied().flatten() {
        if let Some(value) = reader.value(row)? {
            config.insert(row.key.to_owned(), value);
        }
    }
    reader.add_rotary(&mut config)?;
    config.insert("tie_word_embeddings".to_owned(), tied(file).into());
    for (key, stored) in [
        ("bos_token_id", "tokenizer.ggml.bos_token_id"),
        ("eos_token_id", "tokenizer.ggml.eos_token_id"),
        ("pad_token_id", "tokenizer.ggml.padding_token_id"),
    ] {
        if let Some(token_id) = file.token_id(stored)? {
            config.insert(key.to_owned(), token_id.into());
        }
    }
    (family.complete)(&mut config);
    Ok(Value::Object(config))
}

/// Whether the output projection is the embedding itself.
pub(crate) fn tied(file: &GgufFile) -> bool {
    !file.tensors().contains_key("output.weight")
        || file.stored_alike("output.weight", "token_embd.weight")
}

/// Divisors of rotary wavelengths, which belong to the configuration.
const LLAMA3_FACTORS: &str = "rope_freqs.weight";
const LONG_FACTORS: &str = "rope_factors_long.weight";
const SHORT_FACTORS: &str = "rope_factors_short.weight";

/// Whether a tensor holds what the configuration describes.
pub(crate) fn is_configuration(name: &str) -> bool {
    [LLAMA3_FACTORS, LONG_FACTORS, SHORT_FACTORS].contains(&name)
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

    /// The value of a key; `None` if the file has none and may do without.
    fn value(&self, row: &KeyRow) -> Result<Option<Value>, ModelError> {
        let missing = |expected| self.file.wrong_value(&self.key(row.gguf), expected);
        Ok(match row.kind {
            Kind::Count => Some(
                self.uniform_count(row.gguf)?
                    .ok_or_else(|| missing("a count"))?
                    .into(),
            ),
            Kind::OptionalCount => self
                .uniform_count(row.gguf)?
                .filter(|&count| count > 0)
                .map(Value::from),
            Kind::Number => Some(
                self.number(row.gguf)?
                    .ok_or_else(|| missing("a finite number"))?
                    .into(),
            ),
            Kind::OptionalNumber => self.number(row.gguf)?.map(Value::from),
            Kind::OptionalFlag => self.file.flag(&self.key(row.gguf))?.map(Value::from),
            Kind::Text(text) => Some(text.into()),
            Kind::HasTensor => Some(self.has_tensor(row.gguf).into()),
        })
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

impl ConfigReader<'_> {
    /// Widths of heads and rotary embeddings, in a file of a family that has them.
    fn add_rotary(&self, config: &mut Map<String, Value>) -> Result<(), ModelError> {
        let count = |config: &Map<String, Value>, key: &str| {
            let count = config.get(key).and_then(Value::as_u64);
            count.and_then(|count| usize::try_from(count).ok())
        };
        let (Some(hidden_size), Some(num_heads)) = (
            count(config, "hidden_size"),
            count(config, "num_attention_heads"),
        ) else {
            return Ok(());
        };
        let mut set_default = |key: &str, default: Value| {
            config.entry(key.to_owned()).or_insert(default);
        };
        set_default("num_key_value_heads", num_heads.into());
        let head_dim = hidden_size.checked_div(num_heads).unwrap_or(0);
        set_default("head_dim", head_dim.into());
        set_default("rope_theta", json!(10000.0));
        let head_dim = count(config, "head_dim").unwrap_or(head_dim);
        if let Some(rotary_dim) = self.count("rope.dimension_count")?
            && rotary_dim < head_dim
        {
            // A little more than the share, which is rounded down.
            let share = (rotary_dim as f64 + 0.25) / head_dim as f64;
            config.insert("partial_rotary_factor".to_owned(), json!(share));
        }
        if let Some(scaling) = rope_scaling(self, head_dim)? {
            config.insert("rope_scaling".to_owned(), scaling);
        }
        Ok(())
    }
}

/// RoPE scaling, from metadata or, for Llama 3, from the table of divisors that its files carry.
fn rope_scaling(reader: &ConfigReader, head_dim: usize) -> Result<Option<Value>, ModelError> {
    if reader.has_tensor(LLAMA3_FACTORS) {
        return llama3_scaling(reader, head_dim).map(Some);
    }
    if reader.has_tensor(LONG_FACTORS) {
        let original = reader.count("rope.scaling.original_context_length")?;
        let attention_factor = reader.number("rope.scaling.attn_factor")?;
        return Ok(Some(json!({
            "rope_type": "longrope",
            "long_factor": reader.file.read_f32(LONG_FACTORS)?,
            "short_factor": reader.file.read_f32(SHORT_FACTORS)?,
            "original_max_position_embeddings": original,
            "attention_factor": attention_factor,
        })));
    }
    let Some(kind) = reader
        .text("rope.scaling.type")?
        .filter(|&kind| kind != "none")
    else {
        // Older files have the factor alone.
        let factor = reader.number("rope.scale_linear")?;
        return Ok(factor.map(|factor| json!({"rope_type": "linear", "factor": factor})));
    };
    let mut scaling = Map::from_iter([("rope_type".to_owned(), json!(kind))]);
    let mut set = |key: &str, value: Option<Value>| {
        scaling.extend(value.map(|value| (key.to_owned(), value)));
    };
    set(
        "factor",
        reader.number("rope.scaling.factor")?.map(Value::from),
    );
    let original = reader.count("rope.scaling.original_context_length")?;
    set(
        "original_max_position_embeddings",
        original.map(Value::from),
    );
    for (key, name) in [
        ("beta_fast", "rope.scaling.yarn_beta_fast"),
        ("beta_slow", "rope.scaling.yarn_beta_slow"),
    ] {
        set(key, reader.number(name)?.map(Value::from));
    }
    Ok(Some(Value::Object(scaling)))
}

/// Llama 3 files hold, for each rotary frequency, the number to divide it by, and not the rule that
/// made them. All published models share one rule but for its factor, which is the largest
/// divisor; whether the rule gives the table is checked.
fn llama3_scaling(reader: &ConfigReader, head_dim: usize) -> Result<Value, ModelError> {
    const NAME: &str = LLAMA3_FACTORS;
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
