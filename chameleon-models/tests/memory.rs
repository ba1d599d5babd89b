//! Texts larger than what may be held: a program of its own, because the peak is that of the whole process.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot write its files fails"
)]

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;

use chameleon_core::RunSeed;
use chameleon_models::data::{
    CorpusStream, ReadOptions, TokeniseError, TokenisedText, WindowOptions,
};

const MIB: u64 = 1 << 20;
const TEXT_BYTES: u64 = 200 * MIB;

/// One token for four bytes, about what tokenizers make of English.
#[expect(
    clippy::unnecessary_wraps,
    reason = "stands in for a tokenizer, which may fail"
)]
fn fours(text: &str) -> Result<TokenisedText, TokeniseError> {
    let token_ids: Vec<u32> = text
        .as_bytes()
        .chunks(4)
        .map(|four| u32::from(four[0]))
        .collect();
    let ends = (1..=token_ids.len()).map(|num| (num * 4).min(text.len()));
    let ends = ends.collect();
    Ok(TokenisedText::new(token_ids, ends))
}

/// The most memory since the last call.
fn peak_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kibibytes: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    File::options()
        .write(true)
        .open("/proc/self/clear_refs")
        .and_then(|mut file| file.write_all(b"5"))
        .unwrap();
    kibibytes * 1024
}

fn write(path: &Path, row: impl Fn(u64) -> String) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let mut written = 0;
    for idx in 0.. {
        if written >= TEXT_BYTES {
            break;
        }
        let row = row(idx);
        file.write_all(row.as_bytes()).unwrap();
        written += row.len() as u64;
    }
    file.flush().unwrap();
}

/// Names the file that a process of its own measures.
const FILE: &str = "CHAMELEON_MEMORY_TEST_FILE";

#[test]
fn two_hundred_mebibytes_of_text_take_less_than_a_hundred_of_memory() {
    if let Some(path) = std::env::var_os(FILE) {
        return measure(Path::new(&path));
    }
    let folder = tempfile::tempdir().unwrap();
    let sentence = "The lizard rested by the barn until the toad circled too. ".repeat(12);
    write(&folder.path().join("rows.jsonl"), |idx| {
        format!(
            "{{\"text\": \"{idx} {sentence}\", \"kind\": \"k{}\"}}\n",
            idx % 7
        )
    });
    write(&folder.path().join("rows.csv"), |idx| match idx {
        0 => "text,kind\n".to_owned(),
        idx => format!("{idx} {sentence},k{}\n", idx % 7),
    });
    write(&folder.path().join("one.txt"), |idx| {
        format!("{idx} {sentence}\n")
    });
    for name in ["rows.jsonl", "rows.csv", "one.txt"] {
        // What an allocator keeps of one file must not count for the next.
        let status = Command::new(std::env::current_exe().unwrap())
            .args(std::env::args_os().skip(1))
            .env(FILE, folder.path().join(name))
            .status()
            .unwrap();
        assert!(status.success(), "{name}");
    }
}

fn measure(path: &Path) {
    let options = ReadOptions::default();
    let stream = CorpusStream {
        path,
        options: &options,
        render_chat: None,
        spill_folder: path.parent().unwrap(),
    };
    let before = peak_bytes();
    let windows = WindowOptions::new(128, 32).unwrap();
    let corpus = stream
        .examples(windows, RunSeed(1), &fours, &mut |_| {})
        .unwrap();
    let examples = corpus.examples(&corpus.all_documents()).unwrap().examples;
    assert!(examples.len() > 300_000, "{}", examples.len());
    assert_small(path, "examples", before);
    drop((examples, corpus));
    let joined = stream.joined("\n\n", &fours, &mut |_| {}).unwrap();
    assert_small(path, "joined", before);
    assert!(joined.token_ids().len() > 50_000_000);
}

fn assert_small(path: &Path, what: &str, before: u64) {
    let growth = peak_bytes().saturating_sub(before) / MIB;
    let name = path.display();
    assert!(growth < 100, "{name}: {what}: {growth} MiB");
}
