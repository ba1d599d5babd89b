//! Trains, kills and resumes with the program itself, on the tiny model beside these tests.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot run the program fails"
)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use support::{TRAINING, chameleon, run};

fn train(folder: &Path, out: &Path, epochs: &str, more: &[&str]) -> Command {
    // A flag may be given once: what the test gives beats what all share.
    let shared = TRAINING.chunks(2).filter(|flag| !more.contains(&flag[0]));
    let mut program = chameleon(
        "train",
        folder,
        &shared.flatten().copied().collect::<Vec<_>>(),
    );
    program
        .args(["--lr", "0.01", "--epochs", epochs])
        .args(["--checkpoint-every", "5", "--out"])
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
fn lora_inside_the_layers_trains_from_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("adapter");
    let more = ["--method", "lora", "--targets", "q_proj,v_proj"];
    run(&mut train(folder.path(), &out, "1", &more));
    let config: Value =
        serde_json::from_slice(&std::fs::read(out.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(config["layers"]["targets"][0], "q_proj");
    // Factors that never moved would be zero: the file is read far enough to see that they are not.
    let bytes = std::fs::read(out.join("adapter.safetensors")).unwrap();
    let header_len = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let header: Value = serde_json::from_slice(&bytes[8..8 + header_len]).unwrap();
    let place = &header["layers.1.self_attn.v_proj.b"]["data_offsets"];
    let at = |idx: usize| 8 + header_len + usize::try_from(place[idx].as_u64().unwrap()).unwrap();
    assert!(bytes[at(0)..at(1)].iter().any(|&byte| byte != 0));
}

/// Generated cores in the upper layer, prompts by their hidden states.
const LAYERS: [&str; 9] = [
    "--targets",
    "q_proj,up_proj",
    "--layers",
    "1..2",
    "--layer-rank",
    "3",
    "--representation",
    "hidden:1",
    "--standardise",
];

#[test]
fn cores_inside_the_layers_train_stop_resume_score_and_write() {
    let folder = tempfile::tempdir().unwrap();
    let (straight, cut) = (folder.path().join("straight"), folder.path().join("cut"));
    run(&mut train(folder.path(), &straight, "6", &LAYERS));
    let mut child = train(folder.path(), &cut, "6", &LAYERS)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    while !has_checkpoint(&cut) {
        assert!(Instant::now() < deadline, "no checkpoint within a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let more: Vec<&str> = LAYERS.iter().copied().chain(["--resume"]).collect();
    run(&mut train(folder.path(), &cut, "6", &more));
    assert_eq!(losses(&cut), losses(&straight));
    let config = std::fs::read(straight.join("adapter_config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(config["layers"]["kind"], "core");
    assert_eq!(config["layers"]["layers"], "1..2");
    assert_eq!(config["prompts"]["representation"], "hidden:1");

    let adapter = straight.to_str().unwrap();
    let evaluated = [
        "--json",
        "--context",
        "24",
        "--prefix",
        "8",
        "--adapter",
        adapter,
    ];
    let report = run(&mut chameleon("eval", folder.path(), &evaluated));
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    let perplexity = |name: &str| report[name].as_f64().unwrap();
    assert!(perplexity("adapted_perplexity") < perplexity("perplexity"));
    let mut program = Command::new(env!("CARGO_BIN_EXE_chameleon"));
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-llama");
    let written = run(program
        .args([
            "generate",
            "--greedy",
            "--max-new-tokens",
            "8",
            "--model",
            model,
        ])
        .args(["--adapter", adapter, "The fox", "fn total_count"]));
    assert!(!written.stdout.is_empty());
}

fn json(program: &mut Command) -> Value {
    serde_json::from_slice(&run(program).stdout).unwrap()
}

/// `chameleon COMMAND --model TINY --adapter OUT` and more.
fn with_adapter(command: &str, out: &Path, arguments: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_chameleon"));
    program
        .args([command, "--model"])
        .arg(support::fixture(""))
        .arg("--adapter")
        .arg(out)
        .args(arguments);
    program
}

const MEMORY: [&str; 3] = ["--memory", "--memory-tokens", "900"];

#[test]
fn a_memory_is_made_scored_told_and_decoded_with() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("adapter");
    let more: Vec<&str> = MEMORY.iter().copied().chain(["--json"]).collect();
    let trained = json(&mut train(folder.path(), &out, "3", &more));
    let told = trained["memory"]["valid_perplexity"].as_f64().unwrap();
    assert!(told < trained["valid_perplexity"].as_f64().unwrap());

    let mix = support::fixture("mix.jsonl");
    let scored = ["--data", mix.to_str().unwrap(), "--context", "24"];
    let scored: Vec<&str> = scored.into_iter().chain(["--prefix", "8"]).collect();
    let eval = |more: &[&str]| {
        let all: Vec<&str> = scored.iter().chain(more).copied().collect();
        json(&mut with_adapter("eval", &out, &all))
    };
    let (with, without) = (eval(&["--json"]), eval(&["--json", "--no-memory"]));
    assert_eq!(
        with["perplexity_without_memory"],
        without["adapted_perplexity"]
    );
    let perplexity = |report: &Value| report["adapted_perplexity"].as_f64().unwrap();
    assert!(perplexity(&with) < perplexity(&without));

    let info = run(&mut with_adapter("info", &out, &[]));
    let info = String::from_utf8(info.stdout).unwrap();
    let line = "tokens by keys of 16 values from the states that enter layer 1, 0.1 MiB";
    assert!(info.contains(line), "{info}");

    let prompts = ["The fox", "fn total_count", "The heron", "let offset"];
    let answers = |more: &[&str]| {
        let all: Vec<&str> = more.iter().chain(&prompts).copied().collect();
        run(&mut with_adapter("generate", &out, &all)).stdout
    };
    let remembered = answers(&["--batch-size", "4"]);
    assert_eq!(remembered, answers(&["--batch-size", "1"]));
    assert_ne!(remembered, answers(&["--batch-size", "4", "--no-memory"]));
}

#[test]
fn a_training_that_was_cut_off_before_its_memory_makes_it_when_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let (straight, cut) = (folder.path().join("straight"), folder.path().join("cut"));
    run(&mut train(folder.path(), &straight, "2", &MEMORY));
    // A folder in the way of the file: everything but the memory is done.
    let in_the_way = cut.join("memory.safetensors").join("in-the-way");
    std::fs::create_dir_all(&in_the_way).unwrap();
    let stopped = train(folder.path(), &cut, "2", &MEMORY).output().unwrap();
    assert_eq!(stopped.status.code(), Some(2));
    assert!(has_checkpoint(&cut));
    std::fs::remove_dir_all(cut.join("memory.safetensors")).unwrap();
    let more: Vec<&str> = MEMORY.iter().copied().chain(["--resume"]).collect();
    run(&mut train(folder.path(), &cut, "2", &more));
    for file in [
        "adapter_config.json",
        "adapter.safetensors",
        "memory.safetensors",
    ] {
        let read = |out: &Path| std::fs::read(out.join(file)).unwrap();
        assert_eq!(read(&cut), read(&straight), "{file}");
    }
    assert!(!has_checkpoint(&cut));
}

#[test]
fn memories_that_cannot_be_are_refused() {
    refused(&["--memory-layer", "1"], "not provided:\n  --memory\n");
    refused(&["--memory", "--memory-layer", "9"], "layer 9 of a model");
    refused(
        &["--memory", "--targets", "q_proj"],
        "which the adapter changes from layer 0 on",
    );
}

/// A training that must be refused with exit code 2, one sentence and a hint, and must write nothing.
fn refused(arguments: &[&str], word: &str) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("adapter");
    let output = train(folder.path(), &out, "1", arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let has_hint = stderr.contains("help:") || stderr.contains("try '--help'");
    assert!(stderr.contains(word) && has_hint, "{stderr}");
    assert!(!out.exists(), "something was written");
}

#[test]
fn impossible_trainings_are_refused_before_anything_is_written() {
    refused(&["--rank", "0"], "rank");
    refused(&["--clusters", "100000"], "100000");
    refused(&["--prefix", "300", "--seq-len", "400"], "long enough");
    refused(&["--targets", "nothing_proj"], "q_proj");
    refused(&["--targets", "q_proj", "--layers", "1..3"], "layers 1..3");
    refused(&["--representation", "hidden:3"], "3 layers");
    refused(&["--device", "abacus"], "flex");
    refused(&["--resume"], "no checkpoint");
}
