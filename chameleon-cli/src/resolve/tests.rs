//! Flags and files in, checked configs or refusals out.

use std::{ffi::OsString, io::Write};

use chameleon_hypernet::Condition;
use chameleon_models::WeightStorage;
use chameleon_models::data::InstructionCondition;
use chameleon_models::engine::Sampling;
use chameleon_models::training::{HeldOut, SpanConfig, Start};

use super::{training::EvalWindows, *};
use crate::errors::{ConfigFileError, FlagError};

const TRAIN: &str = "chameleon train --model m --data d --out o";

fn resolve_run(line: &str) -> Result<Run, CliError> {
    let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
    resolve(read_flags(arguments)?)
}

fn resolve_line(line: &str) -> Result<RunConfig, CliError> {
    resolve_run(line).map(|run| run.command)
}

fn train(line: &str) -> TrainConfig {
    match resolve_line(line) {
        Ok(RunConfig::Train(config)) => *config,
        other => panic!("expected a training, found {other:?}"),
    }
}

fn refusal(line: &str) -> FlagError {
    match resolve_line(line) {
        Err(CliError::Rule(error)) => error,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

fn config_file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn with_file(line: &str, text: &str) -> Result<RunConfig, CliError> {
    let file = config_file(text);
    resolve_line(&format!("{line} --config {}", file.path().display()))
}

fn file_refusal(line: &str, text: &str) -> ConfigFileError {
    match with_file(line, text) {
        Err(CliError::ConfigFile(error)) => error,
        other => panic!("expected a refusal of the file, found {other:?}"),
    }
}

#[test]
fn defaults_make_a_complete_training() {
    let config = train(TRAIN);
    assert_eq!(config.valid, HeldOut::Fraction(0.1));
    assert_eq!(config.training.span, SpanConfig::new(32, 128));
    assert_eq!(config.training.adapter.hidden_sizes, [64, 32]);
    assert_eq!(config.training.adapter.condition, Condition::Centroid);
}

#[test]
fn alpha_is_scale_times_rank() {
    assert!(
        (train(&format!("{TRAIN} --rank 8 --alpha 4"))
            .training
            .adapter
            .scale
            - 0.5)
            .abs()
            < 1e-12
    );
    assert!(
        (train(&format!("{TRAIN} --rank 8 --scale 4"))
            .training
            .adapter
            .scale
            - 4.0)
            .abs()
            < 1e-12
    );
}

/// clap's error message for an invalid command line.
fn flag_refusal(line: &str) -> String {
    match resolve_line(line) {
        Err(CliError::Flags(error)) => error.to_string(),
        other => panic!("expected a refusal by clap, found {other:?}"),
    }
}

#[test]
fn impossible_numbers_are_refused_by_name() {
    for flags in [
        "--rank 0",
        "--clusters 0",
        "--prefix 0",
        "--batch-size 0",
        "--hidden-sizes 64,0",
        "--checkpoint-every 0",
        "--max-examples 0",
        "--lr 0",
        "--lr nan",
        "--lr=-1",
        "--warmup 1",
        "--dropout 1",
        "--valid-fraction 1",
        "--valid-fraction 0",
        "--clip 0",
        "--scale inf",
        "--targets a,,b",
    ] {
        let message = flag_refusal(&format!("{TRAIN} {flags}"));
        let flag = flags.split([' ', '=']).next().unwrap();
        assert!(message.contains(flag), "{flags}: {message}");
    }
    for line in [
        "chameleon eval --model m --data d --context 1",
        "chameleon generate --model m --stop=",
        "chameleon generate --model m --top-p 1.5",
        "chameleon compare --model m --data d --out o --sweep prefix=8,0",
        "chameleon compare --model m --data d --out o --lr 0.001,0",
        "chameleon info --threads 0",
    ] {
        flag_refusal(line);
    }
}

#[test]
fn values_of_the_libraries_have_names() {
    let weights = |flags: &str| {
        let line = format!("chameleon generate --model m {flags}");
        resolve_run(&line).unwrap().settings.weights
    };
    assert_eq!(weights(""), WeightStorage::Stored);
    for (name, storage) in [
        ("f32", WeightStorage::F32),
        ("numbers", WeightStorage::F32),
        ("stored", WeightStorage::Stored),
        ("quantised", WeightStorage::Stored),
        ("packed", WeightStorage::Stored),
    ] {
        assert_eq!(weights(&format!("--weights {name}")), storage, "{name}");
    }
    for (name, condition) in [
        ("task", InstructionCondition::Task),
        ("task-and-input", InstructionCondition::TaskAndInput),
    ] {
        let config = train(&format!("{TRAIN} --condition-on {name}"));
        assert_eq!(config.data.options.instruction_condition, condition);
    }
}

#[test]
fn the_shape_of_a_memory_needs_a_memory() {
    for flags in ["--memory-layer 1", "--memory-tokens 9"] {
        let message = flag_refusal(&format!("{TRAIN} {flags}"));
        assert!(message.contains("--memory\n"), "{message}");
        train(&format!("{TRAIN} --memory {flags}"));
        compare(flags);
    }
}

#[test]
fn what_a_command_needs_may_come_from_the_file() {
    let message = flag_refusal("chameleon train --model m");
    assert!(message.contains("--data") && message.contains("--out"));
    let file = "model = 'm'\ndata = 'd'\n";
    let Err(CliError::Flags(error)) = with_file("chameleon train", file) else {
        panic!("nothing names --out");
    };
    let message = error.to_string();
    let (missing, _) = message.split_once("Usage").unwrap();
    assert!(
        missing.contains("--out") && !missing.contains("--data"),
        "{message}"
    );
    with_file("chameleon train --out o", file).unwrap();
}

#[test]
fn a_flag_for_all_commands_may_stand_before_the_command() {
    let seeds = |line: &str| match resolve_line(line) {
        Ok(RunConfig::Compare(config)) => config.comparison.seeds,
        other => panic!("expected a comparison, found {other:?}"),
    };
    let flags = "compare --model m --data d --out o";
    assert_eq!(seeds(&format!("chameleon --seed 9 {flags}")), [RunSeed(9)]);
    assert_eq!(seeds(&format!("chameleon {flags} --seed 9")), [RunSeed(9)]);
    assert_eq!(seeds(&format!("chameleon {flags}")), [RunSeed(1)]);
}

#[test]
fn a_prompt_must_leave_something_to_score() {
    let error = refusal(&format!("{TRAIN} --prefix 128"));
    assert_eq!(
        error,
        FlagError::NothingToScore {
            prefix: 128,
            seq_len: 128
        }
    );
    assert!(error.help().contains("--seq-len"));
}

#[test]
fn windows_must_meet() {
    let line = "chameleon eval --model m --data d";
    assert!(matches!(
        refusal(&format!("{line} --context 8 --stride 9")),
        FlagError::StrideSkipsTokens { .. }
    ));
    assert!(matches!(
        refusal(&format!("{line} --context 32 --adapter a")),
        FlagError::PrefixFillsWindow {
            prefix: 32,
            context: 32
        }
    ));
}

#[test]
fn a_comparison_names_each_method_once() {
    let line = "chameleon compare --model m --data d --out o";
    let error = refusal(&format!("{line} --methods lora,core-redrawn,lora"));
    assert_eq!(
        error,
        FlagError::Twice {
            flag: "methods",
            value: "lora".to_owned()
        }
    );
    assert!(matches!(
        refusal(&format!("{line} --seeds 3,3")),
        FlagError::Twice { .. }
    ));
}

fn compare(more: &str) -> CompareConfig {
    match resolve_line(&format!(
        "chameleon compare --model m --data d --out o {more}"
    )) {
        Ok(RunConfig::Compare(config)) => *config,
        other => panic!("expected a comparison, found {other:?}"),
    }
}

#[test]
fn seeds_of_a_comparison_default_to_the_seed_of_the_run_and_can_be_counted() {
    assert_eq!(compare("--seed 9").comparison.seeds, [RunSeed(9)]);
    let counted = compare("--seed 9 --num-seeds 3").comparison.seeds;
    assert_eq!(counted, [9, 10, 11].map(RunSeed));
    assert_eq!(compare("--seeds 5,2").comparison.seeds, [5, 2].map(RunSeed));
    assert!(resolve_line("chameleon compare --seeds 5 --num-seeds 2").is_err());
}

#[test]
fn a_hypernetwork_is_never_compared_alone() {
    let methods = |more: &str| {
        let methods = compare(more).comparison.methods;
        let names: Vec<String> = methods.iter().map(ToString::to_string).collect();
        names.join(" ")
    };
    for more in ["--methods core", "--methods core-constant,frozen"] {
        let all = "frozen lora lora-equal core core-redrawn core-constant";
        assert_eq!(methods(more), all, "{more}");
    }
    for more in [
        "",
        "--methods core-memory-redrawn",
        "--methods core-memory-shuffled",
    ] {
        let all =
            "frozen lora lora-equal core core-memory core-memory-redrawn core-memory-constant";
        assert_eq!(methods(more), all, "{more}");
    }
    assert_eq!(methods("--methods lora,frozen"), "frozen lora");
    let line = "chameleon compare --model m --data d --out o --clusters 1";
    assert_eq!(refusal(line), FlagError::NoOtherCluster);
    assert_eq!(methods("--clusters 1 --methods lora,frozen"), "frozen lora");
}

#[test]
fn sweeps_that_show_nothing_are_refused() {
    let line = "chameleon compare --model m --data d --out o";
    assert_eq!(
        refusal(&format!("{line} --sweep prefix=8,200")),
        FlagError::NothingToScore {
            prefix: 200,
            seq_len: 128
        }
    );
    assert_eq!(
        refusal(&format!("{line} --sweep prefix=8 --methods lora")),
        FlagError::NothingToSweep
    );
    assert!(matches!(
        refusal(&format!("{line} --sweep group-size=2")),
        FlagError::GroupSizeWithoutEffect { .. }
    ));
    for typed in ["prefix", "prefix=", "prefix=a", "rank=2"] {
        let refused = resolve_line(&format!("{line} --sweep {typed}"));
        assert!(matches!(refused, Err(CliError::Flags(_))), "{typed}");
    }
    let sweep = compare("--sweep group-size=4,1 --condition batch").sweep;
    assert_eq!(sweep.unwrap().values, [1, 4]);
}

#[test]
fn prompts_come_from_one_place() {
    let source = |line: &str| match resolve_line(line).unwrap() {
        RunConfig::Generate(config) => config.prompts,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        source("chameleon generate --model m"),
        PromptSource::StandardInput
    );
    assert_eq!(
        source("chameleon generate --model m --file p.txt"),
        PromptSource::File("p.txt".into())
    );
    assert_eq!(
        source("chameleon generate a --model m b"),
        PromptSource::Arguments(vec!["a".into(), "b".into()])
    );
    assert!(matches!(
        resolve_line("chameleon generate --model m --file p a"),
        Err(CliError::Flags(_))
    ));
}

#[test]
fn a_flag_beats_the_file() {
    let text = "model = 'm'\ndata = 'd'\nout = 'o'\nrank = 16\nlr = 1e-3\ntargets = ['q_proj', 'v_proj']\nresume = true\n";
    match with_file("chameleon train --rank 2 --targets k_proj", text).unwrap() {
        RunConfig::Train(config) => {
            assert_eq!(config.training.adapter.rank, 2);
            assert_eq!(config.training.adapter.targets, ["k_proj"]);
            assert!((config.training.optimizer.learning_rate - 1e-3).abs() < 1e-12);
            assert_eq!(config.start, Start::Resume);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_flag_beats_a_key_it_excludes() {
    match with_file(
        &format!("{TRAIN} --alpha 8"),
        "scale = 3.0\nvalid-fraction = 0.2\n",
    )
    .unwrap()
    {
        RunConfig::Train(config) => {
            assert!((config.training.adapter.scale - 2.0).abs() < 1e-12);
            assert_eq!(config.valid, HeldOut::Fraction(0.2));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_at_the_top_serves_every_command_that_knows_it() {
    let text = "rank = 16\ncontext = 256\nseed = 4\n[train]\nrank = 3\n[eval]\nstride = 5\n";
    match with_file(TRAIN, text).unwrap() {
        RunConfig::Train(config) => assert_eq!(config.training.adapter.rank, 3),
        other => panic!("{other:?}"),
    }
    match with_file("chameleon eval --model m --data d", text).unwrap() {
        RunConfig::Eval(config) => assert_eq!(
            config.windows,
            EvalWindows {
                context: 256,
                stride: 5
            }
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn prompts_after_two_dashes_stay_prompts() {
    match with_file(
        "chameleon generate --model m",
        "greedy = true\nstop = ['a', 'b']\n",
    )
    .unwrap()
    {
        RunConfig::Generate(config) => {
            assert_eq!(config.decoding.sampling, Sampling::Greedy);
            assert_eq!(config.decoding.stop, ["a", "b"]);
        }
        other => panic!("{other:?}"),
    }
    let file = config_file("greedy = true\n");
    let line = format!(
        "chameleon generate --model m --config {} -- --greedy",
        file.path().display()
    );
    match resolve_line(&line).unwrap() {
        RunConfig::Generate(config) => assert_eq!(
            config.prompts,
            PromptSource::Arguments(vec!["--greedy".into()])
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn unknown_keys_are_named_with_the_nearest_known_one() {
    match file_refusal(TRAIN, "seq_len = 64\n") {
        ConfigFileError::UnknownKey { key, nearest, .. } => {
            assert_eq!(key, "seq_len");
            assert_eq!(nearest.as_deref(), Some("seq-len"));
        }
        other => panic!("{other:?}"),
    }
    match file_refusal(TRAIN, "[train]\nrnak = 64\n") {
        ConfigFileError::UnknownKey { nearest, .. } => assert_eq!(nearest.as_deref(), Some("rank")),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        file_refusal(TRAIN, "[training]\nrank = 1\n"),
        ConfigFileError::UnknownKey { .. }
    ));
    assert!(matches!(
        file_refusal(TRAIN, "config = 'x'\n"),
        ConfigFileError::UnknownKey { .. }
    ));
}

#[test]
fn bad_files_are_refused_with_the_place() {
    assert!(matches!(
        file_refusal(TRAIN, "rank = 1\nlr = \n"),
        ConfigFileError::Syntax { line: 2, .. }
    ));
    match file_refusal(TRAIN, "rank = 'many'\n") {
        ConfigFileError::BadValue { key, reason, .. } => {
            assert_eq!(key, "rank");
            assert!(reason.contains("many"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        file_refusal(TRAIN, "rank = [1, 2]\n"),
        ConfigFileError::BadValue { .. }
    ));
    assert!(matches!(
        file_refusal(TRAIN, "rank = { a = 1 }\n"),
        ConfigFileError::BadValue { .. }
    ));
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"rank = 1\n\xff").unwrap();
    let error = resolve_line(&format!("{TRAIN} --config {}", file.path().display())).unwrap_err();
    assert!(matches!(
        error,
        CliError::ConfigFile(ConfigFileError::NotUtf8 { position: 9, .. })
    ));
    let error = resolve_line(&format!("{TRAIN} --config /no/such/file")).unwrap_err();
    assert!(matches!(
        error,
        CliError::ConfigFile(ConfigFileError::Unreadable { .. })
    ));
}

#[test]
fn an_unknown_device_lists_what_is_compiled_in() {
    let error = resolve_line("chameleon info --device abacus").unwrap_err();
    assert!(matches!(error, CliError::Device(_)));
    assert!(error.to_string().contains("this build has"), "{error}");
}
