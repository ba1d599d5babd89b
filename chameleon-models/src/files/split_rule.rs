//! The rules by which byte-level tokenizers cut text before merging; GGUF files hold their names.

use std::path::Path;

use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::{PreTokenizerWrapper, SplitDelimiterBehavior};

use crate::error::ModelError;
use crate::files::gguf::GgufFile;
use crate::files::tokenizer_checks::broken;

const PRE: &str = "tokenizer.ggml.pre";

/// How text is cut before merging.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SplitRule {
    Gpt2,
    SmolLm,
    Llama3,
    /// Llama 3's, but words that are tokens are merged from pieces as others are.
    Dbrx,
    Qwen2,
    Tekken,
    Gpt4O,
}

impl SplitRule {
    const NAMES: &'static str = "gpt-2, default, olmo, smollm, refact, starcoder, llama-bpe, llama3, llama-v3, dbrx, \
         smaug-bpe, qwen2, tekken and gpt-4o";
    const LLAMA3: &'static str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const QWEN2: &'static str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    const TEKKEN: &'static str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const GPT_4O: &'static str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    /// The rule that a file names.
    pub(crate) fn read(file: &GgufFile) -> Result<Self, ModelError> {
        match file.text(PRE)? {
            None | Some("gpt-2" | "default" | "olmo") => Ok(Self::Gpt2),
            Some("smollm" | "refact" | "starcoder") => Ok(Self::SmolLm),
            Some("llama-bpe" | "llama3" | "llama-v3") => Ok(Self::Llama3),
            Some("dbrx" | "smaug-bpe") => Ok(Self::Dbrx),
            Some("qwen2") => Ok(Self::Qwen2),
            Some("tekken") => Ok(Self::Tekken),
            Some("gpt-4o") => Ok(Self::Gpt4O),
            Some(found) => Err(ModelError::UnsupportedTokenizer {
                path: file.path().to_path_buf(),
                kind: "pre-tokenizer",
                found: found.to_owned(),
                supported: Self::NAMES,
            }),
        }
    }

    /// Whether a word that is a token is never cut, and texts begin with a token; both came with the same models.
    pub(crate) fn takes_whole_words(self) -> bool {
        matches!(self, Self::Llama3 | Self::Tekken)
    }

    pub(crate) fn pre_tokenizer(self, path: &Path) -> Result<PreTokenizerWrapper, ModelError> {
        let words_then_bytes = ByteLevel::new(false, true, true);
        let bytes_only = ByteLevel::new(false, true, false);
        let split = |pattern: &str| {
            let pattern = SplitPattern::Regex(pattern.to_owned());
            Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
                .map_err(|source| broken(path, source))
        };
        let sequence = |parts| PreTokenizerWrapper::Sequence(Sequence::new(parts));
        Ok(match self {
            Self::Gpt2 => words_then_bytes.into(),
            Self::SmolLm => sequence(vec![Digits::new(true).into(), words_then_bytes.into()]),
            Self::Llama3 | Self::Dbrx => {
                sequence(vec![split(Self::LLAMA3)?.into(), bytes_only.into()])
            }
            Self::Tekken => sequence(vec![split(Self::TEKKEN)?.into(), bytes_only.into()]),
            Self::Gpt4O => sequence(vec![split(Self::GPT_4O)?.into(), bytes_only.into()]),
            Self::Qwen2 => sequence(vec![split(Self::QWEN2)?.into(), bytes_only.into()]),
        })
    }
}
