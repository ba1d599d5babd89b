//! `batch` on whole files, by the program itself: killed, resumed, and compared with an uninterrupted run.

mod support;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use support::{TRAINING, chameleon, chameleon_on, fixture, run};

/// An adapter that sees the mean of a group, so that answers depend on which prompts are grouped.
fn train(folder: &Path) -> PathBuf {
    let out = folder.join("adapter");
    let more = ["--lr", "0.01", "--epochs", "4", "--condition", "batch"];
    run(chameleon("train", folder, &TRAINING)
        .args(more)
        .arg("--out")
        .arg(&out));
    out
}

fn batch(folder: &Path, adapter: &Path, out: &Path, batch_size: &str) -> Command {
    let flags = ["--max-new-tokens", "40", "--batch-size", batch_size];
    let mut program = chameleon("batch", folder, &flags);
    program.arg("--adapter").arg(adapter).arg("--out").arg(out);
    program
}

fn journal(out: &Path) -> PathBuf {
    let mut path = out.as_os_str().to_owned();
    path.push(".journal");
    path.into()
}

fn num_lines(path: &Path) -> usize {
    fs::read(path).map_or(0, |bytes| bytes.split(|&byte| byte == b'\n').count() - 1)
}

#[test]
fn a_killed_batch_goes_on_to_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = train(folder.path());
    let (straight, killed) = (folder.path().join("straight"), folder.path().join("killed"));
    run(&mut batch(folder.path(), &adapter, &straight, "8"));

    for num_answers in [5, 30] {
        let mut child = batch(folder.path(), &adapter, &killed, "2")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_mins(1);
        // The header is a line as well.
        while num_lines(&journal(&killed)) <= num_answers {
            assert!(Instant::now() < deadline, "no answers within a minute");
            std::thread::sleep(Duration::from_millis(1));
        }
        // On Unix this is SIGKILL: nothing of the program runs afterwards.
        child.kill().unwrap();
        assert!(
            !child.wait().unwrap().success(),
            "it ended before it was killed"
        );
        assert!(!killed.exists());
        let mut file = OpenOptions::new()
            .append(true)
            .open(journal(&killed))
            .unwrap();
        file.write_all(b"7\t{\"line\":8,\"pro").unwrap();
    }
    let output = run(&mut batch(folder.path(), &adapter, &killed, "3"));
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(
        messages.contains("prompts are answered already"),
        "{messages}"
    );
    assert!(!journal(&killed).exists());

    let answers = fs::read_to_string(&killed).unwrap();
    assert_eq!(answers, fs::read_to_string(&straight).unwrap());
    let rows: Vec<Value> = answers
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let prompts = fs::read_to_string(fixture("mix.jsonl")).unwrap();
    assert_eq!(rows.len(), prompts.lines().count());
    for (row, prompt) in rows.iter().zip(prompts.lines()) {
        let prompt: Value = serde_json::from_str(prompt).unwrap();
        assert_eq!(row["prompt"], prompt["text"]);
        assert!(row["group"].as_u64().unwrap() < 3);
    }
}

#[test]
fn what_is_there_is_not_written_over_and_other_flags_do_not_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("answers.jsonl");
    let answer = |more: &[&str]| {
        let output = chameleon("batch", folder.path(), &["--max-examples", "2"])
            .arg("--out")
            .arg(&out)
            .args(more)
            .output()
            .unwrap();
        let messages = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), messages)
    };
    fs::File::create(journal(&out))
        .unwrap()
        .write_all(b"{\"run\":\"another\"}\n")
        .unwrap();
    let (code, messages) = answer(&[]);
    assert_eq!(code, Some(2));
    assert!(messages.contains("other prompts or flags"), "{messages}");
    fs::remove_file(journal(&out)).unwrap();
    assert_eq!(answer(&["--max-new-tokens", "4"]).0, Some(0));
    let before = fs::read(&out).unwrap();
    let (code, messages) = answer(&["--max-new-tokens", "4"]);
    assert_eq!(code, Some(2));
    assert!(messages.contains("exists already"), "{messages}");
    assert_eq!(fs::read(&out).unwrap(), before);
}

#[test]
fn a_prompt_that_cannot_be_answered_says_why_in_its_row() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("p.jsonl"), folder.path().join("a.jsonl"));
    let long = "The fox ".repeat(600);
    let rows =
        format!("{{\"text\":\"The fox\"}}\n{{\"text\":\"{long}\"}}\n{{\"text\":\"The toad\"}}\n");
    fs::File::create(&data)
        .unwrap()
        .write_all(rows.as_bytes())
        .unwrap();
    let flags = ["--greedy", "--max-new-tokens", "4", "--json"];
    let output = chameleon_on(&data, "batch", folder.path(), &flags)
        .arg("--out")
        .arg(&out)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&summary["prompts"], &summary["failed"]),
        (&3.into(), &1.into())
    );
    let rows: Vec<Value> = fs::read_to_string(&out)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 3);
    assert_eq!((&rows[0]["line"], &rows[2]["line"]), (&1.into(), &3.into()));
    assert!(rows[0]["text"].is_string() && rows[2]["text"].is_string());
    let error = rows[1]["error"].as_str().unwrap();
    assert!(error.contains("the model takes 512"), "{error}");
}
