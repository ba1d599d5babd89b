//! A byte-level tokenizer from the `vocab.json` and `merges.txt` that older folders have in place of `tokenizer.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;
use tokenizers::AddedToken;
use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::error::ModelError;
use crate::files::safetensors_folder::read_json;
use crate::files::tokenizer_checks::{broken, check_merges};

/// Reads the two files; `None` if one is missing, or if the folder is of a class that cuts words by another rule than
/// GPT-2's.
pub(crate) fn read(folder: &Path) -> Result<Option<tokenizers::Tokenizer>, ModelError> {
    let (vocab_path, merges_path) = (folder.join("vocab.json"), folder.join("merges.txt"));
    let named = read_json(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
    let model = read_json(&folder.join("config.json"))?.unwrap_or_default();
    let class = named["tokenizer_class"].as_str().unwrap_or("");
    let is_gpt2 = class.starts_with("GPT2Tokenizer") || model["model_type"] == "gpt2";
    let Some(vocab) = read_json(&vocab_path)?.filter(|_| is_gpt2) else {
        return Ok(None);
    };
    let merges = match std::fs::read_to_string(&merges_path) {
        Ok(merges) => merges,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(ModelError::Read {
                path: merges_path,
                source,
            });
        }
    };
    let vocab: Vocab = serde_json::from_value::<BTreeMap<String, u32>>(vocab)
        .map_err(|source| ModelError::Json {
            path: vocab_path,
            source,
        })?
        .into_iter()
        .collect();
    // The first line is a version.
    let lines: Vec<&str> = merges
        .lines()
        .filter(|line| !line.starts_with("#version") && !line.trim().is_empty())
        .collect();
    let pairs = || lines.iter().map(|line| line.split_once(' '));
    check_merges(&merges_path, pairs().zip(&lines), "", |token| {
        vocab.contains_key(token)
    })?;
    let merges = pairs()
        .flatten()
        .map(|(left, right)| (left.to_owned(), right.to_owned()))
        .collect();
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .build()
        .map_err(|source| broken(&merges_path, source))?;
    let mut inner = tokenizers::Tokenizer::new(model);
    let add_prefix_space = named["add_prefix_space"].as_bool().unwrap_or(false);
    inner
        .with_pre_tokenizer(Some(ByteLevel::new(add_prefix_space, true, true)))
        .with_decoder(Some(ByteLevelDecoder::default()));
    let special: BTreeSet<&str> = ["bos_token", "eos_token", "unk_token", "pad_token"]
        .into_iter()
        .filter_map(|key| spelling(&named[key]))
        .collect();
    let special = special
        .into_iter()
        .map(|token| AddedToken::from(token, true).normalized(false));
    inner
        .add_special_tokens(special)
        .map_err(|source| broken(&merges_path, source))?;
    Ok(Some(inner))
}

/// A token: plain, or as an object with a `content`.
fn spelling(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}
