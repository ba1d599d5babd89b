//! The paper's experiments with the program itself, on the tiny model beside these tests.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot run the program fails"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use chameleon_models::atomic_file;
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tiny-llama")
        .join(name)
}

/// A folder laid out like WikiText: titles, blank lines, and texts of the other tests.
fn wikitext(folder: &Path) -> PathBuf {
    let mix = std::fs::read_to_string(fixture("mix.jsonl")).unwrap();
    let texts: Vec<String> = mix
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["text"]
                .as_str()
                .unwrap()
                .replace('\n', " ")
        })
        .collect();
    let data = folder.join("wikitext");
    std::fs::create_dir(&data).unwrap();
    for (part_idx, part) in ["train", "valid", "test"].into_iter().enumerate() {
        let lines: Vec<String> = texts
            .iter()
            .enumerate()
            .filter(|(idx, _)| (idx % 4).saturating_sub(1) == part_idx)
            .map(|(idx, text)| format!(" = Text {idx} = \n \n {text} \n \n"))
            .collect();
        let path = data.join(format!("wiki.{part}.raw"));
        atomic_file::write(&path, lines.concat().as_bytes()).unwrap();
    }
    data
}

/// Flags of every run, unless a test gives its own.
const FLAGS: [[&str; 2]; 6] = [
    ["--prefix", "8"],
    ["--seq-len", "24"],
    ["--batch-size", "8"],
    ["--rank", "2"],
    ["--lr", "0.01"],
    ["--epochs", "2"],
];

fn reproduce(folder: &Path, more: &[&str]) -> Output {
    run("wikitext", &folder.join("wikitext"), folder, more)
}

fn run(experiment: &str, data: &Path, folder: &Path, more: &[&str]) -> Output {
    let shared = FLAGS.iter().filter(|flag| !more.contains(&flag[0]));
    Command::new(env!("CARGO_BIN_EXE_chameleon"))
        .args(["reproduce", experiment, "--json", "--model"])
        .arg(fixture(""))
        .arg("--data")
        .arg(data)
        .arg("--out")
        .arg(folder.join("out"))
        .args(shared.flatten())
        .args(more)
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

fn report(output: &Output) -> Value {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn both_recipes_stand_in_one_table_and_finished_runs_are_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    wikitext(folder.path());
    let output = reproduce(folder.path(), &[]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        stderr.contains("warning: as published, conditions are made of the tokens"),
        "{stderr}"
    );
    let first = report(&output);
    let names: Vec<&str> = first["recipes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|recipe| recipe["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["as-published", "without-leak", "without-padding", "causal"]
    );
    let leaks: Vec<bool> = first["recipes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|recipe| recipe["leaks"].as_bool().unwrap())
        .collect();
    assert_eq!(leaks, [true, false, true, false]);
    let [published, causal] = [0, 3].map(|idx| &first["recipes"][idx]);
    assert_eq!(published["methods"].as_array().unwrap().len(), 4);
    assert!(published["facts"]["num_scored_padding"].as_u64().unwrap() > 0);
    assert!(published["methods"][0]["test_loss"].is_null());
    assert_eq!(causal["methods"].as_array().unwrap().len(), 6);
    assert!(causal["methods"][4]["test_loss"].as_f64().unwrap() > 0.0);
    assert_eq!(
        causal["methods"][4]["runs"][0]["curve"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let findings = first["findings"].to_string();
    assert!(findings.contains("are padding"), "{findings}");
    assert!(
        findings.contains("without-leak instead of as-published"),
        "{findings}"
    );
    let curves = std::fs::read_to_string(folder.path().join("out/curves.csv")).unwrap();
    assert_eq!(curves.lines().count(), 1 + 2 * (3 * 3 + 5));
    let html = std::fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    for needed in [
        "prefers-color-scheme: dark",
        "without-leak: differences from lora",
        "without-leak: validation loss by epoch",
        "its conditions hold what is scored",
        "no such gain can be had in use",
        "memory at most",
        "reproduce wikitext --json",
    ] {
        assert!(html.contains(needed), "{needed}");
    }
    for outside in ["<script", "http:", "https:", "src=", "@import"] {
        assert!(!html.contains(outside), "{outside}");
    }
    let memory = &causal["methods"][4]["peak_memory_bytes"];
    assert_eq!(memory.is_u64(), cfg!(target_os = "linux"), "{memory}");

    // Without --resume nothing is written over; with it nothing is computed again.
    let refused = reproduce(folder.path(), &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("holds finished runs already"));
    std::fs::remove_file(folder.path().join("out/runs/causal-core-seed-1.json")).unwrap();
    let again = report(&reproduce(folder.path(), &["--resume"]));
    for recipe_idx in 0..4 {
        for (before, after) in first["recipes"][recipe_idx]["methods"]
            .as_array()
            .unwrap()
            .iter()
            .zip(again["recipes"][recipe_idx]["methods"].as_array().unwrap())
        {
            // Reading a run back may move the last digit.
            let [before, after] = [before, after].map(|row| row["valid_loss"].as_f64().unwrap());
            assert!((before - after).abs() < 1e-9, "{before} {after}");
        }
    }
    let other = reproduce(folder.path(), &["--resume", "--alpha", "2"]);
    assert!(other.status.code() == Some(2) || !other.status.success());
}

#[test]
fn every_quirk_can_be_switched_off_alone() {
    let folder = tempfile::tempdir().unwrap();
    wikitext(folder.path());
    let quirks = [
        "unshifted-loss",
        "own-clusters",
        "best-epoch",
        "head-only",
        "direct-alpha",
        "normal-start",
        "equal-batches",
        "fixed-order",
    ];
    let recipes: Vec<String> = quirks
        .iter()
        .map(|quirk| format!("without-{quirk}"))
        .collect();
    let report = report(&reproduce(
        folder.path(),
        &[
            "--recipes",
            &recipes.join(","),
            "--loss",
            "full",
            "--seeds",
            "1,2",
        ],
    ));
    for recipe in report["recipes"].as_array().unwrap() {
        for method in recipe["methods"].as_array().unwrap() {
            assert!(
                method["valid_loss"].as_f64().unwrap().is_finite(),
                "{recipe}"
            );
        }
    }
    let num_trained = |recipe_idx: usize| {
        report["recipes"][recipe_idx]["methods"][1]["num_trainable_params"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(report["recipes"][3]["name"], "without-head-only");
    assert!(num_trained(3) > num_trained(0), "the layers train too");
}

#[test]
fn alpaca_scores_answers_under_causal_and_trains_on_its_validation_rows_as_published() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alpaca.jsonl");
    let words = ["lizard", "heron", "otter", "beetle", "toad", "fox"];
    let rows: Vec<String> = (0..90)
        .map(|idx| {
            let [one, two] = [words[idx % 6], words[idx / 6 % 6]];
            let input = if idx % 2 == 0 { "" } else { one };
            serde_json::json!({
                "instruction": format!("Tell of the {one} and {two} {idx}."),
                "input": input,
                "output": format!("The {one} rested by the barn until the {two} circled too."),
            })
            .to_string()
                + "\n"
        })
        .collect();
    atomic_file::write(&path, rows.concat().as_bytes()).unwrap();
    let recipes = "as-published,without-trained-validation,without-plain-generation,causal";
    let flags = [
        "--seq-len",
        "512",
        "--condition",
        "task",
        "--recipes",
        recipes,
        "--answers",
        "3",
    ];
    let report = report(&run("alpaca", &path, folder.path(), &flags));
    let facts = |recipe_idx: usize, name: &str| {
        report["recipes"][recipe_idx]["facts"][name]
            .as_u64()
            .unwrap()
    };
    assert_eq!(
        facts(0, "num_train_rows"),
        facts(1, "num_train_rows") + facts(0, "num_valid_rows")
    );
    assert_eq!(
        facts(3, "num_test_rows") + facts(3, "num_valid_rows") + facts(3, "num_train_rows"),
        90
    );
    for recipe in report["recipes"].as_array().unwrap() {
        let loss = recipe["methods"][2]["valid_loss"].as_f64().unwrap();
        assert!(loss.is_finite(), "{recipe}");
    }
    // Generated without a condition, all that is not LoRA answers like the base model.
    let text = |recipe_idx: usize, method_idx: usize| {
        &report["recipes"][recipe_idx]["methods"][method_idx]["runs"][0]["text"]
    };
    assert_eq!(text(0, 0)["num_answers"], 3);
    assert_eq!(text(0, 0), text(0, 2));
    assert!(text(2, 2)["rouge1"].is_number() && text(3, 4)["meteor"].is_number());
}

#[test]
fn what_cannot_work_is_one_sentence_and_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    wikitext(folder.path());
    for (flags, expected) in [
        (&["--recipes", "without-leaks"][..], "has no quirk `leaks`"),
        (&["--recipes", "published"], "unknown recipe `published`"),
        (&["--batch-size", "1000"], "one"),
        (
            &["--max-examples", "0"],
            "invalid value '0' for '--max-examples <N>'",
        ),
    ] {
        let output = reproduce(folder.path(), flags);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {stderr}");
        assert!(stderr.contains(expected), "{flags:?}: {stderr}");
    }
}
