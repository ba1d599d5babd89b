//! Text to token ids and back, behind an interface of our own.
//!
//! The work is done by the `tokenizers` crate. A tokenizer comes from a `tokenizer.json` or, for a
//! GGUF file, is rebuilt from metadata by `tokenizer_gguf`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::data::TokenisedText;
use crate::error::ModelError;
use crate::files::safetensors_folder::read_json;
use crate::files::tokenizer_checks::{broken, check_json_merges};
use crate::files::tokenizer_files;

/// A model's vocabulary and its rules.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: SpecialTokenIds,
    vocab_size: usize,
    /// Rows of the model's embedding, if some token has none.
    num_rows: Option<usize>,
}

/// The ids that steer a model rather than spell text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokenIds {
    /// Begins a text.
    pub bos: Option<u32>,
    /// Each of these ends a text; the first is the usual one.
    pub eos: Vec<u32>,
    /// Fills up shorter rows of a batch.
    pub pad: Option<u32>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and the special ids that the configuration files of the folder name.
    ///
    /// # Errors
    /// When a file is missing or broken, or names a token that is not in the vocabulary.
    pub fn from_folder(folder: &Path) -> Result<Self, ModelError> {
        let path = folder.join("tokenizer.json");
        let inner = match read_json(&path)? {
            Some(json) => from_json(&path, json)?,
            None => tokenizer_files::read(folder)?.ok_or_else(|| ModelError::FolderIncomplete {
                folder: folder.to_path_buf(),
                file: "tokenizer.json",
            })?,
        };
        let special = special_ids(folder, &inner)?;
        Self::checked(&path, inner, special)
    }

    /// Wraps a tokenizer, making sure that it never truncates or pads and that its ids exist.
    pub(crate) fn checked(
        path: &Path,
        mut inner: tokenizers::Tokenizer,
        special: SpecialTokenIds,
    ) -> Result<Self, ModelError> {
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|source| broken(path, source))?;
        let highest_id = inner.get_vocab(true).into_values().max();
        let vocab_size = highest_id.map_or(0, |id| id as usize + 1);
        let all = [("bos", special.bos), ("pad", special.pad)]
            .into_iter()
            .filter_map(|(role, id)| Some((role, id?)))
            .chain(special.eos.iter().map(|&id| ("eos", id)));
        for (role, token_id) in all {
            if token_id as usize >= vocab_size {
                return Err(ModelError::SpecialTokenOutsideVocab {
                    path: path.to_path_buf(),
                    role,
                    token_id,
                    vocab_size,
                });
            }
        }
        Ok(Self {
            inner,
            special,
            vocab_size,
            num_rows: None,
        })
    }

    /// One more than the largest token id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The same tokenizer for a model with this many embedding rows. Tokens that were added to the vocabulary may have
    /// none, as in some published models: a text that uses one is refused.
    ///
    /// # Errors
    /// [`ModelError::VocabTooLarge`] with both sizes if the vocabulary itself does not fit.
    pub fn for_model(self, num_rows: usize) -> Result<Self, ModelError> {
        if self.vocab_size <= num_rows {
            return Ok(self);
        }
        let highest_id = self.inner.get_vocab(false).into_values().max();
        let vocab_size = highest_id.map_or(0, |id| id as usize + 1);
        if vocab_size > num_rows {
            return Err(ModelError::VocabTooLarge {
                tokenizer: vocab_size,
                model: num_rows,
            });
        }
        let has_row = |id: &u32| (*id as usize) < num_rows;
        Ok(Self {
            special: SpecialTokenIds {
                bos: self.special.bos.filter(has_row),
                eos: self.special.eos.into_iter().filter(has_row).collect(),
                pad: self.special.pad.filter(has_row),
            },
            num_rows: Some(num_rows),
            ..self
        })
    }

    /// The ids of an encoding, all of which the model has embeddings for.
    fn known(&self, token_ids: &[u32]) -> Result<Vec<u32>, ModelError> {
        if let Some(num_rows) = self.num_rows
            && let Some(&token_id) = token_ids.iter().find(|&&id| id as usize >= num_rows)
        {
            return Err(ModelError::TokenWithoutRow { token_id, num_rows });
        }
        Ok(token_ids.to_vec())
    }

    /// The ids that steer the model.
    pub fn special_token_ids(&self) -> &SpecialTokenIds {
        &self.special
    }

    /// The id that begins a text, if the model has one.
    pub fn bos_token_id(&self) -> Option<u32> {
        self.special.bos
    }

    /// Whether this id ends a text.
    pub fn is_eos(&self, token_id: u32) -> bool {
        self.special.eos.contains(&token_id)
    }

    /// The id to pad with: the model's own or, where it has none, one that is never mistaken for
    /// text. Padding is always masked, so only the embedding lookup sees it.
    pub fn pad_token_id(&self) -> u32 {
        let eos = self.special.eos.first().copied();
        self.special.pad.or(eos).or(self.special.bos).unwrap_or(0)
    }

    /// The ids of a text, nothing added. Special tokens spelled out in the text are recognised.
    ///
    /// # Errors
    /// [`ModelError::Encode`], for tokenizers whose rules fail on some texts.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self.inner.encode_fast(text, false).map_err(failed)?;
        self.known(encoding.get_ids())
    }

    /// The ids of a text with the model's special tokens around it, such as a beginning-of-text token.
    ///
    /// # Errors
    /// [`ModelError::Encode`], for tokenizers whose rules fail on some texts.
    pub fn encode_with_special_tokens(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self.inner.encode_fast(text, true).map_err(failed)?;
        self.known(encoding.get_ids())
    }

    /// [`encode`](Self::encode), and where in the text every token ends; for bits per byte.
    ///
    /// # Errors
    ///
    /// When the text cannot be encoded.
    pub fn encode_with_ends(&self, text: &str) -> Result<TokenisedText, ModelError> {
        let encoding = self.inner.encode(text, false).map_err(failed)?;
        let byte_ends = encoding.get_offsets().iter().map(|&(_, end)| end);
        Ok(TokenisedText::new(
            self.known(encoding.get_ids())?,
            byte_ends.collect(),
        ))
    }

    /// [`encode`](Self::encode) of many texts, on all cores.
    ///
    /// # Errors
    /// [`ModelError::Encode`], for tokenizers whose rules fail on some texts.
    pub fn encode_batch(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>, ModelError> {
        let encodings = self
            .inner
            .encode_batch_fast(texts.to_vec(), false)
            .map_err(failed)?;
        encodings
            .iter()
            .map(|encoding| self.known(encoding.get_ids()))
            .collect()
    }

    /// The text of some ids; special tokens are left out.
    ///
    /// # Errors
    /// [`ModelError::Encode`], for tokenizers whose rules fail on some ids.
    pub fn decode(&self, token_ids: &[u32]) -> Result<String, ModelError> {
        self.inner.decode(token_ids, true).map_err(failed)
    }

    /// The text of some ids; special tokens are spelled out.
    ///
    /// # Errors
    /// [`ModelError::Encode`], for tokenizers whose rules fail on some ids.
    pub fn decode_with_special_tokens(&self, token_ids: &[u32]) -> Result<String, ModelError> {
        self.inner.decode(token_ids, false).map_err(failed)
    }

    /// How a token is spelled inside the vocabulary.
    pub fn token(&self, token_id: u32) -> Option<String> {
        self.inner.id_to_token(token_id)
    }

    /// The id of a token as spelled inside the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The whole tokenizer as the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`ModelError::Encode`], for parts that cannot be written.
    pub fn to_json(&self) -> Result<String, ModelError> {
        self.inner.to_string(false).map_err(failed)
    }
}

/// Text that grows token by token. Holds back bytes that are not yet a whole character.
#[derive(Debug, Clone, Default)]
pub struct TextStream {
    /// Ids since the last but one piece of text; the pieces before are needed because a token may
    /// read differently at the start of a text.
    token_ids: Vec<u32>,
    /// How many of these have been returned.
    num_given: usize,
}

impl TextStream {
    /// Adds a token; returns the text that it completes, possibly empty.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn push(&mut self, token_id: u32, tokenizer: &Tokenizer) -> Result<String, ModelError> {
        self.token_ids.push(token_id);
        let given = tokenizer.decode(&self.token_ids[..self.num_given])?;
        let text = tokenizer.decode(&self.token_ids)?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) || text.len() <= given.len() {
            return Ok(String::new());
        }
        let fresh = new_part(&given, &text);
        self.token_ids.drain(..self.num_given);
        self.num_given = self.token_ids.len();
        Ok(fresh)
    }

    /// Ends the text; returns what was held back, with broken characters replaced.
    ///
    /// # Errors
    /// Those of [`Tokenizer::decode`].
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, ModelError> {
        let given = tokenizer.decode(&self.token_ids[..self.num_given])?;
        let text = tokenizer.decode(&self.token_ids)?;
        *self = Self::default();
        Ok(new_part(&given, &text))
    }
}

fn new_part(given: &str, text: &str) -> String {
    match text.strip_prefix(given) {
        Some(fresh) => fresh.to_owned(),
        // Some decoders change earlier text; what cannot be taken back is not repeated.
        None => text.chars().skip(given.chars().count()).collect(),
    }
}

fn from_json(path: &Path, json: Value) -> Result<tokenizers::Tokenizer, ModelError> {
    check_json_merges(path, &json["model"])?;
    serde_json::from_value(json).map_err(|source| broken(path, source.into()))
}

/// The ids named by `config.json` and `generation_config.json`, else the tokens named by
/// `tokenizer_config.json`.
fn special_ids(
    folder: &Path,
    inner: &tokenizers::Tokenizer,
) -> Result<SpecialTokenIds, ModelError> {
    let read = |file: &str| -> Result<SpecialSource, ModelError> {
        let path = folder.join(file);
        let json = read_json(&path)?.unwrap_or_default();
        Ok(SpecialSource { path, json })
    };
    let generation = read("generation_config.json")?;
    let model = read("config.json")?;
    let named = read("tokenizer_config.json")?;

    let first = |id_key: &str, token_key: &str| -> Result<Option<u32>, ModelError> {
        let by_token = named
            .token(token_key)
            .and_then(|token| inner.token_to_id(&token));
        let from_model = model.ids(id_key)?.first().copied();
        let from_generation = generation.ids(id_key)?.first().copied();
        Ok(by_token.or(from_generation).or(from_model))
    };
    // Every end that any file names ends a text; the tokenizer's own is the usual one.
    let by_token = named
        .token("eos_token")
        .and_then(|token| inner.token_to_id(&token));
    let mut eos: Vec<u32> = Vec::new();
    let all = by_token
        .into_iter()
        .chain(generation.ids("eos_token_id")?)
        .chain(model.ids("eos_token_id")?);
    for token_id in all {
        if !eos.contains(&token_id) {
            eos.push(token_id);
        }
    }
    Ok(SpecialTokenIds {
        bos: first("bos_token_id", "bos_token")?,
        eos,
        pad: first("pad_token_id", "pad_token")?,
    })
}

struct SpecialSource {
    path: PathBuf,
    json: Value,
}

impl SpecialSource {
    /// One id, or several, or none.
    fn ids(&self, key: &str) -> Result<Vec<u32>, ModelError> {
        let values = match self.json.get(key) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
        };
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        // Some folders write -1 for "no such token".
        let values = values.iter().filter(|&value| value.as_i64() != Some(-1));
        values
            .map(|value| {
                id(value).ok_or_else(|| ModelError::ConfigValue {
                    path: self.path.clone(),
                    key: key.to_owned(),
                    expected: "a token id or a list of token ids",
                    found: value.to_string(),
                })
            })
            .collect()
    }

    /// A token by its spelling: plain, or as an object with a `content`.
    fn token(&self, key: &str) -> Option<String> {
        let value = self.json.get(key)?;
        let spelled = value.as_str().or_else(|| value.get("content")?.as_str());
        spelled.map(str::to_owned)
    }
}

fn failed(source: Box<dyn std::error::Error + Send + Sync>) -> ModelError {
    ModelError::Encode { source }
}
