//! The program on the tiny model beside these tests.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot run the program fails"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tiny-llama")
        .join(name)
}

/// `chameleon COMMAND --model TINY --data MIX` and more, with caches in `folder`.
pub(crate) fn chameleon(command: &str, folder: &Path, arguments: &[&str]) -> Command {
    chameleon_on(&fixture("mix.jsonl"), command, folder, arguments)
}

/// The same on other data.
pub(crate) fn chameleon_on(
    data: &Path,
    command: &str,
    folder: &Path,
    arguments: &[&str],
) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_chameleon"));
    program
        .arg(command)
        .arg("--model")
        .arg(fixture(""))
        .arg("--data")
        .arg(data)
        .args(arguments)
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .env("NO_COLOR", "1");
    program
}

pub(crate) const TRAINING: [&str; 12] = [
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
];

pub(crate) fn run(program: &mut Command) -> Output {
    let output = program.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    output
}
