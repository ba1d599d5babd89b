//! Tokenizers rebuilt from GGUF metadata against what transformers makes of the same files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use chameleon_models::{Checkpoint, ModelError, TextStream, Tokenizer};
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Case {
    text: String,
    token_ids: Vec<u32>,
    with_special_tokens: Vec<u32>,
    decoded: String,
}

pub(crate) const KINDS: [&str; 5] = ["gpt2", "smollm", "llama3", "qwen2", "sentence_piece"];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gguf_tokenizers")
}

pub(crate) fn tokenizer(kind: &str) -> Tokenizer {
    let checkpoint = Checkpoint::open(&folder().join(format!("{kind}.gguf"))).unwrap();
    checkpoint.tokenizer().unwrap()
}

fn streamed(tokenizer: &Tokenizer, token_ids: &[u32]) -> String {
    let mut stream = TextStream::default();
    let mut text = String::new();
    for &token_id in token_ids {
        text += &stream.push(token_id, tokenizer).unwrap();
    }
    text + &stream.finish(tokenizer).unwrap()
}

#[test]
fn ids_and_texts_are_those_of_transformers() {
    let json = std::fs::read(folder().join("expected.json")).unwrap();
    let expected: BTreeMap<String, Vec<Case>> = serde_json::from_slice(&json).unwrap();
    for kind in KINDS {
        let tokenizer = tokenizer(kind);
        for case in &expected[kind] {
            let text = &case.text;
            assert_eq!(
                tokenizer.encode(text).unwrap(),
                case.token_ids,
                "{kind}: {text:?}"
            );
            let with_special = tokenizer.encode_with_special_tokens(text).unwrap();
            assert_eq!(with_special, case.with_special_tokens, "{kind}: {text:?}");
            assert_eq!(
                tokenizer.decode(&case.token_ids).unwrap(),
                case.decoded,
                "{kind}: {text:?}"
            );
            assert_eq!(
                streamed(&tokenizer, &case.token_ids),
                case.decoded,
                "{kind}: {text:?}"
            );
        }
        let texts: Vec<&str> = expected[kind]
            .iter()
            .map(|case| case.text.as_str())
            .collect();
        let one_by_one: Vec<_> = texts
            .iter()
            .map(|text| tokenizer.encode(text).unwrap())
            .collect();
        assert_eq!(tokenizer.encode_batch(&texts).unwrap(), one_by_one);
    }
}

#[test]
fn a_tokenizer_survives_tokenizer_json() {
    for kind in KINDS {
        let original = tokenizer(kind);
        let folder = tempfile::tempdir().unwrap();
        let json = original.to_json().unwrap();
        chameleon_models::files::atomic_file::write(
            &folder.path().join("tokenizer.json"),
            json.as_bytes(),
        )
        .unwrap();
        chameleon_models::files::atomic_file::write(
            &folder.path().join("config.json"),
            br#"{"bos_token_id": 1, "eos_token_id": [2, 0]}"#,
        )
        .unwrap();
        let reread = Tokenizer::from_folder(folder.path()).unwrap();
        assert_eq!(reread.special_token_ids().eos, [2, 0]);
        assert_eq!(reread.bos_token_id(), Some(1));
        assert_eq!(reread.vocab_size(), original.vocab_size());
        let text = "It's 1234 <|im_end|> Chamäleon 😀";
        assert_eq!(reread.encode(text).unwrap(), original.encode(text).unwrap());
    }
}

#[test]
fn a_vocabulary_larger_than_the_embedding_is_an_error_with_both_sizes() {
    let error = tokenizer("gpt2").for_model(100).unwrap_err();
    assert!(
        matches!(
            error,
            ModelError::VocabTooLarge {
                tokenizer: 420..,
                model: 100
            }
        ),
        "{error}"
    );
}

#[test]
fn a_merge_that_makes_no_token_is_an_error_and_not_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let json = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "vocab": {"aa": 0, "bb": 1}, "merges": [["aa", "bb"]]}}"#;
    chameleon_models::files::atomic_file::write(
        &folder.path().join("tokenizer.json"),
        json.as_bytes(),
    )
    .unwrap();
    let error = Tokenizer::from_folder(folder.path()).unwrap_err();
    assert!(
        matches!(error, ModelError::BrokenMerge { index: 0, .. }),
        "{error}"
    );
}

proptest! {
    #[test]
    fn byte_level_text_survives_a_round_trip_and_streams_as_it_reads(text in "\\PC{0,40}|[ \\n\\t0-9a-z']{0,40}") {
        let tokenizer = tokenizer("smollm");
        let token_ids = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(&tokenizer.decode_with_special_tokens(&token_ids).unwrap(), &text);
        prop_assert_eq!(streamed(&tokenizer, &token_ids), tokenizer.decode(&token_ids).unwrap());
    }

    #[test]
    fn any_ids_stream_as_they_read(token_ids in proptest::collection::vec(0_u32..420, 0..24)) {
        let tokenizer = tokenizer("smollm");
        prop_assert_eq!(streamed(&tokenizer, &token_ids), tokenizer.decode(&token_ids).unwrap());
    }
}
