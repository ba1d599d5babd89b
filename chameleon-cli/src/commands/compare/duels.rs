//! Scores of all methods, and who is measured against whom.

use std::rc::Rc;

use chameleon_core::RunSeed;

use crate::{
    args::CompareMethod,
    commands::prepare::Part,
    report::{Duel, MethodScores},
};

use super::protocol;
use super::runs::MethodRuns;
use super::table::DuelRow;

/// Scores by method, in the order of the table.
pub(super) struct AllScores {
    pub(super) methods: Vec<(CompareMethod, MethodScores)>,
}

impl AllScores {
    pub(super) fn of(methods: &[MethodRuns], test: &Part) -> Self {
        let scores = |runs: &MethodRuns| MethodScores {
            name: runs.method.name(),
            runs: runs.scored.iter().map(|run| run.scores.clone()).collect(),
            units: Rc::clone(&test.units.of_example),
        };
        Self {
            methods: methods
                .iter()
                .map(|runs| (runs.method, scores(runs)))
                .collect(),
        }
    }

    pub(super) fn get(&self, method: CompareMethod) -> Option<&MethodScores> {
        let found = self.methods.iter().find(|(found, _)| *found == method);
        found.map(|(_, scores)| scores)
    }

    fn names(&self) -> Vec<CompareMethod> {
        self.methods.iter().map(|(method, _)| *method).collect()
    }

    /// A method and its baseline.
    pub(super) fn duel(&self, method: CompareMethod) -> Option<Duel<'_>> {
        let baseline = protocol::baseline(method, &self.names())?;
        Some(Duel {
            method: self.get(method)?,
            baseline: self.get(baseline)?,
        })
    }

    /// Of the method that the report is about.
    pub(super) fn headline(&self) -> Option<Duel<'_>> {
        self.duel(protocol::headline(&self.names())?)
    }

    /// Every hypernetwork against everything it has to beat.
    pub(super) fn duels(&self, seed: RunSeed) -> Vec<DuelRow> {
        let mut duels = Vec::new();
        for (method, scores) in &self.methods {
            for &(against, opponent) in protocol::opponents(*method) {
                let Some(other) = self.get(against) else {
                    continue;
                };
                duels.push(DuelRow {
                    method: scores.name,
                    against: other.name,
                    opponent,
                    difference: scores
                        .less(other, |_| true, seed)
                        .expect("there are test examples"),
                });
            }
        }
        duels
    }
}
