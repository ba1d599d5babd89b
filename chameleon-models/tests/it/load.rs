//! From a path to a model that runs, and from a model to the identity that adapters remember.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor};
use chameleon_hypernet::Condition;
use chameleon_models::adapter::{Adapter, AdapterError, ImpossibleAdapter, ModelIdentity, Recipe};
use chameleon_models::{
    CausalLm, HubAccess, HubOptions, HubProgress, LoadedModel, ModelError, ModelSource, load,
};

use crate::engine::adapter;
use crate::gguf_builder::{GgufBuilder, Value};

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/gguf_models")
        .join(name)
}

fn offline(cache: &Path) -> HubOptions {
    HubOptions {
        access: HubAccess::CacheOnly,
        cache_folder: cache.to_path_buf(),
        token: None,
        endpoint: String::new(),
        progress: HubProgress::Silent,
    }
}

fn load_path(path: &Path) -> Result<LoadedModel, ModelError> {
    let source = ModelSource::find(path.to_str().unwrap())?;
    load(&source, &offline(Path::new("no cache")), &Device::flex())
}

/// A folder with the model's files and a tokenizer of four tokens.
pub(crate) fn complete(model: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture(model).join(file), folder.path().join(file)).unwrap();
    }
    put(
        folder.path(),
        "tokenizer.json",
        r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3}, "merges": [["a", "b"]]}}"#,
    );
    folder
}

/// A model whose 24 tokens are letters, of which `c` ends a text.
pub(crate) fn tiny_with_letters() -> LoadedModel {
    let folder = complete("llama");
    let vocab: Vec<String> = ('a'..='x')
        .enumerate()
        .map(|(id, letter)| format!(r#""{letter}": {id}"#))
        .collect();
    put(
        folder.path(),
        "tokenizer.json",
        &format!(
            r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": {{"type": "Fuse"}},
            "model": {{"type": "BPE", "vocab": {{{}}}, "merges": []}}}}"#,
            vocab.join(", ")
        ),
    );
    load_path(folder.path()).unwrap()
}

fn put(folder: &Path, file: &str, text: &str) {
    chameleon_models::files::atomic_file::write(&folder.join(file), text.as_bytes()).unwrap();
}

/// The valid file of the hostile tests, made a whole model.
fn whole_gguf(change: impl FnOnce(&mut GgufBuilder)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut file = GgufBuilder::valid();
    for (name, dims) in [
        ("blk.0.attn_norm.weight", vec![4]),
        ("blk.0.attn_k.weight", vec![4, 4]),
        ("blk.0.attn_v.weight", vec![4, 4]),
        ("blk.0.attn_output.weight", vec![4, 4]),
        ("blk.0.ffn_norm.weight", vec![4]),
        ("blk.0.ffn_gate.weight", vec![4, 4]),
        ("blk.0.ffn_up.weight", vec![4, 4]),
        ("blk.0.ffn_down.weight", vec![4, 4]),
    ] {
        file.add_f32(name, &dims);
    }
    change(&mut file);
    chameleon_models::files::atomic_file::write(&folder.path().join("m.gguf"), &file.bytes())
        .unwrap();
    folder
}

fn load_gguf(change: impl FnOnce(&mut GgufBuilder)) -> Result<LoadedModel, ModelError> {
    let folder = whole_gguf(change);
    load_path(&folder.path().join("m.gguf"))
}

#[test]
fn both_families_load_from_a_folder() {
    for model in ["llama", "gpt2"] {
        let loaded = load_path(complete(model).path()).unwrap();
        assert!(loaded.report.is_complete());
        assert_eq!(loaded.report.unused, Vec::<String>::new());
        assert_eq!(loaded.identity.architecture, model);
        assert_eq!(loaded.tokenizer.encode("abc").unwrap(), [3, 2]);
        let token_ids = Tensor::<2, Int>::from_data([[1, 2, 3]], &Device::flex());
        assert_eq!(loaded.model.hidden_states(token_ids).dims(), [1, 3, 16]);
    }
}

#[test]
fn the_identity_depends_on_the_embedding_and_survives_json() {
    let first = load_path(complete("llama").path()).unwrap().identity;
    let again = load_path(complete("llama").path()).unwrap().identity;
    assert_eq!(first, again);
    let other = load_path(complete("gpt2").path()).unwrap().identity;
    assert_ne!(first.fingerprint, other.fingerprint);
    assert!(first.to_string().contains(&first.fingerprint));
    let json = serde_json::to_string(&first).unwrap();
    assert_eq!(serde_json::from_str::<ModelIdentity>(&json).unwrap(), first);
}

#[test]
fn a_gguf_file_is_a_whole_model() {
    let loaded = load_gguf(|file| {
        file.set(
            "tokenizer.chat_template",
            Value::Text("{{ messages[0].content }}"),
        );
        file.add_f32("blk.0.mystery.weight", &[4]);
    })
    .unwrap();
    assert_eq!(loaded.report.loaded.len(), 11);
    assert_eq!(loaded.report.unused, ["blk.0.mystery.weight"]);
    assert_eq!(
        loaded.chat_template.as_deref(),
        Some("{{ messages[0].content }}")
    );
}

#[test]
fn a_tensor_that_is_missing_misshapen_or_no_number_is_named() {
    let error = load_gguf(|file| {
        file.tensors
            .retain(|tensor| tensor.name != "blk.0.ffn_up.weight");
    });
    let error = error.unwrap_err();
    assert!(
        matches!(error, ModelError::TensorMissing { .. }),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .contains("model.layers.0.mlp.up_proj.weight"),
        "{error}"
    );

    let error = load_gguf(|file| file.tensor("blk.0.ffn_up.weight").dims = vec![4, 3]).unwrap_err();
    let ModelError::ShapeMismatch {
        name,
        found,
        expected,
        ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(name, "model.layers.0.mlp.up_proj.weight");
    assert_eq!(
        (found.as_slice(), expected.as_slice()),
        ([3, 4].as_slice(), [4, 4].as_slice())
    );

    let error = load_gguf(|file| {
        let offset = usize::try_from(file.tensor("blk.0.ffn_up.weight").offset).unwrap();
        file.data[offset..offset + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    })
    .unwrap_err();
    assert!(matches!(error, ModelError::NonFinite { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("model.layers.0.mlp.up_proj.weight"),
        "{error}"
    );
}

#[test]
fn a_configuration_that_makes_no_model_is_an_error() {
    let folder = complete("llama");
    let config = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
    for (key, value) in [
        ("hidden_size", "0"),
        ("num_attention_heads", "5"),
        ("vocab_size", "\"x\""),
    ] {
        let mut broken: serde_json::Value = serde_json::from_str(&config).unwrap();
        broken[key] = serde_json::from_str(value).unwrap();
        put(folder.path(), "config.json", &broken.to_string());
        let error = load_path(folder.path()).unwrap_err();
        assert!(
            matches!(error, ModelError::Config { .. }),
            "{key}: {error:?}"
        );
    }
}

#[test]
fn a_tokenizer_with_more_tokens_than_the_model_is_refused() {
    let folder = complete("llama");
    let mut vocab: serde_json::Map<String, serde_json::Value> = ('a'..='y')
        .zip(0..)
        .map(|(character, id): (char, u32)| (character.to_string(), id.into()))
        .collect();
    vocab.insert("ab".to_owned(), 25.into());
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "vocab": vocab, "merges": [["a", "b"]]}
    });
    put(folder.path(), "tokenizer.json", &tokenizer.to_string());
    let error = load_path(folder.path()).unwrap_err();
    assert!(
        matches!(
            error,
            ModelError::VocabTooLarge {
                tokenizer: 26,
                model: 24
            }
        ),
        "{error:?}"
    );
}

#[test]
fn a_model_in_the_hub_cache_loads_offline() {
    let cache = tempfile::tempdir().unwrap();
    let repo = cache.path().join("models--owner--name");
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    put(&repo.join("refs"), "main", "abc123");
    std::fs::create_dir_all(repo.join("snapshots")).unwrap();
    std::fs::rename(complete("llama").keep(), repo.join("snapshots/abc123")).unwrap();
    let source = ModelSource::find("hf:owner/name").unwrap();
    let loaded = load(&source, &offline(cache.path()), &Device::flex()).unwrap();
    assert!(loaded.report.is_complete());
}

#[test]
fn an_adapter_for_more_positions_than_the_model_has_learned_is_refused() {
    for (model, is_refused) in [("gpt2", true), ("llama", false)] {
        let loaded = load_path(complete(model).path()).unwrap();
        let max_seq_len = loaded.model.sizes().max_seq_len;
        assert!(loaded.model.check_positions(max_seq_len).is_ok());
        let mut adapter = adapter(&loaded, "core", Condition::Centroid);
        let folder = tempfile::tempdir().unwrap();
        let mut load = |seq_len| {
            adapter.config.recipe = Recipe::Causal { prefix: 6, seq_len };
            adapter.save(folder.path()).unwrap();
            Adapter::load(
                folder.path(),
                &loaded.model,
                &loaded.identity,
                &Device::flex(),
            )
        };
        assert!(load(max_seq_len).is_ok());
        let more = load(max_seq_len + 1);
        assert_eq!(more.is_err(), is_refused, "{model}: {more:?}");
        if let Err(error) = more {
            assert!(
                matches!(
                    error,
                    AdapterError::Impossible {
                        source: ImpossibleAdapter::Positions { .. },
                        ..
                    }
                ),
                "{error:?}"
            );
        }
    }
}
