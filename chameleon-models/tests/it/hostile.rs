//! Files that are broken, or that lie. Each is an error that names the problem; none stops the program.

use std::path::Path;

use chameleon_models::{Checkpoint, ModelError, Tokenizer};
use proptest::prelude::*;

use crate::gguf_builder::{GgufBuilder, Value, put_text};

fn open(bytes: Vec<u8>) -> Result<Checkpoint, ModelError> {
    Checkpoint::from_gguf_bytes(Path::new("test.gguf"), bytes)
}

fn error_of(change: impl FnOnce(&mut GgufBuilder)) -> ModelError {
    let mut builder = GgufBuilder::valid();
    change(&mut builder);
    open(builder.bytes()).expect_err("the file is broken")
}

/// Reads everything there is to read.
fn read_all(checkpoint: &Checkpoint) {
    for (name, _) in checkpoint.tensors() {
        let _ = checkpoint.read_f32(name);
    }
    let _ = checkpoint.chat_template();
    if let Ok(tokenizer) = checkpoint.tokenizer() {
        let _ = tokenizer.encode_with_special_tokens("ab <s> 12 \u{e9}");
        let _ = tokenizer.decode(&[0, 1, 2, 3, 4, 5]);
    }
}

/// Asserts that the header is refused, and that the message has the words that name the problem.
fn assert_header_error(error: &ModelError, words: &str) {
    assert!(matches!(error, ModelError::GgufHeader { .. }), "{error:?}");
    let message = error.to_string();
    assert!(
        message.contains("test.gguf") && message.contains(words),
        "{message}"
    );
}

macro_rules! assert_error {
    ($error:expr, $pattern:pat) => {
        let error = $error;
        assert!(matches!(error, $pattern), "{error:?}");
        assert!(error.to_string().contains("test.gguf"), "{error}");
    };
}

#[test]
fn the_file_that_the_others_are_broken_from_is_valid() {
    let checkpoint = open(GgufBuilder::valid().bytes()).unwrap();
    assert_eq!(
        checkpoint
            .tensor("model.embed_tokens.weight")
            .unwrap()
            .shape,
        [5, 4]
    );
    assert_eq!(
        checkpoint.read_f32("model.norm.weight").unwrap(),
        [0.0, 1.0, 2.0, 3.0]
    );
    let tokenizer = checkpoint.tokenizer().unwrap();
    assert_eq!(
        tokenizer.encode_with_special_tokens("abb</s>").unwrap(),
        [0, 4, 3, 1]
    );
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let bytes = GgufBuilder::valid().bytes();
    let padding_after_last_tensor = 16;
    for len in 0..bytes.len() - padding_after_last_tensor {
        let error = open(bytes[..len].to_vec()).expect_err("cut");
        if len < 4 {
            assert_error!(error, ModelError::NotGguf { .. });
        } else {
            assert_error!(
                error,
                ModelError::Truncated { .. } | ModelError::TensorOutsideFile { .. }
            );
        }
    }
}

#[test]
fn magic_and_version_are_checked() {
    assert_error!(
        error_of(|file| file.magic = *b"GGML"),
        ModelError::NotGguf { .. }
    );
    for version in [0, 1, 4, 3_u32.swap_bytes()] {
        assert_header_error(
            &error_of(|file| file.version = version),
            &format!("GGUF version {version};"),
        );
    }
}

#[test]
fn counts_that_lie_run_into_the_end() {
    for count in [1000, u64::from(u32::MAX), u64::MAX] {
        assert!(
            open({
                let mut file = GgufBuilder::valid();
                file.num_values = Some(count);
                file.bytes()
            })
            .is_err()
        );
        assert!(
            open({
                let mut file = GgufBuilder::valid();
                file.num_tensors = Some(count);
                file.bytes()
            })
            .is_err()
        );
    }
}

#[test]
fn texts_and_lists_that_lie_about_their_length_run_into_the_end() {
    for len in [1 << 20, 1 << 40, u64::MAX] {
        let text = len.to_le_bytes().to_vec();
        assert_error!(
            error_of(|file| file.set("x", Value::Raw(8, text.clone()))),
            ModelError::Truncated { .. }
        );
        for item_type in [0_u32, 4, 7, 8, 12] {
            let mut list = item_type.to_le_bytes().to_vec();
            list.extend(len.to_le_bytes());
            let error = error_of(|file| file.set("x", Value::Raw(9, list.clone())));
            if !error.to_string().contains("is not valid UTF-8") {
                assert_error!(error, ModelError::Truncated { .. });
            }
        }
    }
}

#[test]
fn unknown_and_nested_value_types_are_errors() {
    assert_header_error(
        &error_of(|file| file.set("x", Value::Raw(13, vec![0; 8]))),
        "metadata `x` has the unknown value type 13",
    );
    let mut list_of_lists = 9_u32.to_le_bytes().to_vec();
    list_of_lists.extend(1_u64.to_le_bytes());
    assert_header_error(
        &error_of(|file| file.set("x", Value::Raw(9, list_of_lists))),
        "metadata `x` has the unknown value type 9",
    );
}

#[test]
fn text_that_is_not_utf8_is_an_error() {
    let mut text = 2_u64.to_le_bytes().to_vec();
    text.extend([0xff, 0xfe]);
    assert_header_error(
        &error_of(|file| file.set("x", Value::Raw(8, text))),
        "metadata `x` is not valid UTF-8",
    );
}

#[test]
fn alignments_that_cannot_be_are_errors() {
    for alignment in [0, 1, 12, u32::MAX] {
        assert_header_error(
            &error_of(|file| file.set("general.alignment", Value::U32(alignment))),
            &format!("general.alignment is {alignment}, expected a positive multiple of 8"),
        );
    }
    assert_error!(
        error_of(|file| file.set("general.alignment", Value::Text("32"))),
        ModelError::ConfigValue { .. }
    );
    let error = error_of(|file| file.set("general.alignment", Value::U32(0x8000_0000)));
    if !error.to_string().contains("expected a multiple of") {
        assert_error!(error, ModelError::TensorOutsideFile { .. });
    }
}

#[test]
fn shapes_that_cannot_be_are_errors() {
    let huge = [
        vec![],
        vec![0, 5],
        vec![1; 5],
        vec![u64::MAX],
        vec![1 << 32, 1 << 32],
        vec![u64::MAX, u64::MAX, u64::MAX, u64::MAX],
        vec![1 << 20, 1 << 20, 1 << 20],
    ];
    for dims in huge {
        assert_error!(
            error_of(|file| file.tensor("token_embd.weight").dims = dims),
            ModelError::ImpossibleShape { .. }
        );
    }
    assert_error!(
        error_of(|file| file.tensor("token_embd.weight").dims = vec![4, 1 << 40]),
        ModelError::TensorOutsideFile { .. }
    );
}

#[test]
fn tensors_outside_of_the_file_or_on_top_of_each_other_are_errors() {
    for offset in [1 << 20, u64::MAX - 31] {
        assert_error!(
            error_of(|file| file.tensor("token_embd.weight").offset = offset),
            ModelError::TensorOutsideFile { .. }
        );
    }
    assert_header_error(
        &error_of(|file| file.tensor("output_norm.weight").offset += 1),
        "tensor `output_norm.weight` starts at offset 161, expected a multiple of 32",
    );
    assert_error!(
        error_of(|file| file.tensor("output_norm.weight").offset = 32),
        ModelError::TensorsOverlap { .. }
    );
}

#[test]
fn names_are_unique() {
    assert_error!(
        error_of(|file| file.tensor("output_norm.weight").name = "token_embd.weight".to_owned()),
        ModelError::DuplicateName { .. }
    );
    assert_error!(
        error_of(|file| file
            .values
            .push(("llama.block_count".to_owned(), Value::U32(2)))),
        ModelError::DuplicateName { .. }
    );
    assert_error!(
        error_of(|file| file.add_f32("blk.00.attn_q.weight", &[4, 4])),
        ModelError::DuplicateName { .. }
    );
}

#[test]
fn types_that_are_not_read_are_named_beside_those_that_are() {
    for (number, name) in [
        (16, "IQ2_XXS"),
        (15, "Q8_K"),
        (4, "the unknown type 4"),
        (1000, "the unknown type 1000"),
    ] {
        let error = error_of(|file| file.tensor("token_embd.weight").dtype = number);
        let message = error.to_string();
        assert_error!(error, ModelError::UnsupportedDtype { .. });
        assert!(
            message.contains(name)
                && message.contains("Q4_K")
                && message.contains("token_embd.weight"),
            "{message}"
        );
    }
    assert_header_error(
        &error_of(|file| file.tensor("token_embd.weight").dtype = 8),
        "rows of tensor `token_embd.weight` have 4 values, Q8_0 comes in blocks of 32",
    );
}

#[test]
fn missing_and_wrong_configuration_is_named() {
    let required = [
        "general.architecture",
        "llama.context_length",
        "llama.embedding_length",
        "llama.feed_forward_length",
        "llama.block_count",
        "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon",
    ];
    for key in required {
        let error = error_of(|file| file.remove(key));
        assert!(error.to_string().contains(key), "{error}");
        assert_error!(error, ModelError::ConfigValue { .. });
        assert_error!(
            error_of(|file| file.set(key, Value::Texts(vec!["x"]))),
            ModelError::ConfigValue { .. }
        );
    }
    assert_error!(
        error_of(|file| file.set("general.architecture", Value::Text("mamba"))),
        ModelError::UnsupportedArchitecture { .. }
    );
    assert_error!(
        error_of(|file| file.set("llama.attention.head_count", Value::I32s(vec![1, 2]))),
        ModelError::ConfigValue { .. }
    );
    assert_error!(
        error_of(|file| file.set("llama.expert_count", Value::U32(8))),
        ModelError::UnsupportedArchitecture { .. }
    );
    assert_error!(
        error_of(|file| file
            .tensors
            .retain(|tensor| tensor.name != "token_embd.weight")),
        ModelError::TensorMissing { .. }
    );
}

#[test]
fn heads_that_do_not_divide_the_rows_are_errors() {
    for num_heads in [0, 3, u32::MAX] {
        assert_error!(
            error_of(|file| file.set("llama.attention.head_count", Value::U32(num_heads))),
            ModelError::ImpossibleShape { .. }
        );
    }
}

#[test]
fn weights_that_are_no_numbers_are_named() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut file = GgufBuilder::valid();
        file.data[8..12].copy_from_slice(&value.to_le_bytes());
        let checkpoint = open(file.bytes()).unwrap();
        assert_error!(
            checkpoint
                .read_f32("model.embed_tokens.weight")
                .unwrap_err(),
            ModelError::NonFinite { position: 2, .. }
        );
    }
}

#[test]
fn broken_tokenizers_are_errors() {
    let error_of = |change: &dyn Fn(&mut GgufBuilder)| {
        let mut file = GgufBuilder::valid();
        change(&mut file);
        open(file.bytes())
            .unwrap()
            .tokenizer()
            .expect_err("the tokenizer is broken")
    };
    for key in [
        "tokenizer.ggml.model",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
    ] {
        assert_error!(
            error_of(&|file| file.remove(key)),
            ModelError::ConfigValue { .. }
        );
    }
    assert_error!(
        error_of(&|file| file.set("tokenizer.ggml.model", Value::Text("bert"))),
        ModelError::UnsupportedTokenizer { kind: "model", .. }
    );
    assert_error!(
        error_of(&|file| file.set("tokenizer.ggml.pre", Value::Text("martian"))),
        ModelError::UnsupportedTokenizer {
            kind: "pre-tokenizer",
            ..
        }
    );
    for merge in ["a", "", " ", "a x", "ab ab", "b a"] {
        assert_error!(
            error_of(&|file| file.set("tokenizer.ggml.merges", Value::Texts(vec![merge]))),
            ModelError::BrokenMerge { .. }
        );
    }
    for key in ["bos", "eos"] {
        assert_error!(
            error_of(&|file| file.set(&format!("tokenizer.ggml.{key}_token_id"), Value::U32(5))),
            ModelError::SpecialTokenOutsideVocab {
                token_id: 5,
                vocab_size: 5,
                ..
            }
        );
    }
    assert_error!(
        error_of(&|file| file.set("tokenizer.ggml.token_type", Value::I32s(vec![1]))),
        ModelError::ConfigValue { .. }
    );
    let llama = |file: &mut GgufBuilder| {
        file.set("tokenizer.ggml.model", Value::Text("llama"));
        file.remove("tokenizer.ggml.merges");
    };
    assert_error!(error_of(&llama), ModelError::ConfigValue { .. });

    let mut many = GgufBuilder::valid();
    many.set(
        "tokenizer.ggml.tokens",
        Value::Texts(vec!["<s>", "</s>", "a", "b", "ab", "c"]),
    );
    many.set(
        "tokenizer.ggml.token_type",
        Value::I32s(vec![3, 3, 1, 1, 1, 1]),
    );
    let error = open(many.bytes()).unwrap().tokenizer().unwrap_err();
    assert!(
        matches!(
            error,
            ModelError::VocabTooLarge {
                tokenizer: 6,
                model: 5
            }
        ),
        "{error}"
    );
}

// Folders.

const CONFIG: &str = r#"{"model_type": "llama", "vocab_size": 2}"#;

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        chameleon_models::files::atomic_file::write(&folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn valid_safetensors() -> Vec<u8> {
    let header = r#"{"model.a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"model.b":{"dtype":"BF16","shape":[1,2],"data_offsets":[8,12]}}"#;
    safetensors(header, &[0; 12])
}

fn folder_error(files: &[(&str, &[u8])]) -> ModelError {
    Checkpoint::open(folder(files).path()).expect_err("the folder is broken")
}

fn weights_error(weights: &[u8]) -> ModelError {
    folder_error(&[
        ("config.json", CONFIG.as_bytes()),
        ("model.safetensors", weights),
    ])
}

#[test]
fn folders_that_lack_a_file_are_errors() {
    assert!(matches!(
        Checkpoint::open(Path::new("no/such/folder")),
        Err(ModelError::ModelMissing { .. })
    ));
    assert!(matches!(
        folder_error(&[]),
        ModelError::FolderIncomplete {
            file: "config.json",
            ..
        }
    ));
    assert!(matches!(
        folder_error(&[("config.json", CONFIG.as_bytes())]),
        ModelError::FolderIncomplete {
            file: "model.safetensors",
            ..
        }
    ));
    for (files, found) in [
        (vec![("adapter_config.json", "{}")], "a PEFT adapter"),
        (
            vec![("config.json", CONFIG), ("pytorch_model.bin", "")],
            "pytorch_model.bin",
        ),
    ] {
        let files: Vec<(&str, &[u8])> = files
            .into_iter()
            .map(|(file, text)| (file, text.as_bytes()))
            .collect();
        let error = folder_error(&files);
        assert!(matches!(error, ModelError::OtherFolder { .. }), "{error:?}");
        assert!(error.to_string().contains(found), "{error}");
    }
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    for files in [
        [
            ("config.json", CONFIG.as_bytes()),
            ("model.safetensors", &pointer[..]),
        ],
        [
            ("config.json", &pointer[..]),
            ("model.safetensors", &valid_safetensors()),
        ],
    ] {
        assert!(matches!(
            folder_error(&files),
            ModelError::LfsPointer { .. }
        ));
    }
    let complete = folder(&[
        ("config.json", CONFIG.as_bytes()),
        ("model.safetensors", &valid_safetensors()),
    ]);
    let checkpoint = Checkpoint::open(complete.path()).unwrap();
    assert_eq!(checkpoint.read_f32("model.b").unwrap(), [0.0, 0.0]);
    assert!(matches!(
        checkpoint.tokenizer(),
        Err(ModelError::FolderIncomplete {
            file: "tokenizer.json",
            ..
        })
    ));
}

#[test]
fn broken_configurations_are_errors() {
    let weights = valid_safetensors();
    let error = |config: &str| {
        folder_error(&[
            ("config.json", config.as_bytes()),
            ("model.safetensors", &weights),
        ])
    };
    assert!(matches!(error(""), ModelError::Json { .. }));
    assert!(matches!(error("{"), ModelError::Json { .. }));
    assert!(matches!(error("[]"), ModelError::ConfigValue { .. }));
    assert!(matches!(
        error(r#"{"model_type": 3}"#),
        ModelError::ConfigValue { .. }
    ));
    let unknown = error(r#"{"model_type": "mamba"}"#);
    assert!(
        unknown.to_string().contains("mamba") && unknown.to_string().contains("gpt2"),
        "{unknown}"
    );
}

#[test]
fn broken_safetensors_are_errors() {
    let valid = valid_safetensors();
    for len in 0..valid.len() {
        assert!(
            matches!(weights_error(&valid[..len]), ModelError::Safetensors { .. }),
            "{len}"
        );
    }
    let mut longer = valid.clone();
    longer.push(0);
    assert!(matches!(
        weights_error(&longer),
        ModelError::Safetensors { .. }
    ));
    for header_len in [0, 1, u64::MAX, 1 << 40, valid.len() as u64] {
        let mut lying = valid.clone();
        lying[..8].copy_from_slice(&header_len.to_le_bytes());
        assert!(
            matches!(weights_error(&lying), ModelError::Safetensors { .. }),
            "{header_len}"
        );
    }
    for header in [
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,16]}}"#,
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#,
    ] {
        let error = weights_error(&safetensors(header, &[0; 8]));
        assert!(matches!(error, ModelError::Safetensors { .. }), "{error:?}");
    }
    let integers = |name: &str| {
        let header = format!(r#"{{"{name}":{{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}}}"#);
        safetensors(&header, &[0; 8])
    };
    // A buffer that the family does not have does no harm.
    let buffer = folder(&[
        ("config.json", CONFIG.as_bytes()),
        ("model.safetensors", &integers("model.position_ids")),
    ]);
    assert_eq!(
        Checkpoint::open(buffer.path()).unwrap().tensors().count(),
        0
    );
    let error = weights_error(&integers("model.norm.weight"));
    assert!(
        matches!(error, ModelError::UnsupportedDtype { .. }),
        "{error:?}"
    );
}

#[test]
fn weights_of_a_folder_that_are_no_numbers_are_named() {
    let mut weights = valid_safetensors();
    let len = weights.len();
    weights[len - 2..].copy_from_slice(&half::bf16::NAN.to_le_bytes());
    let folder = folder(&[
        ("config.json", CONFIG.as_bytes()),
        ("model.safetensors", &weights),
    ]);
    let error = Checkpoint::open(folder.path())
        .unwrap()
        .read_f32("model.b")
        .unwrap_err();
    assert!(error.to_string().contains("model.b"), "{error}");
    assert!(
        matches!(error, ModelError::NonFinite { position: 1, .. }),
        "{error:?}"
    );
}

#[test]
fn an_index_stays_inside_its_folder_and_keeps_its_promises() {
    let valid = valid_safetensors();
    let error = |index: &str| {
        folder_error(&[
            ("config.json", CONFIG.as_bytes()),
            ("part.safetensors", &valid),
            ("other.safetensors", &safetensors("{}", &[])),
            ("model.safetensors.index.json", index.as_bytes()),
        ])
    };
    for shard in [
        "../part.safetensors",
        "/etc/passwd",
        "a/part.safetensors",
        "..",
        ".",
        "",
    ] {
        let index = serde_json::json!({"weight_map": {"model.a": shard}}).to_string();
        let error = error(&index);
        assert!(matches!(error, ModelError::ShardIndex { .. }), "{error:?}");
        let problem = format!("shard `{shard}` is not a file name inside the folder");
        assert!(error.to_string().ends_with(&problem), "{error}");
    }
    assert!(matches!(
        error(r#"{"weight_map": {"model.a": "gone.safetensors"}}"#),
        ModelError::Read { .. }
    ));
    let elsewhere =
        error(r#"{"weight_map": {"model.a": "part.safetensors", "model.b": "other.safetensors"}}"#);
    assert!(
        matches!(elsewhere, ModelError::ShardIndex { .. }),
        "{elsewhere:?}"
    );
    let problem = "tensor `model.b` is not in shard `other.safetensors`";
    assert!(elsewhere.to_string().ends_with(problem), "{elsewhere}");
    // Some indices name the head of a model that has none.
    let index =
        r#"{"weight_map": {"model.a": "part.safetensors", "lm_head.weight": "part.safetensors"}}"#;
    let more = folder(&[
        ("config.json", CONFIG.as_bytes()),
        ("part.safetensors", &valid),
        ("model.safetensors.index.json", index.as_bytes()),
    ]);
    assert!(Checkpoint::open(more.path()).is_ok());
    assert!(matches!(error("{}"), ModelError::Json { .. }));
    assert!(matches!(
        error(r#"{"weight_map": [1]}"#),
        ModelError::Json { .. }
    ));
}

#[test]
fn broken_tokenizer_files_are_errors() {
    for text in [
        "",
        "{}",
        "[]",
        r#"{"model": {"type": "BPE"}}"#,
        "{\"version\": \"1.0\"",
    ] {
        let folder = folder(&[("tokenizer.json", text.as_bytes())]);
        assert!(Tokenizer::from_folder(folder.path()).is_err(), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn random_damage_to_a_gguf_file_never_panics(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        keep in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = GgufBuilder::valid().bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(keep) = keep {
            bytes.truncate(keep.index(bytes.len()));
        }
        if let Ok(checkpoint) = open(bytes) {
            read_all(&checkpoint);
        }
    }

    #[test]
    fn random_metadata_never_panics(value_type in 0_u32..14, raw in proptest::collection::vec(any::<u8>(), 0..40), at in any::<prop::sample::Index>()) {
        let mut file = GgufBuilder::valid();
        let at = at.index(file.values.len());
        file.values[at].1 = Value::Raw(value_type, raw);
        if let Ok(checkpoint) = open(file.bytes()) {
            read_all(&checkpoint);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn random_damage_to_a_folder_never_panics(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut weights = valid_safetensors();
        for (at, byte) in damage {
            let at = at.index(weights.len());
            weights[at] = byte;
        }
        let folder = folder(&[("config.json", CONFIG.as_bytes()), ("model.safetensors", &weights)]);
        if let Ok(checkpoint) = Checkpoint::open(folder.path()) {
            read_all(&checkpoint);
        }
    }
}

#[test]
fn lists_of_texts_may_be_empty() {
    let mut file = GgufBuilder::valid();
    file.set("tokenizer.ggml.tokens", Value::Texts(Vec::new()));
    file.set(
        "tokenizer.ggml.token_type",
        Value::Raw(9, {
            let mut list = 5_u32.to_le_bytes().to_vec();
            list.extend(0_u64.to_le_bytes());
            list
        }),
    );
    let checkpoint = open(file.bytes()).unwrap();
    assert!(checkpoint.tokenizer().is_err());
    let mut text = Vec::new();
    put_text(&mut text, "");
    file.set("tokenizer.chat_template", Value::Raw(8, text));
    assert_eq!(
        open(file.bytes())
            .unwrap()
            .chat_template()
            .unwrap()
            .as_deref(),
        Some("")
    );
}
