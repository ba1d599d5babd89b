//! Adapters on the command line: what they say of themselves, and what they change.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot run the program fails"
)]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use burn::tensor::{Device, Tensor};
use chameleon_core::RunSeed;
use chameleon_hypernet::{Condition, GeneratorKind, HyperLoraHeadConfig};
use chameleon_models::adapter::{
    Adapter, AdapterConfig, AdapterModule, FORMAT_VERSION, HeadAdaptation, PromptEncoding, Recipe,
    head_shape,
};
use chameleon_models::training::TrainOptions;
use chameleon_models::{CausalLm, HubOptions, LoadedModel, ModelSource, load};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

fn chameleon(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chameleon"))
        .current_dir(FIXTURES)
        .args(arguments)
        .output()
        .unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    let output = chameleon(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn tiny_llama(device: &Device) -> LoadedModel {
    let source = ModelSource::Folder(PathBuf::from(FIXTURES).join("tiny-llama"));
    load(&source, &HubOptions::from_env(), device).unwrap()
}

/// An adapter as training starts it: it changes nothing yet.
fn write_fresh_adapter(folder: &Path) {
    let device = Device::flex();
    let loaded = tiny_llama(&device);
    let hidden_size = loaded.model.sizes().hidden_size;
    let shape = head_shape(&loaded.model, 2);
    let head = HeadAdaptation::Hyper {
        config: HyperLoraHeadConfig::preset(GeneratorKind::Core, hidden_size, shape),
    };
    let centroids = [[0.5, -0.5], [-0.5, 0.5]];
    let adapter = Adapter {
        module: AdapterModule::head_only(head.init(RunSeed(1), &device)),
        centroids: Tensor::<2>::from_data(centroids, &device).repeat_dim(1, hidden_size / 2),
        memory: None,
        config: AdapterConfig {
            format_version: FORMAT_VERSION,
            base: loaded.identity,
            recipe: Recipe::Causal {
                prefix: 16,
                seq_len: 64,
            },
            head,
            layers: None,
            prompts: PromptEncoding::default(),
            condition: Condition::Batch,
            num_clusters: 2,
            training: TrainOptions {
                num_epochs: 1,
                learning_rate: 1e-3,
                warmup: 0.0,
                weight_decay: 0.0,
                max_grad_norm: 1.0,
            },
            seed: RunSeed(1),
            memory: None,
            exemplars: None,
        },
    };
    adapter.save(folder).unwrap();
}

#[test]
fn an_untrained_adapter_changes_no_answer_and_names_the_groups() {
    let folder = tempfile::tempdir().unwrap();
    write_fresh_adapter(folder.path());
    let folder = folder.path().to_str().unwrap();
    let mut flags = vec![
        "generate",
        "--model",
        "tiny-llama",
        "--greedy",
        "--max-new-tokens",
        "12",
    ];
    let prompts = ["The fox", "fn total_count", "[server]"];
    let frozen = stdout(&[&flags[..], &prompts[..]].concat());
    flags.extend(["--adapter", folder, "--batch-size", "2", "-v"]);
    let output = chameleon(&[&flags[..], &prompts[..]].concat());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), frozen);
    let messages = String::from_utf8(output.stderr).unwrap();
    for number in 1..=3 {
        assert!(
            messages.contains(&format!("prompt {number}: group ")),
            "{messages}"
        );
    }
}

#[test]
fn an_adapter_describes_itself_and_fits_its_model() {
    let folder = tempfile::tempdir().unwrap();
    write_fresh_adapter(folder.path());
    let folder = folder.path().to_str().unwrap();
    let text = stdout(&["info", "--adapter", folder, "--model", "tiny-llama"]);
    for line in ["method      core", "groups      2", "condition   batch"] {
        assert!(text.contains(line), "{text}");
    }
    let json = stdout(&["info", "--adapter", folder, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["adapter"]["method"], "core");
    assert_eq!(json["adapter"]["base"]["architecture"], "llama");
}

#[test]
fn an_adapter_of_another_base_is_refused_with_both_named() {
    let folder = tempfile::tempdir().unwrap();
    write_fresh_adapter(folder.path());
    let path = folder.path().join("adapter_config.json");
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["base"]["fingerprint"] = "0123456789abcdef".into();
    let mut file = std::fs::File::create(&path).unwrap();
    serde_json::to_writer(&mut file, &config).unwrap();
    let folder = folder.path().to_str().unwrap();
    let output = chameleon(&[
        "generate",
        "--model",
        "tiny-llama",
        "--adapter",
        folder,
        "The fox",
    ]);
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("0123456789abcdef"), "{message}");
    assert!(message.contains("help:"), "{message}");
}

#[test]
fn a_missing_adapter_is_refused_before_anything_is_written() {
    let output = chameleon(&[
        "generate",
        "--model",
        "tiny-llama",
        "--adapter",
        "none",
        "The fox",
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
}

#[test]
fn adapters_of_the_first_format_score_as_they_did() {
    // Written in version 1 of the format and scored by the program of that time, which kept LoRA inside a copy of
    // the model. Their factors inside the layers are random, so that they count.
    for (adapter, expected) in [
        ("adapter-v1-lora", 52.291_148),
        ("adapter-v1-core", 73.955_337),
    ] {
        let json = stdout(&[
            "eval",
            "--json",
            "--context",
            "24",
            "--prefix",
            "8",
            "--model",
            "tiny-llama",
            "--data",
            "tiny-llama/mix.jsonl",
            "--adapter",
            adapter,
        ]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let found = json["adapted_perplexity"].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-3, "{adapter}: {found}");
    }
}
