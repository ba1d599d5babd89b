//! `metrics.jsonl`: one object for each step and each validation of a training.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::files::atomic_file;
use crate::training::error::TrainingError;

/// The open metrics file of a training.
pub(crate) struct MetricsFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl MetricsFile {
    /// Opens the file; lines of steps after `last_step` are from a run that was killed and are removed.
    pub(crate) fn open(folder: &Path, last_step: usize) -> Result<Self, TrainingError> {
        let path = folder.join("metrics.jsonl");
        let failed = TrainingError::file("write", &path);
        fs::create_dir_all(folder).map_err(&failed)?;
        let kept = match fs::read_to_string(&path) {
            Ok(text) => kept_lines(&text, last_step),
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => return Err(failed(source)),
        };
        atomic_file::write(&path, kept.as_bytes())?;
        let file = OpenOptions::new()
            .append(true)
            .open(&path)
            .map_err(&failed)?;
        Ok(Self {
            file: BufWriter::new(file),
            path,
        })
    }

    pub(crate) fn write(&mut self, value: &impl Serialize) -> Result<(), TrainingError> {
        let line = serde_json::to_string(value).expect("metrics are plain data");
        writeln!(self.file, "{line}").map_err(|source| self.failed(source))
    }

    pub(crate) fn flush(&mut self) -> Result<(), TrainingError> {
        self.file.flush().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> TrainingError {
        TrainingError::file("write", &self.path)(source)
    }
}

fn kept_lines(text: &str, last_step: usize) -> String {
    #[derive(serde::Deserialize)]
    struct Step {
        step: usize,
    }
    text.lines()
        .filter(|line| serde_json::from_str::<Step>(line).is_ok_and(|line| line.step <= last_step))
        .flat_map(|line| [line, "\n"])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_killed_run_are_dropped() {
        let text = "{\"step\":1,\"loss\":2.0}\n{\"step\":2,\"loss\":1.5}\n{\"step\":3,\"lo";
        assert_eq!(kept_lines(text, 1), "{\"step\":1,\"loss\":2.0}\n");
        assert_eq!(kept_lines(text, 9).lines().count(), 2);
    }
}
