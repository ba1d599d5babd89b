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
use crate::files::file_bytes::FileBytes;
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
        let config =
            read_json(&folder.join(CONFIG))?.ok_or_else(|| ModelError::FolderIncomplete {
                folder: folder.to_path_buf(),
                file: CONFIG,
            })?;
        let mut opened = Self {
            path: folder.to_path_buf(),
            config,
            shards: Vec::new(),
            tensors: BTreeMap::new(),
            shard_of: BTreeMap::new(),
        };
        let index_path = folder.join(INDEX);
        if folder.join(WEIGHTS).exists() {
            opened.add(FileBytes::open(&folder.join(WEIGHTS))?)?;
        } else if index_path.exists() {
            opened.add_shards(&index_path)?;
        } else {
            return Err(ModelError::FolderIncomplete {
                folder: folder.to_path_buf(),
                file: WEIGHTS,
            });
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
        let promised = index.weight_map.iter().find(|(name, shard)| {
            let found = self
                .shard_of
                .get(*name)
                .map(|&shard_idx| &self.shards[shard_idx]);
            found.is_none_or(|found| found.bytes.path() != self.path.join(shard))
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
                // GPT-2 exports contain their attention mask as booleans or bytes, which is not read.
                Dtype::BOOL | Dtype::U8 if is_mask(&name) => continue,
                other => {
                    return Err(ModelError::UnsupportedDtype {
                        path: bytes.path().to_path_buf(),
                        name,
                        found: format!("{other:?}"),
                    });
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
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|source| ModelError::Json {
            path: path.to_path_buf(),
            source,
        })
}

fn is_mask(name: &str) -> bool {
    name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias")
}

fn is_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!(
        (components.next(), components.next()),
        (Some(Component::Normal(_)), None)
    )
}
