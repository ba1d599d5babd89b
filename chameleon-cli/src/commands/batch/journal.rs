//! The journal of a run: each answer is appended when it is finished; at the end the file of all answers is written.
//!
//! ```text
//! {"run":"fingerprint"}
//! ROW<tab>{"line":..,"prompt":..,"text":..}
//! ```
//!
//! A killed program leaves at most one incomplete line at the end, which is removed when the run is resumed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use chameleon_models::files::atomic_file;
use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::errors::CliError;

/// Interval between syncs to the disk; later answers may be lost in a power failure.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Answers so far, in the order in which they finished.
#[derive(Debug)]
pub(super) struct Journal {
    out: PathBuf,
    path: PathBuf,
    file: File,
    len: u64,
    /// The position of each row's answer.
    rows: Vec<Option<Place>>,
    num_done: usize,
    last_sync: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    start: u64,
    len: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    run: String,
}

/// The field that only a failed answer has.
#[derive(Debug, Deserialize)]
struct MaybeError {
    error: Option<IgnoredAny>,
}

impl Journal {
    /// Creates a journal next to `out`, or resumes an existing one.
    ///
    /// # Errors
    ///
    /// When `out` exists without a journal, when the journal is of another run, or when files cannot be read or
    /// written.
    pub(super) fn open(out: &Path, run: &str, num_rows: usize) -> Result<Self, CliError> {
        let mut path = out.as_os_str().to_owned();
        path.push(".journal");
        let path = PathBuf::from(path);
        let failed = |source| CliError::file("use the journal", &path)(source);
        let header = Header {
            run: run.to_owned(),
        };
        let mut header = serde_json::to_vec(&header).expect("a header is plain data");
        header.push(b'\n');
        let is_there = path.try_exists().map_err(failed)?;
        if !is_there && out.try_exists().map_err(failed)? {
            return Err(CliError::OutTaken {
                path: out.to_owned(),
            });
        }
        if !is_there {
            // Written atomically: a journal without a header could not be matched to a run.
            atomic_file::write(&path, &header)?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        let mut journal = Self {
            out: out.to_owned(),
            file,
            len: 0,
            rows: vec![None; num_rows],
            num_done: 0,
            last_sync: Instant::now(),
            path: path.clone(),
        };
        if !journal.read(&header).map_err(failed)? {
            return Err(CliError::OtherJournal { path });
        }
        journal.file.set_len(journal.len).map_err(failed)?;
        journal
            .file
            .seek(SeekFrom::Start(journal.len))
            .map_err(failed)?;
        Ok(journal)
    }

    /// Rows that have an answer.
    pub(super) fn num_done(&self) -> usize {
        self.num_done
    }

    /// Whether a row has an answer.
    pub(super) fn has(&self, row: usize) -> bool {
        self.rows[row].is_some()
    }

    /// Adds an answer.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(super) fn write(&mut self, row: usize, answer: &impl Serialize) -> Result<(), CliError> {
        let answer = serde_json::to_string(answer).expect("answers have text keys");
        let line = format!("{row}\t{answer}\n");
        // One call, so that a killed program leaves at most this line incomplete.
        let written = self.file.write_all(line.as_bytes());
        written.map_err(|source| self.failed(source))?;
        let start = self.len + (line.len() - answer.len() - 1) as u64;
        self.len += line.len() as u64;
        self.enter(
            row,
            Place {
                start,
                len: answer.len(),
            },
        );
        if self.last_sync.elapsed() > SYNC_INTERVAL {
            self.sync()?;
        }
        Ok(())
    }

    /// Syncs all answers to the disk.
    ///
    /// # Errors
    ///
    /// When the disk reports an error.
    pub(super) fn sync(&mut self) -> Result<(), CliError> {
        self.last_sync = Instant::now();
        self.file.sync_data().map_err(|source| self.failed(source))
    }

    /// Writes all answers in the order of their rows, and removes the journal; returns the number of failures.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, written or removed; the journal then remains.
    pub(super) fn finish(mut self) -> Result<usize, CliError> {
        self.sync()?;
        let mut num_failed = 0;
        let (rows, file) = (&self.rows, &mut self.file);
        atomic_file::write_with(&self.out, |out| {
            let mut answer = Vec::new();
            for place in rows.iter().flatten() {
                file.seek(SeekFrom::Start(place.start))?;
                answer.resize(place.len, 0);
                file.read_exact(&mut answer)?;
                let parsed: MaybeError = serde_json::from_slice(&answer)?;
                num_failed += usize::from(parsed.error.is_some());
                answer.push(b'\n');
                out.write_all(&answer)?;
            }
            Ok(())
        })?;
        fs::remove_file(&self.path).map_err(|source| self.failed(source))?;
        Ok(num_failed)
    }

    /// Reads complete lines, up to the first incomplete one; returns whether the header is the expected one.
    fn read(&mut self, header: &[u8]) -> io::Result<bool> {
        let mut reader = BufReader::new(self.file.try_clone()?);
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        if line != header {
            return Ok(false);
        }
        self.len = line.len() as u64;
        loop {
            line.clear();
            reader.read_until(b'\n', &mut line)?;
            let Some((row, answer_len)) = parse(&line) else {
                return Ok(true);
            };
            if row >= self.rows.len() {
                return Ok(true);
            }
            let start = self.len + (line.len() - answer_len - 1) as u64;
            self.len += line.len() as u64;
            self.enter(
                row,
                Place {
                    start,
                    len: answer_len,
                },
            );
        }
    }

    fn enter(&mut self, row: usize, place: Place) {
        self.num_done += usize::from(self.rows[row].is_none());
        self.rows[row] = Some(place);
    }

    fn failed(&self, source: io::Error) -> CliError {
        CliError::file("use the journal", &self.path)(source)
    }
}

/// The row of a complete line, and the length of its answer.
fn parse(line: &[u8]) -> Option<(usize, usize)> {
    let text = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (row, answer) = text.split_once('\t')?;
    serde_json::from_str::<MaybeError>(answer).ok()?;
    Some((row.parse().ok()?, answer.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> serde_json::Value {
        serde_json::json!({ "text": text })
    }

    #[test]
    fn torn_lines_are_done_again_and_rows_come_out_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("answers.jsonl");
        let mut journal = Journal::open(&out, "run", 3).unwrap();
        journal.write(2, &answer("c")).unwrap();
        journal.write(0, &answer("a\tb\nc")).unwrap();
        drop(journal);
        let path = folder.path().join("answers.jsonl.journal");
        for torn in [
            &b"1"[..],
            b"1\t{\"text\":\"",
            b"1\t{\"te\n",
            b"9\t{}\n",
            b"\0\0\n",
            b"\xff\n",
        ] {
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            file.write_all(torn).unwrap();
            let journal = Journal::open(&out, "run", 3).unwrap();
            assert_eq!(journal.num_done(), 2);
            assert!(journal.has(0) && !journal.has(1) && journal.has(2));
        }
        let mut journal = Journal::open(&out, "run", 3).unwrap();
        journal
            .write(1, &serde_json::json!({ "error": "no" }))
            .unwrap();
        assert_eq!(journal.finish().unwrap(), 1);
        assert_eq!(
            fs::read_to_string(&out).unwrap(),
            "{\"text\":\"a\\tb\\nc\"}\n{\"error\":\"no\"}\n{\"text\":\"c\"}\n"
        );
        assert!(!path.exists());
    }

    #[test]
    fn finished_answers_and_journals_of_other_runs_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("answers.jsonl");
        drop(Journal::open(&out, "one", 3).unwrap());
        let other = Journal::open(&out, "two", 3);
        assert!(matches!(other, Err(CliError::OtherJournal { .. })));
        Journal::open(&out, "one", 0).unwrap().finish().unwrap();
        let taken = Journal::open(&out, "one", 3);
        assert!(matches!(taken, Err(CliError::OutTaken { .. })));
    }
}
