//! Where a model's tensors and configuration come from, whatever the kind of file.
//!
//! A [`Checkpoint`] names tensors and configuration keys as Hugging Face does, and gives the values of a tensor as the
//! module holds them: `f32`, in the module's order of axes and rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chameleon_core::stored::{StoredBytes, StoredMatrix, StoredMatrixError, TensorDtype};
use rayon::prelude::*;
use serde_json::Value;

use crate::error::ModelError;
use crate::files::architecture::Architecture;
use crate::files::file_bytes::FileBytes;
use crate::files::gguf::GgufFile;
use crate::files::gguf_config;
use crate::files::gguf_parts;
use crate::files::name_table::{Container, Heads, Layout};
use crate::files::safetensors_folder::SafetensorsFolder;
use crate::files::stored_layout::StoredLayout;
use crate::files::tensor_info::TensorInfo;
use crate::files::tokenizer::Tokenizer;
use crate::files::tokenizer_gguf;

/// A model on disk: configuration, and tensors that are read one by one.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    architecture: Architecture,
    config: Value,
    tensors: BTreeMap<String, Entry>,
    /// Tensors that hold what the model computes for itself.
    buffers: Vec<String>,
    storage: Arc<Storage>,
}

#[derive(Debug, Clone)]
struct Entry {
    stored_name: String,
    /// The shape in the file.
    stored_shape: Vec<usize>,
    info: TensorInfo,
    layout: StoredLayout,
    /// The path in the module; `None` if the family has no such tensor.
    field: Option<String>,
}

#[derive(Debug)]
enum Storage {
    Gguf(GgufFile),
    Safetensors(SafetensorsFolder),
}

impl Checkpoint {
    /// Opens a model folder or a `.gguf` file. Headers are read and checked, weights are not.
    ///
    /// # Errors
    /// When there is nothing at the path, or what is there is not a whole model of a known family.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_dir() {
            Self::from_folder(path)
        } else if path.exists() {
            Self::from_gguf(path)
        } else {
            Err(ModelError::ModelMissing {
                path: path.to_path_buf(),
            })
        }
    }

    /// Opens a Hugging Face folder: `config.json` and safetensors, in one file or in shards.
    ///
    /// # Errors
    /// When a file is missing or broken, or the family is not a known one.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        let folder = SafetensorsFolder::open(folder)?;
        let architecture = folder.architecture()?;
        let config = folder.config().clone();
        let (buffers, weights) = folder
            .tensors()
            .iter()
            .partition::<Vec<_>, _>(|(name, _)| architecture.names().is_buffer(name));
        let table = architecture.names();
        for (name, dtype) in folder.others() {
            if table.find(Container::HuggingFace, name).is_some() {
                return Err(ModelError::UnsupportedDtype {
                    path: folder.path().to_path_buf(),
                    name: name.clone(),
                    found: dtype.clone(),
                });
            }
        }
        let naming = Naming {
            container: Container::HuggingFace,
            architecture,
            config: &config,
            path: folder.path(),
        };
        Ok(Self {
            architecture,
            tensors: naming
                .entries(weights.into_iter().map(|(name, info)| (name, info.clone())))?,
            buffers: buffers
                .into_iter()
                .map(|(name, _)| name)
                .chain(folder.others().keys())
                .cloned()
                .collect(),
            config,
            storage: Arc::new(Storage::Safetensors(folder)),
        })
    }

    /// Opens a GGUF file; of one that is one of several parts of a model, all parts.
    ///
    /// # Errors
    /// When the file cannot be read or is broken, or the family is not a known one.
    pub fn from_gguf(path: &Path) -> Result<Self, ModelError> {
        let extension = path.extension();
        if extension.is_some_and(|extension| extension.eq_ignore_ascii_case("safetensors")) {
            return Err(ModelError::FileOfFolder {
                path: path.to_path_buf(),
            });
        }
        Self::of_gguf(gguf_parts::open(path)?)
    }

    /// Reads a GGUF file that is in memory; `path` appears in messages.
    ///
    /// # Errors
    /// Those of [`from_gguf`](Self::from_gguf).
    pub fn from_gguf_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, ModelError> {
        Self::of_gguf(GgufFile::parse(FileBytes::from_vec(path, bytes))?)
    }

    fn of_gguf(file: GgufFile) -> Result<Self, ModelError> {
        let architecture = gguf_config::architecture(&file)?;
        let config = gguf_config::config(&file, architecture)?;
        let head_is_copy = gguf_config::tied(&file);
        let naming = Naming {
            container: Container::Gguf,
            architecture,
            config: &config,
            path: file.path(),
        };
        let is_weight = |name: &str| {
            !(gguf_config::is_configuration(name) || head_is_copy && name == "output.weight")
        };
        let stored = file.tensors().iter().filter(|(name, _)| is_weight(name));
        let stored = stored.map(|(name, tensor)| {
            let info = TensorInfo {
                shape: tensor.shape.clone(),
                dtype: tensor.dtype,
            };
            (name, info)
        });
        Ok(Self {
            architecture,
            tensors: naming.entries(stored)?,
            buffers: Vec::new(),
            config,
            storage: Arc::new(Storage::Gguf(file)),
        })
    }

    /// The file or folder, for messages.
    pub fn path(&self) -> &Path {
        match &*self.storage {
            Storage::Gguf(file) => file.path(),
            Storage::Safetensors(folder) => folder.path(),
        }
    }

    /// The family.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The configuration, with the keys of a Hugging Face `config.json`.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The file that holds the configuration, for messages.
    pub fn config_path(&self) -> PathBuf {
        match &*self.storage {
            Storage::Gguf(file) => file.path().to_path_buf(),
            Storage::Safetensors(folder) => folder.path().join("config.json"),
        }
    }

    /// All tensors that may hold weights, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors
            .iter()
            .map(|(name, entry)| (name.as_str(), &entry.info))
    }

    /// Tensors that hold what the model computes for itself: masks and rotary frequencies of older files.
    pub(crate) fn buffers(&self) -> &[String] {
        &self.buffers
    }

    /// The path of a tensor in the module; `None` if there is no such tensor in the file or in the family.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.tensors.get(name)?.field.as_deref()
    }

    /// Whether there is a head that is not a copy of the embedding.
    pub(crate) fn has_own_head(&self) -> bool {
        let table = self.architecture.names();
        let stored = |field: &str| {
            let (name, _) = table.of_field(field)?;
            Some(self.tensors.get(&name)?.stored_name.as_str())
        };
        match (stored("lm_head.weight"), stored("embed_tokens.weight")) {
            (Some(head), Some(embedding)) => match &*self.storage {
                // A copy was left out when the file was opened.
                Storage::Gguf(_) => true,
                Storage::Safetensors(folder) => !folder.stored_alike(head, embedding),
            },
            _ => false,
        }
    }

    /// What one tensor looks like.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|entry| &entry.info)
    }

    /// The values of a tensor, row by row, in the shape that [`tensor`](Self::tensor) returns.
    ///
    /// # Errors
    /// When there is no such tensor, or when one of its weights is NaN or infinite.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let entry = self
            .tensors
            .get(name)
            .ok_or_else(|| ModelError::TensorMissing {
                path: self.path().to_path_buf(),
                name: name.to_owned(),
            })?;
        let stored = match &*self.storage {
            Storage::Gguf(file) => file.read_f32(&entry.stored_name)?,
            Storage::Safetensors(folder) => folder.read_f32(&entry.stored_name)?,
        };
        if let Some((position, &value)) = stored
            .par_iter()
            .enumerate()
            .find_first(|(_, value)| !value.is_finite())
        {
            return Err(ModelError::NonFinite {
                path: self.path().to_path_buf(),
                name: name.to_owned(),
                position,
                value,
            });
        }
        Ok(entry.layout.restore(stored, &entry.stored_shape))
    }

    /// The weight of a linear module as it is stored; `None` if it is stored as f32, or in a shape or an order in which
    /// no output is a row.
    ///
    /// # Errors
    /// When one of its values is NaN or infinite.
    pub(crate) fn stored_linear(&self, name: &str) -> Result<Option<StoredMatrix>, ModelError> {
        let Some((entry, bytes)) = self.stored(name) else {
            return Ok(None);
        };
        let &[num_rows, row_len] = entry.stored_shape.as_slice() else {
            return Ok(None);
        };
        let dtype = entry.info.dtype;
        if entry.layout.is_transposed() {
            let matrix = self.matrix(name, dtype, bytes, [num_rows, row_len])?;
            let Some(order) = entry.layout.order(num_rows) else {
                return Ok(Some(matrix));
            };
            let ordered = matrix.with_order(order);
            return ordered
                .map(Some)
                .map_err(|source| self.not_a_weight(name, source));
        }
        if dtype.block_len() > 1 {
            return Ok(None);
        }
        let transposed = transpose(&bytes, [num_rows, row_len], dtype.block_bytes());
        drop(bytes);
        let num_bytes = transposed.len();
        let bytes = StoredBytes::new(Arc::new(transposed), 0..num_bytes);
        let bytes = bytes.expect("all of the bytes");
        self.matrix(name, dtype, bytes, [row_len, num_rows])
            .map(Some)
    }

    /// An embedding as it is stored, row by row; `None` if it is stored as f32.
    ///
    /// # Errors
    /// When one of its values is NaN or infinite.
    pub(crate) fn stored_embedding(&self, name: &str) -> Result<Option<StoredMatrix>, ModelError> {
        match self.stored(name) {
            Some((entry, bytes)) if entry.layout == StoredLayout::SAME => {
                let &[num_rows, row_len] = entry.stored_shape.as_slice() else {
                    return Ok(None);
                };
                self.matrix(name, entry.info.dtype, bytes, [num_rows, row_len])
                    .map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The bytes of a tensor that is not stored as f32.
    fn stored(&self, name: &str) -> Option<(&Entry, StoredBytes)> {
        let entry = self.tensors.get(name)?;
        if entry.info.dtype == TensorDtype::F32 {
            return None;
        }
        let bytes = match &*self.storage {
            Storage::Gguf(file) => file.stored(&entry.stored_name)?,
            Storage::Safetensors(folder) => folder.stored(&entry.stored_name)?,
        };
        Some((entry, bytes))
    }

    fn matrix(
        &self,
        name: &str,
        dtype: TensorDtype,
        bytes: StoredBytes,
        shape: [usize; 2],
    ) -> Result<StoredMatrix, ModelError> {
        StoredMatrix::new(dtype, bytes, shape).map_err(|source| self.not_a_weight(name, source))
    }

    fn not_a_weight(&self, name: &str, source: StoredMatrixError) -> ModelError {
        let (path, name) = (self.path().to_path_buf(), name.to_owned());
        match source {
            StoredMatrixError::NonFinite { position, value } => ModelError::NonFinite {
                path,
                name,
                position,
                value,
            },
            source => ModelError::StoredWeight { path, name, source },
        }
    }

    /// The tokenizer that belongs to the model; its vocabulary is checked against the embedding.
    ///
    /// # Errors
    /// When it is missing, broken, of an unknown kind, or has more tokens than the embedding.
    pub fn tokenizer(&self) -> Result<Tokenizer, ModelError> {
        let tokenizer = match &*self.storage {
            Storage::Gguf(file) => tokenizer_gguf::read(file)?,
            Storage::Safetensors(folder) => Tokenizer::from_folder(folder.path())?,
        };
        match self.config.get("vocab_size").and_then(Value::as_u64) {
            Some(vocab_size) => {
                tokenizer.for_model(usize::try_from(vocab_size).unwrap_or(usize::MAX))
            }
            None => Ok(tokenizer),
        }
    }

    /// The chat template, if the model has one.
    ///
    /// # Errors
    /// When the file that should hold it cannot be read.
    pub fn chat_template(&self) -> Result<Option<String>, ModelError> {
        match &*self.storage {
            Storage::Gguf(file) => Ok(file.text("tokenizer.chat_template")?.map(str::to_owned)),
            Storage::Safetensors(folder) => folder.chat_template(),
        }
    }
}

/// The columns of values of `size` bytes each, one after the other.
fn transpose(bytes: &[u8], [num_rows, num_columns]: [usize; 2], size: usize) -> Vec<u8> {
    let mut transposed = vec![0; bytes.len()];
    transposed
        .par_chunks_mut((num_rows * size).max(1))
        .enumerate()
        .for_each(|(column, values)| {
            for (row, value) in values.chunks_exact_mut(size).enumerate() {
                value.copy_from_slice(&bytes[(row * num_columns + column) * size..][..size]);
            }
        });
    transposed
}

/// How the tensors of a file are named and laid out.
struct Naming<'a> {
    container: Container,
    architecture: Architecture,
    config: &'a Value,
    /// For messages.
    path: &'a Path,
}

impl Naming<'_> {
    fn entries<'a>(
        &self,
        stored: impl Iterator<Item = (&'a String, TensorInfo)>,
    ) -> Result<BTreeMap<String, Entry>, ModelError> {
        let mut entries = BTreeMap::new();
        for (stored_name, stored) in stored {
            let (name, entry) = self.entry(stored_name, stored)?;
            if entries.insert(name, entry).is_some() {
                return Err(ModelError::DuplicateName {
                    path: self.path.to_path_buf(),
                    name: stored_name.clone(),
                });
            }
        }
        Ok(entries)
    }

    /// A tensor that the family does not have keeps its name and its layout.
    fn entry(&self, stored_name: &str, stored: TensorInfo) -> Result<(String, Entry), ModelError> {
        let found = self.architecture.names().find(self.container, stored_name);
        let (name, field, layout) = match found {
            Some(found) => {
                let num_heads = self.num_heads(found.layout);
                let layout = StoredLayout::new(found.layout, self.container, num_heads);
                (found.name, Some(found.field), layout)
            }
            None => (stored_name.to_owned(), None, StoredLayout::SAME),
        };
        let shape = layout
            .shape(&stored.shape)
            .ok_or_else(|| ModelError::ImpossibleShape {
                path: self.path.to_path_buf(),
                name: stored_name.to_owned(),
                found: stored.shape.iter().map(|&size| size as u64).collect(),
            })?;
        let entry = Entry {
            stored_name: stored_name.to_owned(),
            stored_shape: stored.shape,
            info: TensorInfo {
                shape,
                dtype: stored.dtype,
            },
            layout,
            field,
        };
        Ok((name, entry))
    }

    /// The heads that the rows of a tensor are divided into; 0 if they are not.
    fn num_heads(&self, layout: Layout) -> usize {
        let key = match layout {
            Layout::Rotary(Heads::Query) | Layout::ByHead => "num_attention_heads",
            Layout::Rotary(Heads::KeyValue) => "num_key_value_heads",
            _ => return 0,
        };
        let num_heads = self.config.get(key).and_then(Value::as_u64);
        num_heads.map_or(0, |num_heads| usize::try_from(num_heads).unwrap_or(0))
    }
}
