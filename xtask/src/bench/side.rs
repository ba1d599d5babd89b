//! A program that computes one round for every line it is sent, and prints its result and time as JSON.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// A running program.
#[derive(Debug)]
pub(super) struct Side {
    pub(super) name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// What it reported when it was ready.
    pub(super) setup: Value,
    /// Memory held when it was ready.
    resident: Option<u64>,
    /// The most memory held until then.
    peak_before: Option<u64>,
    pub(super) rounds: Vec<Round>,
}

/// One finished round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    pub(super) seconds: f64,
    pub(super) value: f64,
}

/// Memory of a process in bytes, where the system reports it.
#[derive(Debug, Clone, Copy)]
pub(super) struct MemoryUse {
    /// The most that was held, from the start of the process.
    pub(super) peak: u64,
    /// The most that rounds added to what was held before the first one.
    pub(super) added: u64,
}

impl Side {
    /// Starts a program and waits until it is ready.
    pub(super) fn start(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("standard output was piped")?;
        let mut side = Self {
            name: name.to_owned(),
            child,
            input,
            output: BufReader::new(output),
            setup: Value::Null,
            resident: None,
            peak_before: None,
            rounds: Vec::new(),
        };
        side.setup = side.read_line()?["ready"].take();
        side.resident = side.status("VmRSS:");
        side.peak_before = side.status("VmHWM:");
        // 5 starts the peak anew; where that is not permitted, the old one is never too low.
        let _ = std::fs::OpenOptions::new()
            .write(true)
            .open(format!("/proc/{}/clear_refs", side.child.id()))
            .and_then(|mut file| file.write_all(b"5"));
        Ok(side)
    }

    /// One round.
    pub(super) fn round(&mut self) -> anyhow::Result<Round> {
        let input = self.input.as_mut().context("the program has ended")?;
        input.write_all(b"\n")?;
        input.flush()?;
        let answer = self.read_line()?;
        let number = |key: &str| {
            answer[key]
                .as_f64()
                .with_context(|| format!("{} printed {answer} without `{key}`", self.name))
        };
        let round = Round {
            seconds: number("seconds")?,
            value: number("value")?,
        };
        self.rounds.push(round);
        Ok(round)
    }

    /// The middle one of the times of all rounds but the first, which pays for what is made once.
    pub(super) fn median_seconds(&self) -> f64 {
        let mut seconds: Vec<f64> = self.rounds.iter().skip(1).map(|r| r.seconds).collect();
        seconds.sort_unstable_by(f64::total_cmp);
        let middle = seconds.len() / 2;
        match seconds.len() {
            0 => f64::NAN,
            len if len % 2 == 1 => seconds[middle],
            _ => f64::midpoint(seconds[middle - 1], seconds[middle]),
        }
    }

    pub(super) fn memory(&self) -> Option<MemoryUse> {
        let peak = self.status("VmHWM:")?;
        Some(MemoryUse {
            peak: peak.max(self.peak_before?),
            added: peak.saturating_sub(self.resident?),
        })
    }

    /// Ends the program.
    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        self.input.take();
        let status = self.child.wait()?;
        if !status.success() {
            bail!("{} ended with {status}", self.name);
        }
        Ok(())
    }

    fn read_line(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        serde_json::from_str(&line)
            .with_context(|| format!("{} printed {line:?}, expected JSON", self.name))
    }

    fn status(&self, key: &str) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        kibibytes(&text, key)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // A program that still waits for a line must not outlive us; one that has ended refuses to be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One line of `/proc/PID/status`, in bytes.
fn kibibytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(key))?;
    let number: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(number * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_status_of_a_process() {
        let status = "Name:\tpeers\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n";
        assert_eq!(kibibytes(status, "VmHWM:"), Some(2 << 20));
        assert_eq!(kibibytes(status, "VmSwap:"), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_program_computes_a_round_for_every_line() {
        let script = r#"echo '{"ready": {"size": 3}}'
            while read line; do echo '{"seconds": 0.25, "value": 7}'; done"#;
        let mut side = Side::start("shell", Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(side.setup["size"], 3);
        for _ in 0..3 {
            side.round().unwrap();
        }
        assert!((side.median_seconds() - 0.25).abs() < 1e-12);
        side.finish().unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_program_that_prints_nothing_is_named() {
        let error = Side::start("mute", &mut Command::new("true")).unwrap_err();
        assert!(error.to_string().contains("mute"), "{error}");
    }
}
