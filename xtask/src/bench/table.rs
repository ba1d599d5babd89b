//! Results of `bench peers` as a table for `docs/reference/performance.md` and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::side::{MemoryUse, Side};
use super::workloads::{Memory, Peer, Workload};

/// What one side took.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) seconds: f64,
    pub(super) memory: Option<MemoryUse>,
    pub(super) rounds: Vec<f64>,
    pub(super) setup: Value,
}

impl Taken {
    pub(super) fn of(side: &Side) -> Self {
        Self {
            seconds: side.median_seconds(),
            memory: side.memory(),
            rounds: side.rounds.iter().map(|round| round.seconds).collect(),
            setup: side.setup.clone(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "median_seconds": self.seconds,
            "rounds": self.rounds,
            "peak_bytes": self.memory.map(|memory| memory.peak),
            "added_bytes": self.memory.map(|memory| memory.added),
            "setup": self.setup,
        })
    }
}

/// One finished workload: our side and every peer's.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) workload: &'static Workload,
    pub(super) ours: Taken,
    pub(super) theirs: Vec<Taken>,
}

/// A row for every peer of every workload.
pub(super) fn markdown(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "| work | against | ours, ms | theirs, ms | ours / theirs | reach | peak ours, MB | theirs, MB | ratio | reach | added ours, MB |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for outcome in outcomes {
        for (peer, theirs) in outcome.workload.peers.iter().zip(&outcome.theirs) {
            row(&mut text, outcome, peer, theirs);
        }
    }
    text
}

fn row(text: &mut String, outcome: &Outcome, peer: &Peer, theirs: &Taken) {
    let ours = &outcome.ours;
    let megabytes =
        |bytes: Option<u64>| bytes.map_or("?".to_owned(), |bytes| (bytes / 1_000_000).to_string());
    let peak = |taken: &Taken| taken.memory.map(|memory| memory.peak);
    let peak_ratio = match (peak(ours), peak(theirs)) {
        #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
        (Some(ours), Some(theirs)) => format!("{:.2}", ours as f64 / theirs as f64),
        _ => "?".to_owned(),
    };
    let memory_target = match peer.target.memory {
        Some(Memory::PeakRatio(ratio)) => format!("at most {ratio}"),
        Some(Memory::Added(bytes)) => format!("added under {}", megabytes(Some(bytes))),
        None => String::new(),
    };
    writeln!(
        text,
        "| {} | {} | {:.1} | {:.1} | {:.2} | at most {} | {} | {} | {peak_ratio} | {memory_target} | {} |",
        outcome.workload.about,
        peer.name,
        ours.seconds * 1e3,
        theirs.seconds * 1e3,
        ours.seconds / theirs.seconds,
        peer.target.time,
        megabytes(peak(ours)),
        megabytes(peak(theirs)),
        megabytes(ours.memory.map(|memory| memory.added)),
    )
    .expect("writing to a string cannot fail");
}

/// The same, with every round.
pub(super) fn json(outcomes: &[Outcome], machine: &str, commit: &str) -> Value {
    let workloads: Vec<Value> = outcomes
        .iter()
        .map(|outcome| {
            let peers = outcome.workload.peers.iter().zip(&outcome.theirs);
            json!({
                "name": outcome.workload.name,
                "about": outcome.workload.about,
                "ours": outcome.ours.json(),
                "peers": peers
                    .map(|(peer, theirs)| json!({ "name": peer.name, "taken": theirs.json() }))
                    .collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "machine": machine, "commit": commit, "workloads": workloads })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::workloads::WORKLOADS;

    #[test]
    fn a_row_shows_medians_and_ratios() {
        let taken = |seconds, peak| Taken {
            seconds,
            memory: Some(MemoryUse {
                peak,
                added: 5_000_000,
            }),
            rounds: vec![seconds],
            setup: Value::Null,
        };
        let outcome = Outcome {
            workload: &WORKLOADS[0],
            ours: taken(0.5, 100_000_000),
            theirs: vec![taken(1.0, 400_000_000)],
        };
        let table = markdown(std::slice::from_ref(&outcome));
        assert!(
            table.contains(
                "| 500.0 | 1000.0 | 0.50 | at most 1 | 100 | 400 | 0.25 | at most 0.5 | 5 |"
            ),
            "{table}"
        );
        let json = json(&[outcome], "a machine", "a commit");
        assert_eq!(
            json["workloads"][0]["peers"][0]["taken"]["peak_bytes"],
            400_000_000
        );
    }
}
