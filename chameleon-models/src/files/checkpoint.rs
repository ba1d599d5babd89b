//! Where a model's tensors and configuration come from, whatever the kind of file.
//!
//! A [`Checkpoint`] answers in Hugging Face's words: names, shapes and layouts are those of a
//! `*ForCausalLM` checkpoint, values are `f32`. It knows nothing of Burn or of any model's code.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;

use crate::error::ModelError;
use crate::families::packed::PackedMatrix;
use crate::files::file_bytes::FileBytes;
use crate::files::gguf::GgufFile;
use crate::files::gguf_translation;
use crate::files::safetensors_folder::SafetensorsFolder;
use crate::files::tensor_dtype::TensorDtype;
use crate::files::tokenizer::Tokenizer;
use crate::files::tokenizer_gguf;

/// A family of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// Llama 2 and 3, SmolLM2, TinyLlama and others of the same build.
    Llama,
    /// GPT-2.
    Gpt2,
}

impl Architecture {
    /// All families, for messages.
    pub const NAMES: &'static str = "llama and gpt2";

    /// The name in `model_type` and in `general.architecture`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Gpt2 => "gpt2",
        }
    }

    /// The family of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Llama, Self::Gpt2]
            .into_iter()
            .find(|architecture| architecture.name() == name)
    }

    /// What Hugging Face puts before every tensor name but the head's; base models leave it out.
    fn prefix(self) -> &'static str {
        match self {
            Self::Llama => "model.",
            Self::Gpt2 => "transformer.",
        }
    }

    /// Whether a tensor holds no weights but a table that the model computes for itself.
    fn is_buffer(self, name: &str) -> bool {
        match self {
            Self::Llama => name.ends_with(".rotary_emb.inv_freq"),
            Self::Gpt2 => name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"),
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A model on disk: configuration, and tensors that are read one by one.
#[derive(Debug)]
pub struct Checkpoint {
    architecture: Architecture,
    config: Value,
    tensors: BTreeMap<String, Entry>,
    storage: Storage,
}

/// What a tensor looks like once read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Outermost axis first; a linear layer of PyTorch is `[out, in]`.
    pub shape: Vec<usize>,
    /// How the values are stored; reading always gives `f32`.
    pub dtype: TensorDtype,
}

#[derive(Debug)]
struct Entry {
    stored_name: String,
    info: TensorInfo,
    layout: StoredLayout,
}

#[derive(Debug)]
enum Storage {
    Gguf(GgufFile),
    Safetensors(SafetensorsFolder),
}

/// How the stored layout differs from Hugging Face's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredLayout {
    /// Not at all.
    AsIs,
    /// The two axes are swapped.
    Transposed,
    /// Within each head, row `i` and row `i + head_dim / 2` are stored as neighbours.
    RotaryPairs { num_heads: usize },
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
        let prefix = architecture.prefix();
        let has_prefix = folder.tensors().keys().any(|name| name.starts_with(prefix));
        let mut tensors = BTreeMap::new();
        for (stored_name, info) in folder.tensors() {
            if architecture.is_buffer(stored_name) {
                continue;
            }
            let name = if has_prefix || stored_name.starts_with("lm_head.") {
                stored_name.clone()
            } else {
                format!("{prefix}{stored_name}")
            };
            let entry = Entry {
                stored_name: stored_name.clone(),
                info: info.clone(),
                layout: StoredLayout::AsIs,
            };
            tensors.insert(name, entry);
        }
        Ok(Self {
            architecture,
            config,
            tensors,
            storage: Storage::Safetensors(folder),
        })
    }

    /// Opens a GGUF file.
    ///
    /// # Errors
    /// When the file cannot be read or is broken, or the family is not a known one.
    pub fn from_gguf(path: &Path) -> Result<Self, ModelError> {
        Self::translate(GgufFile::open(path)?)
    }

    /// Reads a GGUF file that is in memory; `path` appears in messages.
    ///
    /// # Errors
    /// Those of [`from_gguf`](Self::from_gguf).
    pub fn from_gguf_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, ModelError> {
        Self::translate(GgufFile::parse(FileBytes::from_vec(path, bytes))?)
    }

    fn translate(file: GgufFile) -> Result<Self, ModelError> {
        let architecture = gguf_translation::architecture(&file)?;
        let config = gguf_translation::config(&file, architecture)?;
        let head_is_copy = gguf_translation::tied(&file);
        let mut tensors = BTreeMap::new();
        for (stored_name, stored) in file.tensors() {
            let consumed = stored_name == "rope_freqs.weight" // part of the configuration
                || (head_is_copy && stored_name == "output.weight");
            if consumed {
                continue;
            }
            let translated = gguf_translation::tensor(architecture, &config, stored_name);
            let (name, layout) = match translated {
                Some(translated) => (translated.name, translated.layout),
                None => (stored_name.clone(), StoredLayout::AsIs),
            };
            let shape = layout
                .shape(&stored.shape)
                .ok_or_else(|| ModelError::ImpossibleShape {
                    path: file.path().to_path_buf(),
                    name: stored_name.clone(),
                    found: stored.shape.iter().map(|&size| size as u64).collect(),
                })?;
            let entry = Entry {
                stored_name: stored_name.clone(),
                info: TensorInfo {
                    shape,
                    dtype: stored.dtype,
                },
                layout,
            };
            if tensors.insert(name, entry).is_some() {
                return Err(ModelError::DuplicateName {
                    path: file.path().to_path_buf(),
                    name: stored_name.clone(),
                });
            }
        }
        Ok(Self {
            architecture,
            config,
            tensors,
            storage: Storage::Gguf(file),
        })
    }

    /// The file or folder, for messages.
    pub fn path(&self) -> &Path {
        match &self.storage {
            Storage::Gguf(file) => file.path(),
            Storage::Safetensors(folder) => folder.path(),
        }
    }

    /// The family.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The configuration, in the words of a Hugging Face `config.json`.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// The file that holds the configuration, for messages.
    pub fn config_path(&self) -> PathBuf {
        match &self.storage {
            Storage::Gguf(file) => file.path().to_path_buf(),
            Storage::Safetensors(folder) => folder.path().join("config.json"),
        }
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &TensorInfo)> {
        self.tensors
            .iter()
            .map(|(name, entry)| (name.as_str(), &entry.info))
    }

    /// What one tensor looks like.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name).map(|entry| &entry.info)
    }

    /// The values of a tensor, row by row, in the shape that [`tensor`](Self::tensor) tells.
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
        let stored = match &self.storage {
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
        Ok(entry.layout.restore(stored, &entry.info.shape))
    }

    /// A weight as the file packs it, if it does so in a way that can be multiplied with.
    pub(crate) fn packed(&self, name: &str) -> Option<PackedMatrix> {
        let Storage::Gguf(file) = &self.storage else {
            return None;
        };
        let entry = self.tensors.get(name)?;
        let (tensor, bytes) = file.stored(&entry.stored_name)?;
        let &[num_rows, row_len] = tensor.shape.as_slice() else {
            return None;
        };
        let shape = [num_rows, row_len];
        match entry.layout {
            StoredLayout::AsIs => PackedMatrix::read(tensor.dtype, bytes, shape, |row| row),
            StoredLayout::RotaryPairs { num_heads } => {
                let head_dim = num_rows / num_heads;
                PackedMatrix::read(tensor.dtype, bytes, shape, |row| {
                    let (head, within) = (row / head_dim, row % head_dim);
                    let half = head_dim / 2;
                    head * head_dim + 2 * (within % half) + within / half
                })
            }
            StoredLayout::Transposed => None,
        }
    }

    /// The tokenizer that belongs to the model; its vocabulary is checked against the embedding.
    ///
    /// # Errors
    /// When it is missing, broken, of an unknown kind, or has more tokens than the embedding.
    pub fn tokenizer(&self) -> Result<Tokenizer, ModelError> {
        let tokenizer = match &self.storage {
            Storage::Gguf(file) => tokenizer_gguf::read(file)?,
            Storage::Safetensors(folder) => Tokenizer::from_folder(folder.path())?,
        };
        if let Some(vocab_size) = self.config.get("vocab_size").and_then(Value::as_u64) {
            tokenizer.check_fits(usize::try_from(vocab_size).unwrap_or(usize::MAX))?;
        }
        Ok(tokenizer)
    }

    /// The chat template, if the model has one.
    ///
    /// # Errors
    /// When the file that should hold it cannot be read.
    pub fn chat_template(&self) -> Result<Option<String>, ModelError> {
        match &self.storage {
            Storage::Gguf(file) => Ok(file.text("tokenizer.chat_template")?.map(str::to_owned)),
            Storage::Safetensors(folder) => folder.chat_template(),
        }
    }
}

impl StoredLayout {
    /// The shape once restored; `None` when the layout cannot be that of the stored shape.
    fn shape(self, stored: &[usize]) -> Option<Vec<usize>> {
        match self {
            Self::AsIs => Some(stored.to_vec()),
            Self::Transposed => match *stored {
                [rows, columns] => Some(vec![columns, rows]),
                _ => None,
            },
            Self::RotaryPairs { num_heads } => {
                let whole_pairs = num_heads
                    .checked_mul(2)
                    .is_some_and(|pairs| pairs > 0 && stored[0].is_multiple_of(pairs));
                whole_pairs.then(|| stored.to_vec())
            }
        }
    }

    fn restore(self, stored: Vec<f32>, shape: &[usize]) -> Vec<f32> {
        match self {
            Self::AsIs => stored,
            Self::Transposed => transpose(&stored, shape[0], shape[1]),
            Self::RotaryPairs { num_heads } => split_rotary_pairs(&stored, shape[0], num_heads),
        }
    }
}

/// `[columns, rows]` to `[rows, columns]`.
fn transpose(stored: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut restored = Vec::with_capacity(stored.len());
    for row in 0..rows {
        restored.extend((0..columns).map(|column| stored[column * rows + row]));
    }
    restored
}

/// Moves the rows of each head from pairs (0, 0 + half, 1, 1 + half, ..) to halves (0, 1, .., 0 + half, ..).
fn split_rotary_pairs(stored: &[f32], num_rows: usize, num_heads: usize) -> Vec<f32> {
    let row_len = stored.len() / num_rows;
    let head_dim = num_rows / num_heads;
    let mut restored = Vec::with_capacity(stored.len());
    for head in stored.chunks_exact(head_dim * row_len) {
        for half in 0..2 {
            for pair in head.chunks_exact(2 * row_len) {
                restored.extend_from_slice(&pair[half * row_len..][..row_len]);
            }
        }
    }
    restored
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotary_pairs_become_halves_within_each_head() {
        // Two heads of four rows, one value a row; stored as pairs of (i, i + 2).
        let stored = [0., 2., 1., 3., 10., 12., 11., 13.];
        let restored = split_rotary_pairs(&stored, 8, 2);
        assert_eq!(restored, [0., 1., 2., 3., 10., 11., 12., 13.]);
    }

    #[test]
    fn transposing_swaps_the_axes() {
        assert_eq!(
            transpose(&[1., 2., 3., 4., 5., 6.], 3, 2),
            [1., 4., 2., 5., 3., 6.]
        );
    }
}
