//! Compares, kills, resumes and sweeps with the program itself, on the tiny model beside these tests.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot run the program fails"
)]

mod support;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use support::{TRAINING, chameleon, chameleon_on, run};

/// The flags of all trainings, less those that a test gives itself.
fn shared<'a>(more: &[&str]) -> Vec<&'a str> {
    let flags = TRAINING.chunks(2).filter(|flag| !more.contains(&flag[0]));
    flags.flatten().copied().collect()
}

fn compare(folder: &Path, out: &Path, more: &[&str]) -> Command {
    let parts = [
        "--json",
        "--test-fraction",
        "0.2",
        "--valid-fraction",
        "0.2",
    ];
    let mut program = chameleon("compare", folder, &shared(more));
    program.args(parts).arg("--out").arg(out).args(more);
    program
}

/// The same on other rows, with the usual parts and a table as text.
fn compare_rows(data: &Path, out: &Path, folder: &Path, more: &[&str]) -> Command {
    let mut program = chameleon_on(data, "compare", folder, &shared(more));
    program.arg("--out").arg(out).args(more);
    program
}

fn report(program: &mut Command) -> Value {
    serde_json::from_slice(&run(program).stdout).unwrap()
}

#[test]
fn lora_of_equal_size_counts_what_is_inside_the_layers() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("compare");
    let more = [
        "--epochs",
        "1",
        "--num-seeds",
        "1",
        "--lr",
        "0.01",
        "--methods",
        "core",
        "--targets",
        "q_proj,down_proj",
        "--layers",
        "1..2",
    ];
    let report = report(&mut compare(folder.path(), &out, &more));
    let trained = |name: &str| row(&report, name)["num_trainable_params"].as_u64().unwrap();
    let (equal, core) = (trained("lora-equal"), trained("core"));
    assert!(
        equal.abs_diff(core) * 10 < core,
        "{equal} is not near {core}"
    );
}

fn row<'a>(report: &'a Value, name: &str) -> &'a Value {
    let rows = report["methods"].as_array().unwrap();
    rows.iter().find(|row| row["method"] == name).unwrap()
}

#[test]
fn a_hypernetwork_brings_its_controls_and_its_lora_and_all_choose_alike() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("compare");
    let more = [
        "--epochs",
        "3",
        "--num-seeds",
        "2",
        "--lr",
        "0.002,0.01",
        "--methods",
        "dense,core,experts",
    ];
    let report = report(&mut compare(folder.path(), &out, &more));
    let names: Vec<&str> = report["methods"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["method"].as_str().unwrap())
        .collect();
    let expected = "frozen lora lora-equal lora-equal-dense experts dense dense-redrawn \
                    dense-constant core core-redrawn core-constant";
    assert_eq!(names, expected.split(' ').collect::<Vec<_>>());
    assert_eq!(report["seeds"], serde_json::json!([1, 2]));
    for row in report["methods"].as_array().unwrap() {
        let baseline = match row["method"].as_str().unwrap() {
            "lora-equal" => None,
            "dense" | "dense-redrawn" | "dense-constant" => Some("lora-equal-dense"),
            _ => Some("lora-equal"),
        };
        assert_eq!(row["baseline"].as_str(), baseline, "{row}");
        assert_eq!(row["difference"].is_null(), baseline.is_none(), "{row}");
        if row["method"] == "frozen" {
            continue;
        }
        // The same trials for all; the chosen one is the best of them; then every seed, no longer than chosen.
        let trials = row["trials"].as_array().unwrap();
        assert_eq!(trials.len(), 2);
        let valid = |trial: &Value| trial["kept"]["valid_loss"].as_f64().unwrap();
        let lowest = trials.iter().map(valid).fold(f64::INFINITY, f64::min);
        assert_eq!(row["chosen"]["valid_loss"].as_f64(), Some(lowest));
        let runs = row["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 2);
        for run in runs {
            assert_eq!(run["learning_rate"], row["chosen"]["learning_rate"]);
            assert_eq!(run["kept"]["epoch"], row["chosen"]["epoch"]);
        }
        assert_eq!(
            runs[1]["curve"].as_array().unwrap().len() as u64,
            row["chosen"]["epoch"].as_u64().unwrap()
        );
    }
    let trained = |name: &str| row(&report, name)["num_trainable_params"].as_u64().unwrap();
    assert_eq!(trained("frozen"), 0);
    assert_eq!(trained("experts"), 3 * trained("lora"));
    let (equal, core) = (trained("lora-equal"), trained("core"));
    assert!(
        equal.abs_diff(core) * 10 < core,
        "{equal} is not near {core}"
    );
    // Four baselines for each hypernetwork, and the larger hypernetwork for the smaller one.
    assert_eq!(report["comparisons"].as_array().unwrap().len(), 9);
    let written: Value =
        serde_json::from_slice(&std::fs::read(out.join("compare.json")).unwrap()).unwrap();
    assert_eq!(written["methods"], report["methods"]);
}

#[test]
fn a_memory_stands_beside_the_trainings_of_its_adapter_and_beats_that_of_other_groups() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("compare");
    let more = [
        "--epochs",
        "1",
        "--num-seeds",
        "2",
        "--lr",
        "0.01",
        "--methods",
        "core-memory",
    ];
    let first = report(&mut compare(folder.path(), &out, &more));
    let names: Vec<&str> = first["methods"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["method"].as_str().unwrap())
        .collect();
    let expected =
        "frozen lora lora-equal core core-memory core-memory-redrawn core-memory-constant";
    assert_eq!(names, expected.split(' ').collect::<Vec<_>>());
    // The texts of the fixture repeat themselves by kind: what the own group said before helps, what others said
    // does not.
    let loss = |name: &str| row(&first, name)["loss"].as_f64().unwrap();
    assert!(loss("core-memory") < loss("core") - 0.05, "{first:#}");
    assert!(loss("core-memory") < loss("core-memory-redrawn") - 0.05);
    assert!(loss("core-memory-redrawn") < loss("core") + 0.05);
    // Only the gate is trained: a temperature, five weights and a bias for each of three groups.
    let trained = |name: &str| row(&first, name)["num_trainable_params"].as_u64().unwrap();
    assert_eq!(trained("core-memory"), trained("core") + 1 + 5 + 3);
    assert_eq!(first["headline"]["method"], "core-memory");
    assert_eq!(first["headline"]["baseline"], "lora-equal");
    assert!(first["memory"]["num_entries"].as_u64().unwrap() > 0);
    // No folder of its own: the adapter of `core` is used.
    assert!(!out.join("runs/core-memory-seed-1-lr-0.01").exists());
    assert!(
        out.join("runs/core-seed-1-lr-0.01/scores-core-memory.json")
            .exists()
    );

    let again = report(compare(folder.path(), &out, &more).arg("--resume"));
    let loss_again = row(&again, "core-memory")["loss"].as_f64().unwrap();
    assert!((loss_again - loss("core-memory")).abs() < 1e-9);
}

#[test]
fn a_memory_with_arrived_prompts_grows_with_the_group() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("compare");
    let more = [
        "--epochs",
        "1",
        "--lr",
        "0.01",
        "--methods",
        "lora-memory",
        "--condition",
        "batch",
        "--sweep",
        "group-size=1,8",
    ];
    let report = report(&mut compare(folder.path(), &out, &more));
    let points = report["points"].as_array().unwrap();
    let losses: Vec<f64> = points
        .iter()
        .map(|point| point["gains"][0]["difference"]["mean"].as_f64().unwrap())
        .collect();
    assert!(losses.iter().all(|&gain| gain < 0.0), "{losses:?}");
    assert!((losses[0] - losses[1]).abs() > 1e-9, "{losses:?}");
}

#[test]
fn a_memory_by_a_layer_that_is_not_there_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("compare");
    let more = ["--methods", "lora-memory", "--memory-layer", "9"];
    let output = compare(folder.path(), &out, &more).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("enter layer 9 of a model with layers 0 to"),
        "{stderr}"
    );
    assert!(
        stderr.contains("choose another `--memory-layer`"),
        "{stderr}"
    );
}

/// The texts of the fixture, four of each source, in a file of their own.
fn with_sources(folder: &Path) -> PathBuf {
    let mix = std::fs::read_to_string(support::fixture("mix.jsonl")).unwrap();
    let path = folder.join("sources.jsonl");
    let mut file = std::fs::File::create(&path).unwrap();
    for (idx, line) in mix.lines().enumerate() {
        let mut record: Value = serde_json::from_str(line).unwrap();
        record["article"] = Value::from(format!("article {}", idx / 4));
        writeln!(file, "{record}").unwrap();
    }
    path
}

#[test]
fn sources_are_resampled_whole_and_the_report_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let data = with_sources(folder.path());
    let out = folder.path().join("compare");
    let more = [
        "--source-field",
        "article",
        "--methods",
        "lora",
        "--epochs",
        "1",
        "--lr",
        "0.01",
        "--test-fraction",
        "0.4",
    ];
    let mut program = compare_rows(&data, &out, folder.path(), &more);
    let text = String::from_utf8(run(&mut program).stdout).unwrap();
    let report: Value =
        serde_json::from_slice(&std::fs::read(out.join("compare.json")).unwrap()).unwrap();
    let resampled = &report["resampled"];
    assert_eq!(resampled["unit"], "sources");
    let num_units = resampled["num_units"].as_u64().unwrap();
    assert_eq!(
        report["num_test_documents"].as_u64(),
        Some(4 * num_units),
        "{resampled}"
    );
    let words = format!("{num_units} sources and 1 seed");
    assert!(text.contains(&words), "{text}");
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(html.contains(&words));
}

#[test]
fn the_page_shows_of_instructions_what_is_wanted_and_not_the_words_of_the_template() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("alpaca.jsonl");
    let mut file = std::fs::File::create(&data).unwrap();
    for idx in 0..60 {
        let record = serde_json::json!({
            "instruction": format!("Tell of the lizard {idx}."),
            "output": "The lizard rested by the barn until the toad circled too.",
        });
        writeln!(file, "{record}").unwrap();
    }
    let out = folder.path().join("compare");
    let more = ["--epochs", "1", "--lr", "0.01", "--seq-len", "256"];
    run(&mut compare_rows(&data, &out, folder.path(), &more));
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert!(html.contains("Most helped by core"));
    assert!(html.contains("group 0: Tell of the lizard"), "the map");
    assert!(
        html.contains("<span class=\"prompt\">Tell of the lizard"),
        "the samples"
    );
    assert!(!html.contains("Below is an instruction"));
}

#[test]
fn adapters_of_rates_that_lost_are_deleted_and_made_again_when_they_are_all_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("compare");
    let shared = ["--epochs", "2", "--methods", "lora"];
    let both = report(compare(folder.path(), &out, &shared).args(["--lr", "0.002,0.01"]));
    let chosen = row(&both, "lora")["chosen"]["learning_rate"]
        .as_f64()
        .unwrap();
    let lost = if chosen < 0.005 { "0.01" } else { "0.002" };
    let weights = |rate: &str| out.join(format!("runs/lora-seed-1-lr-{rate}/adapter.safetensors"));
    assert!(weights(&chosen.to_string()).exists() && !weights(lost).exists());
    let alone = report(compare(folder.path(), &out, &shared).args(["--lr", lost, "--resume"]));
    assert!(weights(lost).exists());
    let trial = |report: &Value, idx: usize| row(report, "lora")["trials"][idx]["kept"].clone();
    let lost_idx = usize::from(lost == "0.01");
    assert_eq!(trial(&alone, 0), trial(&both, lost_idx));
}

/// Every opening tag has its closing one, in order; enough of HTML to know that no text broke out.
fn assert_balanced(html: &str) {
    const VOID: [&str; 2] = ["meta", "!doctype"];
    let mut open: Vec<&str> = Vec::new();
    for tag in html.split('<').skip(1) {
        let name = tag.split([' ', '>', '/']).next().unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            let closed = closed.split('>').next().unwrap();
            assert_eq!(open.pop(), Some(closed), "{tag}");
        } else if !VOID.contains(&name) && !tag.split('>').next().unwrap().ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_report_is_one_page_with_all_figures_and_hostile_texts_stay_texts() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("hostile.jsonl");
    let mix = std::fs::read_to_string(support::fixture("mix.jsonl")).unwrap();
    let hostile = mix
        .replace(
            "\"kind\": \"prose\"",
            "\"kind\": \"<script>alert(1)</script>\"",
        )
        .replace("The lizard", "</pre><img src=x onerror=alert(1)> & lizard");
    assert_ne!(hostile, mix);
    std::fs::File::create(&data)
        .and_then(|mut file| file.write_all(hostile.as_bytes()))
        .unwrap();
    let out = folder.path().join("compare");
    let more = [
        "--label-field",
        "kind",
        "--epochs",
        "2",
        "--lr",
        "0.002,0.01",
    ];
    let mut program = compare_rows(&data, &out, folder.path(), &more);
    run(&mut program);
    let html = std::fs::read_to_string(out.join("report.html")).unwrap();
    assert_balanced(&html);
    for hostile in ["<script", "<img", "http:", "https:", "@import"] {
        assert!(!html.contains(hostile), "{hostile}");
    }
    assert!(html.contains("&lt;script&gt;alert(1)"));
    for needed in [
        "prefers-color-scheme: dark",
        "Differences on the test",
        "Validation loss by epoch",
        "Learning rates that were tried",
        "core-memory against lora-equal by label",
        "core-memory against lora-equal by group",
        "groups remember",
        "Map of the groups",
        "Most helped by core-memory",
        "Most hurt by core-memory",
        "one seed",
        "compare --label-field kind",
    ] {
        assert!(html.contains(needed), "{needed}");
    }
    // Every figure has a name that is read aloud and its numbers in a table.
    assert_eq!(html.matches("<figure>").count(), 6);
    assert_eq!(html.matches("role=\"img\" aria-label").count(), 6);
    assert_eq!(html.matches("<details>").count(), 6);
}

/// Without what depends on the clock or on the flags of this very call.
fn timeless(mut report: Value) -> Value {
    fn scrub(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for name in ["seconds", "peak_memory_bytes", "command", "out"] {
                    fields.remove(name);
                }
                fields.values_mut().for_each(scrub);
            }
            Value::Array(values) => values.iter_mut().for_each(scrub),
            _ => {}
        }
    }
    scrub(&mut report);
    report
}

fn num_finished(out: &Path) -> usize {
    std::fs::read_dir(out.join("runs")).map_or(0, |runs| {
        runs.flatten()
            .filter(|run| run.path().join("run.json").exists())
            .count()
    })
}

#[test]
fn a_killed_comparison_keeps_its_finished_runs_and_resumes_to_the_same_table() {
    let folder = tempfile::tempdir().unwrap();
    let (straight, killed) = (folder.path().join("straight"), folder.path().join("killed"));
    let more = ["--epochs", "4", "--lr", "0.002,0.01", "--methods", "core"];
    let expected = report(&mut compare(folder.path(), &straight, &more));

    let mut child = compare(folder.path(), &killed, &more)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    while num_finished(&killed) < 2 {
        assert!(Instant::now() < deadline, "no run within a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert!(
        !child.wait().unwrap().success(),
        "it ended before it was killed"
    );
    let kept = killed.join("runs/lora-seed-1-lr-0.002/run.json");
    let written = std::fs::metadata(&kept).unwrap().modified().unwrap();

    // Not without being asked to, and not with other settings.
    let again = compare(folder.path(), &killed, &more).output().unwrap();
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--resume"));
    let other = [
        "--epochs",
        "5",
        "--lr",
        "0.002,0.01",
        "--methods",
        "core",
        "--resume",
    ];
    let other = compare(folder.path(), &killed, &other).output().unwrap();
    assert_eq!(other.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&other.stderr).contains("other flags"));

    let resumed = report(compare(folder.path(), &killed, &more).arg("--resume"));
    assert_eq!(timeless(resumed), timeless(expected));
    assert_eq!(
        std::fs::metadata(&kept).unwrap().modified().unwrap(),
        written
    );
}

#[test]
fn a_sweep_of_prefixes_compares_the_same_texts_and_computes_states_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("sweep");
    let more = ["--epochs", "1", "--lr", "0.01", "--sweep", "prefix=12,4,8"];
    let swept = report(&mut compare(folder.path(), &out, &more));
    assert_eq!(swept["setting"], "prefix");
    let points = swept["points"].as_array().unwrap();
    let values: Vec<u64> = points
        .iter()
        .map(|point| point["value"].as_u64().unwrap())
        .collect();
    assert_eq!(values, [4, 8, 12]);
    let tokens: Vec<u64> = points
        .iter()
        .map(|point| point["num_test_tokens"].as_u64().unwrap())
        .collect();
    let num_examples = (tokens[0] - tokens[1]) / 4;
    assert_eq!(tokens[1] - tokens[2], 4 * num_examples);
    let states = std::fs::read_dir(folder.path().join("cache/chameleon/hidden-states")).unwrap();
    assert_eq!(
        states.count(),
        6,
        "for each part one file before the head and one for the memory, whatever the prefix"
    );
    // A point is the comparison that one would get alone, on these texts.
    let point: Value =
        serde_json::from_slice(&std::fs::read(out.join("prefix-4/compare.json")).unwrap()).unwrap();
    assert_eq!(point["prefix"], 4);
    // It is about what a comparison is about, not about the first method with a rival.
    assert_eq!(swept["method"], "core-memory");
    let comparisons = point["comparisons"].as_array().unwrap();
    let differences = comparisons
        .iter()
        .filter(|row| row["method"] == "core-memory")
        .map(|row| &row["difference"]);
    let gains = points[0]["gains"].as_array().unwrap();
    assert!(differences.eq(gains.iter().map(|gain| &gain["difference"])));
}

/// Point 12 of both sweeps sees the same texts, whose states begin at the smallest prefix of its sweep.
#[test]
fn a_sweep_of_prefixes_adapts_layers_from_states_that_all_its_points_share() {
    let folder = tempfile::tempdir().unwrap();
    let sweep = |values: &str| {
        let out = folder.path().join(values);
        let cache = folder.path().join(format!("cache-{values}"));
        let sweep = format!("prefix={values}");
        let more = [
            "--epochs",
            "2",
            "--lr",
            "0.01",
            "--methods",
            "core",
            "--targets",
            "q_proj,down_proj",
            "--layers",
            "1..2",
            "--sweep",
            &sweep,
        ];
        let report = report(
            compare(folder.path(), &out, &more)
                .arg("--cache-dir")
                .arg(&cache),
        );
        // Those that enter the layer for each part, and those of the frozen model for the test.
        assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 4);
        let points = report["points"].as_array().unwrap();
        points.last().unwrap().clone()
    };
    let (from_four, from_eight) = (sweep("4,12"), sweep("8,12"));
    let without_folder = |mut point: Value| {
        point.as_object_mut().unwrap().remove("out");
        point
    };
    assert_eq!(without_folder(from_four), without_folder(from_eight));
}

#[test]
fn a_sweep_of_group_sizes_trains_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("sweep");
    let more = [
        "--epochs",
        "1",
        "--lr",
        "0.01",
        "--condition",
        "batch",
        "--sweep",
        "group-size=1,4",
    ];
    let swept = report(&mut compare(folder.path(), &out, &more));
    let points = swept["points"].as_array().unwrap();
    assert_eq!(points.len(), 2);
    let perplexity = |idx: usize| points[idx]["perplexity"].as_f64().unwrap();
    assert!(
        (perplexity(0) - perplexity(1)).abs() > 1e-9,
        "the size of groups changes nothing"
    );
    assert_eq!(num_finished(&out), 3);
}
