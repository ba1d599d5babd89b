//! A tokenizer rebuilt from the metadata of a GGUF file.
//!
//! The file holds tokens, merges or scores, and the *name* of the rule that splits text before
//! merging; the rules themselves are here. They were read off the published `tokenizer.json` of the
//! models, because the names' meaning is fixed nowhere else.

use std::path::Path;

use tokenizers::AddedToken;
use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, BpeBuilder, Merges, Vocab};
use tokenizers::normalizers::replace::Replace;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::processors::template::{SpecialToken, TemplateProcessing};

use crate::error::ModelError;
use crate::files::gguf::{GgufFile, MetadataValue};
use crate::files::split_rule::SplitRule;
use crate::files::tokenizer::{SpecialTokenIds, Tokenizer};
use crate::files::tokenizer_checks::{broken, check_merges};

const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";

/// Tokens at which a turn of a conversation ends, in the templates of several families.
const ENDS_OF_TURNS: [&str; 5] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<end_of_turn>",
];

const SPACE_MARK: char = '\u{2581}';

/// Reads the tokenizer out of a file's metadata.
pub(crate) fn read(file: &GgufFile) -> Result<Tokenizer, ModelError> {
    let path = file.path();
    let vocabulary = Vocabulary::read(file)?;
    let special = special_ids(file, &vocabulary)?;
    let mut tokenizer = match file.text(MODEL)? {
        Some("gpt2") => byte_level(file, &vocabulary)?,
        Some("llama") => sentence_piece(file, &vocabulary)?,
        Some(found) => {
            return Err(ModelError::UnsupportedTokenizer {
                path: path.to_path_buf(),
                kind: "model",
                found: found.to_owned(),
                supported: "gpt2 (byte-level) and llama (SentencePiece)",
            });
        }
        None => return Err(file.wrong_value(MODEL, "a text")),
    };
    add_marked_tokens(path, &mut tokenizer.inner, &vocabulary)?;
    if let Some(template) = template(file, &tokenizer, &special, vocabulary.tokens)? {
        tokenizer.inner.with_post_processor(Some(template));
    }
    Tokenizer::checked(path, tokenizer.inner, special)
}

/// Tokens in the order of their ids, and what kind each is.
struct Vocabulary<'a> {
    tokens: &'a [String],
    kinds: &'a [i64],
}

impl<'a> Vocabulary<'a> {
    const UNKNOWN: i64 = 2;
    const CONTROL: i64 = 3;
    const USER_DEFINED: i64 = 4;

    fn read(file: &'a GgufFile) -> Result<Self, ModelError> {
        let tokens = file
            .texts(TOKENS)?
            .ok_or_else(|| file.wrong_value(TOKENS, "a list of texts"))?;
        let kinds: &[i64] = match file.value(TYPES) {
            None => &[],
            Some(MetadataValue::Integers(kinds)) if kinds.len() == tokens.len() => kinds,
            Some(_) => return Err(file.wrong_value(TYPES, "one integer for each token")),
        };
        if u32::try_from(tokens.len()).is_err() {
            return Err(file.wrong_value(TOKENS, "fewer than 2^32 tokens"));
        }
        Ok(Self { tokens, kinds })
    }

    fn kind(&self, id: usize) -> Option<i64> {
        self.kinds.get(id).copied()
    }

    /// Whether a token stands for itself in a text and is never put together from pieces.
    fn is_marked(&self, id: usize) -> bool {
        matches!(self.kind(id), Some(Self::CONTROL | Self::USER_DEFINED))
    }
}

/// A tokenizer, and whether its family begins texts with a token unless the file says otherwise.
struct Rebuilt {
    inner: tokenizers::Tokenizer,
    begins_with_bos: bool,
}

/// Byte-level BPE, as GPT-2 began it: merges are in the file, the splitting rule is named there.
fn byte_level(file: &GgufFile, vocabulary: &Vocabulary) -> Result<Rebuilt, ModelError> {
    let path = file.path();
    let rule = SplitRule::read(file)?;
    let vocab = byte_level_vocab(vocabulary);
    let merges = stored_merges(file)?.ok_or_else(|| file.wrong_value(MERGES, "a list of texts"))?;
    let model = checked_model(path, vocab, merges)?
        .ignore_merges(rule.takes_whole_words())
        .build()
        .map_err(|source| broken(path, source))?;
    let mut inner = tokenizers::Tokenizer::new(model);
    inner
        .with_pre_tokenizer(Some(rule.pre_tokenizer(path)?))
        .with_decoder(Some(ByteLevel::default()));
    Ok(Rebuilt {
        inner,
        begins_with_bos: rule.takes_whole_words(),
    })
}

/// Token spellings to ids. Plain tokens are spelled in the byte alphabet already, but for those of
/// sloppy converters, which are spelled in it here.
fn byte_level_vocab(vocabulary: &Vocabulary) -> Vocab {
    let alphabet = ByteAlphabet::new();
    let with_ids = vocabulary.tokens.iter().zip(0_u32..);
    with_ids
        .map(|(token, id)| {
            if vocabulary.is_marked(id as usize) {
                (token.clone(), id)
            } else {
                (alphabet.spell(token), id)
            }
        })
        .collect()
}

/// `SentencePiece` BPE: merges follow from the scores, unknown characters fall back to bytes.
fn sentence_piece(file: &GgufFile, vocabulary: &Vocabulary) -> Result<Rebuilt, ModelError> {
    let path = file.path();
    let vocab: Vocab = vocabulary.tokens.iter().cloned().zip(0_u32..).collect();
    let merges = match stored_merges(file)? {
        Some(merges) => merges,
        None => merges_from_scores(&vocab, vocabulary.tokens, scores(file, vocabulary.tokens)?),
    };
    let mut builder = checked_model(path, vocab, merges)?
        .fuse_unk(true)
        .byte_fallback(true);
    let unknown =
        (0..vocabulary.tokens.len()).find(|&id| vocabulary.kind(id) == Some(Vocabulary::UNKNOWN));
    if let Some(unknown) = unknown {
        builder = builder.unk_token(vocabulary.tokens[unknown].clone());
    }
    let model = builder.build().map_err(|source| broken(path, source))?;

    let leading_space = file
        .flag("tokenizer.ggml.add_space_prefix")?
        .unwrap_or(true);
    let prepend = if leading_space {
        PrependScheme::First
    } else {
        PrependScheme::Never
    };
    let spaces =
        Replace::new(SPACE_MARK.to_string(), " ").map_err(|source| broken(path, source))?;
    let mut decoders = vec![
        spaces.into(),
        ByteFallback::new().into(),
        Fuse::new().into(),
    ];
    if leading_space {
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    let mut inner = tokenizers::Tokenizer::new(model);
    inner
        .with_pre_tokenizer(Some(Metaspace::new(SPACE_MARK, prepend, false)))
        .with_decoder(Some(DecoderSequence::new(decoders)));
    Ok(Rebuilt {
        inner,
        begins_with_bos: true,
    })
}

/// The printable stand-ins of byte-level BPE: printable bytes are themselves, the others follow
/// from code point 256 on.
struct ByteAlphabet([char; 256]);

impl ByteAlphabet {
    fn new() -> Self {
        let mut spare = 256_u32..;
        Self(std::array::from_fn(|index| {
            let byte = u8::try_from(index).expect("there are 256 bytes");
            match byte {
                0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
                _ => spare
                    .next()
                    .and_then(char::from_u32)
                    .expect("below the surrogates"),
            }
        }))
    }

    fn spell(&self, token: &str) -> String {
        if token.chars().all(|character| self.0.contains(&character)) {
            return token.to_owned();
        }
        token.bytes().map(|byte| self.0[byte as usize]).collect()
    }
}

fn stored_merges(file: &GgufFile) -> Result<Option<Merges>, ModelError> {
    let Some(stored) = file.texts(MERGES)? else {
        return Ok(None);
    };
    let pairs = stored.iter().enumerate().map(|(index, merge)| {
        // A piece may itself begin with a space, so the separator is looked for after its start.
        let separator = merge
            .char_indices()
            .skip(1)
            .find(|(_, character)| *character == ' ');
        match separator {
            Some((at, _)) => Ok((merge[..at].to_owned(), merge[at + 1..].to_owned())),
            None => Err(ModelError::BrokenMerge {
                path: file.path().to_path_buf(),
                index,
                merge: merge.clone(),
            }),
        }
    });
    pairs.collect::<Result<Merges, _>>().map(Some)
}

/// A model of tokens and merges, which are checked.
fn checked_model(path: &Path, vocab: Vocab, merges: Merges) -> Result<BpeBuilder, ModelError> {
    let stored = merges.iter().map(|(left, right)| {
        let pair = (left.as_str(), right.as_str());
        (Some(pair), format!("{left} {right}"))
    });
    check_merges(path, stored, "", |token| vocab.contains_key(token))?;
    Ok(BPE::builder().vocab_and_merges(vocab, merges))
}

fn scores<'a>(file: &'a GgufFile, tokens: &[String]) -> Result<&'a [f32], ModelError> {
    match file.value(SCORES) {
        Some(MetadataValue::Floats(scores)) if scores.len() == tokens.len() => Ok(scores),
        _ => Err(file.wrong_value(SCORES, "one number for each token")),
    }
}

/// Every way to put a token together from two others, best score first; among equals longer pieces
/// first, then in the order of ids. This is the order that Hugging Face's conversion gives.
fn merges_from_scores(vocab: &Vocab, tokens: &[String], scores: &[f32]) -> Merges {
    struct Candidate<'a> {
        left: &'a str,
        right: &'a str,
        score: f32,
        left_len: usize,
        right_len: usize,
    }
    let mut candidates = Vec::new();
    for (token, &score) in tokens.iter().zip(scores) {
        let mut of_token = Vec::new();
        let num_chars = token.chars().count();
        for (left_len, (at, _)) in token.char_indices().enumerate().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(left_id), Some(right_id)) = (vocab.get(left), vocab.get(right)) {
                let right_len = num_chars - left_len;
                let candidate = Candidate {
                    left,
                    right,
                    score,
                    left_len,
                    right_len,
                };
                of_token.push(((left_id, right_id), candidate));
            }
        }
        of_token.sort_by_key(|(ids, _)| *ids);
        candidates.extend(of_token.into_iter().map(|(_, candidate)| candidate));
    }
    candidates.sort_by(|first, second| {
        (second.score.total_cmp(&first.score))
            .then(second.left_len.cmp(&first.left_len))
            .then(second.right_len.cmp(&first.right_len))
    });
    let pairs = candidates.into_iter();
    pairs
        .map(|candidate| (candidate.left.to_owned(), candidate.right.to_owned()))
        .collect()
}

/// Makes control and user-defined tokens match as wholes wherever they appear in a text.
fn add_marked_tokens(
    path: &Path,
    tokenizer: &mut tokenizers::Tokenizer,
    vocabulary: &Vocabulary,
) -> Result<(), ModelError> {
    let of_kind = |kind: i64| {
        let ids = (0..vocabulary.tokens.len()).filter(move |&id| vocabulary.kind(id) == Some(kind));
        ids.map(|id| vocabulary.tokens[id].as_str())
            .filter(|token| !token.is_empty())
    };
    let control = of_kind(Vocabulary::CONTROL)
        .chain(of_kind(Vocabulary::UNKNOWN))
        .map(|token| AddedToken::from(token, true).normalized(false));
    let user_defined = of_kind(Vocabulary::USER_DEFINED)
        .map(|token| AddedToken::from(token, false).normalized(false));
    tokenizer
        .add_special_tokens(control)
        .map_err(|source| broken(path, source))?;
    tokenizer
        .add_tokens(user_defined)
        .map_err(|source| broken(path, source))?;
    Ok(())
}

fn special_ids(file: &GgufFile, vocabulary: &Vocabulary) -> Result<SpecialTokenIds, ModelError> {
    let tokens = vocabulary.tokens;
    let read = |role: &'static str, key: &str| -> Result<Option<u32>, ModelError> {
        match file.token_id(key)? {
            Some(token_id) if token_id as usize >= tokens.len() => {
                Err(ModelError::SpecialTokenOutsideVocab {
                    path: file.path().to_path_buf(),
                    role,
                    token_id,
                    vocab_size: tokens.len(),
                })
            }
            found => Ok(found),
        }
    };
    let mut eos = Vec::new();
    for key in [
        "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id",
    ] {
        if let Some(token_id) = read("eos", key)?.filter(|token_id| !eos.contains(token_id)) {
            eos.push(token_id);
        }
    }
    // Many files name the end of a text and not that of a turn, at which chat models stop.
    let is_marked = |&(token, id): &(&String, u32)| {
        ENDS_OF_TURNS.contains(&token.as_str()) && vocabulary.is_marked(id as usize)
    };
    let ends = tokens.iter().zip(0_u32..).filter(is_marked);
    for (_, token_id) in ends {
        if !eos.contains(&token_id) {
            eos.push(token_id);
        }
    }
    Ok(SpecialTokenIds {
        bos: read("bos", "tokenizer.ggml.bos_token_id")?,
        eos,
        pad: read("pad", "tokenizer.ggml.padding_token_id")?,
    })
}

/// What goes around a text when special tokens are asked for; `None` for nothing.
fn template(
    file: &GgufFile,
    tokenizer: &Rebuilt,
    special: &SpecialTokenIds,
    tokens: &[String],
) -> Result<Option<TemplateProcessing>, ModelError> {
    let add_bos = file
        .flag("tokenizer.ggml.add_bos_token")?
        .unwrap_or(tokenizer.begins_with_bos);
    let add_eos = file.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    let mut pieces = vec!["$A"];
    let mut named = Vec::new();
    let path = file.path();
    let mut name = |name: &str, token_id: u32| {
        let token = tokens[token_id as usize].clone();
        SpecialToken::new(name.to_owned(), vec![token_id], vec![token])
            .map(|token| named.push(token))
            .map_err(|source| broken(path, source))
    };
    if let Some(bos) = special.bos.filter(|_| add_bos) {
        name("bos", bos)?;
        pieces.insert(0, "bos");
    }
    if let Some(&eos) = special.eos.first().filter(|_| add_eos) {
        name("eos", eos)?;
        pieces.push("eos");
    }
    if named.is_empty() {
        return Ok(None);
    }
    let built = TemplateProcessing::builder()
        .try_single(pieces.join(" "))
        .map_err(|problem| broken(path, problem.into()))?
        .special_tokens(named)
        .build()
        .map_err(|source| broken(path, source.into()))?;
    Ok(Some(built))
}
