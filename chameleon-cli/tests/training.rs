//! Trains, kills, resumes and compares with the program itself, on the tiny model beside these tests.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot run the program fails"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tiny-llama")
        .join(name)
}

/// `chameleon COMMAND --model TINY --data MIX` and more, with caches in `folder`.
fn chameleon(command: &str, folder: &Path, arguments: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_chameleon"));
    program
        .arg(command)
        .arg("--model")
        .arg(fixture(""))
        .arg("--data")
        .arg(fixture("mix.jsonl"))
        .args(arguments)
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .env("NO_COLOR", "1");
    program
}

const TRAINING: [&str; 14] = [
    "--prefix",
    "8",
    "--seq-len",
    "24",
    "--clusters",
    "3",
    "--rank",
    "2",
    "--dropout",
    "0.2",
    "--batch-size",
    "4",
    "--lr",
    "0.01",
];

fn run(program: &mut Command) -> Output {
    let output = program.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    output
}

fn train(folder: &Path, out: &Path, epochs: &str, more: &[&str]) -> Command {
    // A flag may be given once: what the test gives beats what all share.
    let shared = TRAINING.chunks(2).filter(|flag| !more.contains(&flag[0]));
    let mut program = chameleon(
        "train",
        folder,
        &shared.flatten().copied().collect::<Vec<_>>(),
    );
    program
        .args(["--epochs", epochs, "--checkpoint-every", "5", "--out"])
        .arg(out)
        .args(more);
    program
}

/// Losses bit for bit: `serde_json` writes the shortest text that reads back to the same number.
fn losses(out: &Path) -> Vec<String> {
    std::fs::read_to_string(out.join("metrics.jsonl"))
        .unwrap()
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            match line.get("loss") {
                Some(loss) => format!("{} {loss}", line["step"]),
                None => format!("{} valid {}", line["step"], line["valid_loss"]),
            }
        })
        .collect()
}

fn has_checkpoint(out: &Path) -> bool {
    std::fs::read_dir(out.join("training_state")).is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("step-"))
    })
}

#[test]
fn a_killed_training_resumes_to_the_same_losses_and_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let (straight, killed) = (folder.path().join("straight"), folder.path().join("killed"));
    run(&mut train(folder.path(), &straight, "12", &[]));

    let mut child = train(folder.path(), &killed, "12", &[])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    while !has_checkpoint(&killed) {
        assert!(Instant::now() < deadline, "no checkpoint within a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
    // On Unix this is SIGKILL: nothing of the program runs afterwards.
    child.kill().unwrap();
    assert!(
        !child.wait().unwrap().success(),
        "it ended before it was killed"
    );

    run(&mut train(folder.path(), &killed, "12", &["--resume"]));
    assert_eq!(losses(&killed), losses(&straight));
    let tensors = |out: &Path| std::fs::read(out.join("adapter.safetensors")).unwrap();
    assert!(
        tensors(&killed) == tensors(&straight),
        "the adapters differ"
    );
    assert!(!killed.join("training_state").exists());
}

#[test]
fn a_folder_that_holds_an_adapter_is_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("adapter");
    run(&mut train(folder.path(), &out, "1", &[]));
    let before = std::fs::read(out.join("adapter.safetensors")).unwrap();
    let second = train(folder.path(), &out, "1", &[]).output().unwrap();
    assert_eq!(second.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&second.stderr).contains("holds an adapter already"));
    assert_eq!(
        std::fs::read(out.join("adapter.safetensors")).unwrap(),
        before
    );
}

#[test]
fn a_trained_adapter_evaluates_better_than_the_base() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("adapter");
    run(&mut train(folder.path(), &out, "20", &[]));
    let output = run(chameleon(
        "eval",
        folder.path(),
        &["--json", "--context", "24", "--prefix", "8"],
    )
    .arg("--adapter")
    .arg(&out));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let perplexity = |name: &str| report[name].as_f64().unwrap();
    assert!(
        perplexity("adapted_perplexity") < perplexity("perplexity"),
        "{report}"
    );
}

#[test]
fn compare_pairs_every_method_with_lora_and_names_its_control() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("compare");
    let methods = "frozen,lora,lora-equal,experts,dense,core,core-shuffled,core-constant";
    let mut program = chameleon("compare", folder.path(), &TRAINING);
    program
        .args([
            "--json",
            "--epochs",
            "2",
            "--seeds",
            "1,2",
            "--methods",
            methods,
            "--out",
        ])
        .arg(&out);
    let report: Value = serde_json::from_slice(&run(&mut program).stdout).unwrap();
    let rows = report["methods"].as_array().unwrap();
    assert_eq!(rows.len(), 8);
    for row in rows {
        let is_baseline = row["method"] == "lora";
        assert_eq!(row["difference"].is_null(), is_baseline, "{row}");
        assert!(row["perplexity"].as_f64().unwrap() > 1.0);
    }
    let trained = |name: &str| {
        let row = rows.iter().find(|row| row["method"] == name).unwrap();
        row["num_trainable_params"].as_u64().unwrap()
    };
    assert_eq!(trained("frozen"), 0);
    assert_eq!(trained("experts"), 3 * trained("lora"));
    let (equal, core) = (trained("lora-equal"), trained("core"));
    assert!(
        equal.abs_diff(core) * 10 < core,
        "{equal} is not near {core}"
    );
    assert_eq!(report["findings"].as_array().unwrap().len(), 2);
    let written: Value =
        serde_json::from_slice(&std::fs::read(out.join("compare.json")).unwrap()).unwrap();
    assert_eq!(written["methods"], report["methods"]);
}

#[test]
fn lora_inside_the_layers_trains_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("adapter");
    let more = ["--method", "lora", "--targets", "q_proj,v_proj"];
    run(&mut train(folder.path(), &out, "1", &more));
    let config: Value =
        serde_json::from_slice(&std::fs::read(out.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(config["layers"]["targets"][0], "q_proj");
}

/// A training that must be refused with exit code 2, one sentence and a hint, and must write nothing.
fn refused(arguments: &[&str], word: &str) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("adapter");
    let output = train(folder.path(), &out, "1", arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains(word) && stderr.contains("help:"),
        "{stderr}"
    );
    assert!(!out.exists(), "something was written");
}

#[test]
fn impossible_trainings_are_refused_before_anything_is_written() {
    refused(&["--rank", "0"], "rank");
    refused(&["--clusters", "100000"], "100000");
    refused(&["--prefix", "300", "--seq-len", "400"], "long enough");
    refused(&["--targets", "nothing_proj"], "q_proj");
    refused(&["--device", "abacus"], "flex");
    refused(&["--resume"], "no training");
}
