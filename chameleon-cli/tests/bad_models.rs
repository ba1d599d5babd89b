//! Spoilt models and texts: exit code 2, one clear sentence with a hint, never a panic.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot run the program fails"
)]

use std::path::Path;
use std::process::Command;

fn tiny_llama(into: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama");
    for name in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        std::fs::copy(from.join(name), into.join(name)).unwrap();
    }
    std::fs::copy(from.join("mix.jsonl"), into.join("mix.jsonl")).unwrap();
}

/// Spoils a copy of the tiny model, evaluates it, and looks for `word` in the message.
fn refused(word: &str, spoil: impl FnOnce(&Path)) {
    refused_with(word, ".", "mix.jsonl", spoil);
}

fn refused_with(word: &str, model: &str, data: &str, spoil: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    tiny_llama(folder.path());
    spoil(folder.path());
    let output = Command::new(env!("CARGO_BIN_EXE_chameleon"))
        .args(["eval", "--context", "32", "--model"])
        .arg(folder.path().join(model))
        .arg("--data")
        .arg(folder.path().join(data))
        .env("NO_COLOR", "1")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{word}: {stderr}");
    assert!(stderr.contains(word), "`{word}` is not in: {stderr}");
    assert!(stderr.contains("help:"), "no hint: {stderr}");
    assert!(!stderr.contains("has a bug"), "{stderr}");
}

fn put(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    std::fs::File::create(path)
        .unwrap()
        .write_all(bytes)
        .unwrap();
}

fn edit(folder: &Path, name: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(folder.join(name)).unwrap();
    assert!(text.contains(from), "{name} has no {from}");
    put(&folder.join(name), text.replace(from, to).as_bytes());
}

#[test]
fn spoilt_safetensors_are_refused() {
    let weights = "model.safetensors";
    refused("model.safetensors", |folder| {
        std::fs::remove_file(folder.join(weights)).unwrap();
    });
    refused("model.safetensors", |folder| {
        let bytes = std::fs::read(folder.join(weights)).unwrap();
        put(&folder.join(weights), &bytes[..bytes.len() / 2]);
    });
    refused("model.safetensors", |folder| {
        let mut bytes = std::fs::read(folder.join(weights)).unwrap();
        bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        put(&folder.join(weights), &bytes);
    });
    refused("NaN", |folder| {
        let mut bytes = std::fs::read(folder.join(weights)).unwrap();
        let end = bytes.len();
        bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        put(&folder.join(weights), &bytes);
    });
    refused("shape", |folder| {
        edit(
            folder,
            "config.json",
            "\"intermediate_size\": 32",
            "\"intermediate_size\": 48",
        );
    });
    refused("layers.2.", |folder| {
        edit(
            folder,
            "config.json",
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 3",
        );
    });
}

#[test]
fn spoilt_configurations_and_tokenizers_are_refused() {
    refused("mamba", |folder| {
        edit(
            folder,
            "config.json",
            "\"model_type\": \"llama\"",
            "\"model_type\": \"mamba\"",
        );
    });
    refused("320", |folder| {
        edit(
            folder,
            "config.json",
            "\"vocab_size\": 320",
            "\"vocab_size\": 300",
        );
    });
    refused("tokenizer.json", |folder| {
        put(&folder.join("tokenizer.json"), b"{");
    });
}

#[test]
fn spoilt_gguf_files_are_refused() {
    let gguf = |word, bytes: &'static [u8]| {
        refused_with(word, "model.gguf", "mix.jsonl", |folder| {
            put(&folder.join("model.gguf"), bytes);
        });
    };
    gguf("model.gguf", b"");
    gguf("model.gguf", b"GGUF\x03\0\0\0");
    gguf(
        "model.gguf",
        b"GGML\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    );
    // Two to the power of 56 tensors in a file of 24 bytes.
    gguf(
        "model.gguf",
        b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0",
    );
}

#[test]
fn spoilt_texts_are_refused() {
    let text = |word, bytes: &'static [u8]| {
        refused_with(word, ".", "text.txt", |folder| {
            put(&folder.join("text.txt"), bytes);
        });
    };
    text("empty", b"");
    text("position 3", b"abc\xff\xfe");
    text("token", b"a");
    refused_with("missing.txt", ".", "missing.txt", |_| {});
    refused_with("line 1", ".", "rows.jsonl", |folder| {
        put(&folder.join("rows.jsonl"), b"{\"text\": ");
    });
    refused_with("fields", ".", "rows.jsonl", |folder| {
        put(&folder.join("rows.jsonl"), b"{\"body\": \"words\"}\n");
    });
}

/// A GPT-2 with 32 learned positions, whose tokens are letters, and a text for it.
fn tiny_gpt2(into: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../chameleon-models/tests/fixtures/gguf_models/gpt2");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(from.join(name), into.join(name)).unwrap();
    }
    let vocab: serde_json::Map<String, serde_json::Value> = ('a'..='x')
        .zip(0..)
        .map(|(letter, id): (char, u32)| (letter.to_string(), id.into()))
        .collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "vocab": vocab, "merges": []}
    });
    put(
        &into.join("tokenizer.json"),
        tokenizer.to_string().as_bytes(),
    );
    put(
        &into.join("text.txt"),
        "bdfhjlnprtvxacegikmoqsuw\n".repeat(20).as_bytes(),
    );
}

#[test]
fn sequences_longer_than_learned_positions_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    tiny_gpt2(folder.path());
    let run = |command: &[&str], more: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_chameleon"))
            .args(command)
            .arg("--model")
            .arg(folder.path())
            .arg("--data")
            .arg(folder.path().join("text.txt"))
            .args(more)
            .current_dir(folder.path())
            .env("XDG_CACHE_HOME", folder.path().join("cache"))
            .env("NO_COLOR", "1")
            .output()
            .unwrap()
    };
    let span = ["--prefix", "8", "--seq-len", "48"];
    let out = [&span[..], &["--out", "out"]].concat();
    let hidden = ["--clusters", "2", "--representation", "hidden:1"];
    let hidden = [&span[..], &hidden].concat();
    for (command, more) in [
        (&["eval"][..], &["--context", "48"][..]),
        (&["train"], &out),
        (&["compare"], &out),
        (&["cluster"], &hidden),
        (&["reproduce", "wikitext"], &out),
    ] {
        let output = run(command, more);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {stderr}");
        assert!(
            stderr.contains("sequences of 48 tokens, the model has learned 32 positions"),
            "{command:?}: {stderr}"
        );
        assert!(
            stderr.contains("help: make `--context` or `--seq-len` smaller"),
            "{command:?}: {stderr}"
        );
    }
    let output = run(&["eval"], &["--context", "32"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
}
