//! A Hugging Face model folder: `config.json` and safetensors, in one file or in shards.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use chameleon_core::stored::{StoredBytes, TensorDtype};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, SafeTensors};
use serde::Deserialize;
use serde_json::Value;

use crate::error::ModelError;
use crate::files::architecture::Architecture;
use crate::files::file_bytes::{FileBytes, refuse_pointer};
use crate::files::tensor_info::TensorInfo;

const CONFIG: &str = "config.json";
pub(crate) const WEIGHTS: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";

/// A model folder whose configuration and tensor headers have been read and checked.
#[derive(Debug)]
pub(crate) struct SafetensorsFolder {
    path: PathBuf,
    config: Value,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, TensorInfo>,
    /// Tensors of types that no weight has, and these types.
    others: BTreeMap<String, String>,
    shard_of: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Shard {
    bytes: Arc<FileBytes>,
    metadata: Metadata,
    data_start: usize,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl SafetensorsFolder {
    pub(crate) fn open(folder: &Path) -> Result<Self, ModelError> {
        let missing = |file| match other_contents(folder) {
            Some(found) => ModelError::OtherFolder {
                folder: folder.to_path_buf(),
                found,
            },
            None => ModelError::FolderIncomplete {
                folder: folder.to_path_buf(),
                file,
            },
        };
        let config = read_json(&folder.join(CONFIG))?.ok_or_else(|| missing(CONFIG))?;
        let mut opened = Self {
            path: folder.to_path_buf(),
            config: of_text_part(config),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
            others: BTreeMap::new(),
            shard_of: BTreeMap::new(),
        };
        let index_path = folder.join(INDEX);
        if folder.join(WEIGHTS).exists() {
            opened.add(FileBytes::open(&folder.join(WEIGHTS))?)?;
        } else if index_path.exists() {
            opened.add_shards(&index_path)?;
        } else {
            return Err(missing(WEIGHTS));
        }
        Ok(opened)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn config(&self) -> &Value {
        &self.config
    }

    pub(crate) fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// Tensors of types that no weight has, such as masks and positions, and these types.
    pub(crate) fn others(&self) -> &BTreeMap<String, String> {
        &self.others
    }

    /// Whether two tensors hold the same bytes.
    pub(crate) fn stored_alike(&self, first: &str, second: &str) -> bool {
        let stored = |name: &str| {
            let info = self.tensors.get(name)?;
            let shard = &self.shards[*self.shard_of.get(name)?];
            Some((info, &shard.bytes[shard.place(name)?]))
        };
        stored(first) == stored(second)
    }

    pub(crate) fn architecture(&self) -> Result<Architecture, ModelError> {
        const KEY: &str = "model_type";
        let path = self.path.join(CONFIG);
        match self.config.get(KEY) {
            Some(Value::String(found)) => {
                Architecture::from_name(found).ok_or_else(|| ModelError::UnsupportedArchitecture {
                    path,
                    found: found.clone(),
                    supported: Architecture::NAMES,
                })
            }
            other => Err(ModelError::ConfigValue {
                path,
                key: KEY.to_owned(),
                expected: "a text",
                found: other.map_or_else(|| "nothing".to_owned(), Value::to_string),
            }),
        }
    }

    /// A tensor's values, row by row.
    pub(crate) fn read_f32(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let found = self.tensors.get(name).zip(self.place(name));
        let Some((info, (bytes, place))) = found else {
            return Err(ModelError::TensorMissing {
                path: self.path.clone(),
                name: name.to_owned(),
            });
        };
        Ok(bytes.decode(info.dtype, place))
    }

    /// The bytes of a tensor as they are stored.
    pub(crate) fn stored(&self, name: &str) -> Option<StoredBytes> {
        let (bytes, place) = self.place(name)?;
        StoredBytes::new(Arc::clone(bytes) as _, place)
    }

    /// The shard with a tensor, and where its bytes lie there.
    fn place(&self, name: &str) -> Option<(&Arc<FileBytes>, Range<usize>)> {
        let shard = &self.shards[*self.shard_of.get(name)?];
        Some((&shard.bytes, shard.place(name)?))
    }

    /// The template in `chat_template.jinja` or, in older folders, in `tokenizer_config.json`.
    pub(crate) fn chat_template(&self) -> Result<Option<String>, ModelError> {
        let own_file = self.path.join("chat_template.jinja");
        match std::fs::read_to_string(&own_file) {
            Ok(template) => return Ok(Some(template)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(ModelError::Read {
                    path: own_file,
                    source,
                });
            }
        }
        let config = read_json(&self.path.join("tokenizer_config.json"))?.unwrap_or_default();
        Ok(match config.get("chat_template") {
            Some(Value::String(template)) => Some(template.clone()),
            // Several named templates: the one for plain conversations is called `default`.
            Some(Value::Array(named)) => named
                .iter()
                .find(|entry| entry["name"] == "default")
                .and_then(|entry| entry["template"].as_str())
                .map(str::to_owned),
            _ => None,
        })
    }

    fn add_shards(&mut self, index_path: &Path) -> Result<(), ModelError> {
        let text = std::fs::read(index_path).map_err(|source| ModelError::Read {
            path: index_path.to_path_buf(),
            source,
        })?;
        let index: Index = serde_json::from_slice(&text).map_err(|source| ModelError::Json {
            path: index_path.to_path_buf(),
            source,
        })?;
        let index_error = |problem| ModelError::ShardIndex {
            path: index_path.to_path_buf(),
            problem,
        };
        let shard_names: BTreeSet<&String> = index.weight_map.values().collect();
        for &shard in &shard_names {
            if !is_file_name(shard) {
                return Err(index_error(format!(
                    "shard `{shard}` is not a file name inside the folder"
                )));
            }
            self.add(FileBytes::open(&self.path.join(shard))?)?;
        }
        // A tensor that is in no shard is missed later, if the model needs it.
        let promised = index.weight_map.iter().find(|(name, shard)| {
            let found = self
                .shard_of
                .get(*name)
                .map(|&shard_idx| &self.shards[shard_idx]);
            found.is_some_and(|found| found.bytes.path() != self.path.join(shard))
        });
        if let Some((name, shard)) = promised {
            return Err(index_error(format!(
                "tensor `{name}` is not in shard `{shard}`"
            )));
        }
        Ok(())
    }

    fn add(&mut self, bytes: FileBytes) -> Result<(), ModelError> {
        let (header_len, metadata) =
            SafeTensors::read_metadata(&bytes).map_err(|source| ModelError::Safetensors {
                path: bytes.path().to_path_buf(),
                source,
            })?;
        for (name, stored) in metadata.tensors() {
            let dtype = match stored.dtype {
                Dtype::F32 => TensorDtype::F32,
                Dtype::F16 => TensorDtype::F16,
                Dtype::BF16 => TensorDtype::Bf16,
                other => {
                    self.others.insert(name, format!("{other:?}"));
                    continue;
                }
            };
            let info = TensorInfo {
                shape: stored.shape.clone(),
                dtype,
            };
            if self.tensors.insert(name.clone(), info).is_some() {
                return Err(ModelError::DuplicateName {
                    path: bytes.path().to_path_buf(),
                    name,
                });
            }
            self.shard_of.insert(name, self.shards.len());
        }
        self.shards.push(Shard {
            data_start: header_len + 8,
            bytes: Arc::new(bytes),
            metadata,
        });
        Ok(())
    }
}

impl Shard {
    /// Where a tensor's bytes lie in the file, if all of them are there.
    fn place(&self, name: &str) -> Option<Range<usize>> {
        let (start, end) = self.metadata.info(name)?.data_offsets;
        let place = self.data_start + start..self.data_start + end;
        self.bytes.get(place.clone()).map(|_| place)
    }
}

/// What a folder without the files of a model may be instead.
fn other_contents(folder: &Path) -> Option<&'static str> {
    const CONTENTS: [(&str, &str); 4] = [
        ("adapter_config.json", "a PEFT adapter and no model"),
        ("pytorch_model.bin", "weights as pytorch_model.bin"),
        (
            "pytorch_model.bin.index.json",
            "weights as pytorch_model.bin in shards",
        ),
        ("tf_model.h5", "weights as tf_model.h5"),
    ];
    let mut contents = CONTENTS.iter();
    let found = contents.find(|(file, _)| folder.join(file).exists());
    found.map(|(_, contents)| *contents)
}

/// The configuration of the text part, if a model has other parts as well; what it lacks is that of the whole.
fn of_text_part(config: Value) -> Value {
    let Value::Object(mut whole) = config else {
        return config;
    };
    match whole.remove("text_config") {
        Some(Value::Object(text)) => {
            let mut merged = whole;
            if !text.contains_key("model_type")
                && let Some(Value::String(model_type)) = merged.get("model_type")
            {
                // The text model of the same generation.
                let model_type = format!("{model_type}_text");
                merged.insert("model_type".to_owned(), model_type.into());
            }
            merged.extend(text);
            Value::Object(merged)
        }
        other => {
            whole.extend(other.map(|other| ("text_config".to_owned(), other)));
            Value::Object(whole)
        }
    }
}

/// Reads a JSON file; `None` when there is none.
pub(crate) fn read_json(path: &Path) -> Result<Option<Value>, ModelError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(ModelError::Read {
                path: path.to_path_buf(),
                source,
            });
        }
    };
    refuse_pointer(path, &text)?;
    serde_json::from_slice(&text)
        .or_else(|error| {
            // Python writes numbers that JSON does not have.
            let quoted = quote_non_finite(&text).ok_or(error)?;
            serde_json::from_slice(&quoted)
        })
        .map(Some)
        .map_err(|source| ModelError::Json {
            path: path.to_path_buf(),
            source,
        })
}

/// The same text with `NaN` and `Infinity` as texts, so that only a key that should be a number objects to them; `None`
/// if there are none.
fn quote_non_finite(json: &[u8]) -> Option<Vec<u8>> {
    const WORDS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut quoted = Vec::with_capacity(json.len() + 16);
    let (mut rest, mut in_text, mut num_found) = (json, false, 0);
    while let Some(&byte) = rest.first() {
        let word = WORDS.iter().find(|word| !in_text && rest.starts_with(word));
        let taken = match (word, byte) {
            (Some(word), _) => {
                quoted.push(b'"');
                quoted.extend(*word);
                quoted.push(b'"');
                num_found += 1;
                word.len()
            }
            (None, b'\\') if in_text => {
                quoted.extend(rest.iter().take(2));
                rest.len().min(2)
            }
            (None, byte) => {
                in_text ^= byte == b'"';
                quoted.push(byte);
                1
            }
        };
        rest = &rest[taken..];
    }
    (num_found > 0).then_some(quoted)
}

fn is_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!(
        (components.next(), components.next()),
        (Some(Component::Normal(_)), None)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_that_only_python_writes_become_texts() {
        let quoted = |text: &str| {
            quote_non_finite(text.as_bytes())
                .map(|text| serde_json::from_slice::<Value>(&text).unwrap())
        };
        assert_eq!(
            quoted(r#"{"a": [-Infinity, NaN], "b \" NaN": Infinity, "c": "Infinity"}"#),
            Some(json!({"a": ["-Infinity", "NaN"], "b \" NaN": "Infinity", "c": "Infinity"}))
        );
        assert_eq!(quoted(r#"{"a": "NaN"}"#), None);
    }

    #[test]
    fn the_text_part_of_a_configuration_comes_first() {
        let config = json!({"model_type": "gemma3", "eos_token_id": 1, "hidden_size": 3,
            "text_config": {"hidden_size": 2}, "vision_config": {}});
        let found = of_text_part(config);
        assert_eq!(found["model_type"], "gemma3_text");
        assert_eq!(found["hidden_size"], 2);
        assert_eq!(found["eos_token_id"], 1);
        let plain = json!({"model_type": "llama", "text_config": null});
        assert_eq!(of_text_part(plain.clone()), plain);
    }
}
