//! Findings as sentences: which methods are better than their controls, and how much leakage and padding contribute.

use chameleon_core::RunSeed;

use crate::training::experiment::{Finding, Interval, signed};
use crate::training::method::Method;

use super::quirks::Quirk;
use super::recipe_name::RecipeName;
use super::runs::{Facts, Run, difference, of_method};

/// Conclusions and warnings.
pub(super) fn findings(runs: &[Run], recipes: &[RecipeName], seed: RunSeed) -> Vec<Finding> {
    let sides: Vec<Side<'_>> = recipes
        .iter()
        .map(|recipe| Side::new(runs, recipe, seed))
        .collect();
    let mut findings: Vec<Finding> = sides.iter().flat_map(Side::against_controls).collect();
    findings.extend(sides.iter().filter_map(Side::scored));
    let published = sides.iter().find(|side| side.off() == Some(&[]));
    if let Some(published) = published {
        for side in &sides {
            findings.extend(side.contribution(published));
        }
    }
    if recipes.iter().any(RecipeName::leaks) {
        findings.push(Finding::warning(
            "where the condition leaks, the hypernetwork is shown the mean of the very tokens it is \
             scored on; no such gain can be had in use",
        ));
    }
    if runs.iter().all(|run| run.seed == seed.0) {
        findings.push(Finding::note(
            "one seed: the intervals hold the variation of texts, not that of training",
        ));
    }
    findings
}

/// The runs under one recipe.
struct Side<'a> {
    recipe: &'a RecipeName,
    runs: Vec<&'a Run>,
    seed: RunSeed,
}

impl<'a> Side<'a> {
    fn new(runs: &'a [Run], recipe: &'a RecipeName, seed: RunSeed) -> Self {
        let name = recipe.to_string();
        Self {
            runs: runs.iter().filter(|run| run.recipe == name).collect(),
            recipe,
            seed,
        }
    }

    /// The quirks that are off, if it is a published recipe.
    fn off(&self) -> Option<&[Quirk]> {
        match self.recipe {
            RecipeName::Causal => None,
            RecipeName::Published { off, .. } => Some(off),
        }
    }

    fn loss(&self, method: Method) -> f64 {
        let runs = of_method(&self.runs, method);
        runs.iter().map(|run| run.loss()).sum::<f64>() / runs.len() as f64
    }

    fn difference(&self, method: Method, other: Method) -> Option<Interval> {
        let of = |method| of_method(&self.runs, method);
        difference(&of(method), &of(other), self.seed)
    }

    /// Whether each method with conditions is better than the same method with wrong ones.
    fn against_controls(&self) -> Vec<Finding> {
        let name = self.recipe;
        [Method::DENSE, Method::CORE]
            .into_iter()
            .filter_map(|method| {
                let found = self.difference(method, method.redrawn())?;
                let (method, figures) = (method, signed(found, 4));
                Some(if found.is_below_zero() {
                    Finding::gain(format!(
                        "{name}: {method} against redrawn conditions {figures}; it uses its conditions"
                    ))
                } else {
                    Finding::warning(format!(
                        "{name}: {method} against redrawn conditions {figures}; nothing shows that it uses its conditions"
                    ))
                })
            })
            .collect()
    }

    /// The fraction of the scored tokens that is padding, and the fraction that is the most common token.
    fn scored(&self) -> Option<Finding> {
        let Facts {
            num_scored,
            num_scored_padding,
            num_commonest,
            ..
        } = self.runs.first()?.facts;
        let share = 100.0 * num_scored_padding as f64 / num_scored as f64;
        let commonest = 100.0 * num_commonest as f64 / num_scored as f64;
        Some(Finding::note(format!(
            "{}: {share:.1} % of the {num_scored} scored validation tokens are padding, {commonest:.1} % are the \
             same token; the frozen model loses {:.4} nats a token",
            self.recipe,
            self.loss(Method::FROZEN)
        )))
    }

    /// The difference to `as-published`: of the loss, and of the gain by the conditions.
    fn contribution(&self, published: &Self) -> Option<Finding> {
        if self.off().is_some_and(<[_]>::is_empty) {
            return None;
        }
        let worth = |side: &Self| {
            let lora = side.loss(Method::DENSE) - side.loss(Method::LORA);
            let control = side.loss(Method::DENSE) - side.loss(Method::DENSE.redrawn());
            (lora, control)
        };
        let ((lora, control), (lora_as, control_as)) = (worth(self), worth(published));
        Some(Finding::note(format!(
            "{} instead of as-published: frozen {:.4} instead of {:.4}; dense against lora {lora:+.4} instead of \
             {lora_as:+.4}, which {} it {:.4} nats; dense against its redrawn control {control:+.4} instead of \
             {control_as:+.4}",
            self.recipe,
            self.loss(Method::FROZEN),
            published.loss(Method::FROZEN),
            if lora > lora_as { "costs" } else { "gives" },
            (lora - lora_as).abs(),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::super::runs::test_run;
    use super::*;

    fn recipe(name: &str, dense: f64, control: f64) -> Vec<Run> {
        let run = |method, nll| test_run(name, method, 1, &[nll, nll]);
        vec![
            run(Method::FROZEN, 3.0),
            run(Method::LORA, 2.0),
            run(Method::DENSE, dense),
            run(Method::DENSE.redrawn(), control),
        ]
    }

    #[test]
    fn what_a_quirk_contributes_is_said_in_numbers() {
        let runs = [
            recipe("as-published", 1.0, 1.5),
            recipe("without-leak", 1.75, 1.75),
        ]
        .concat();
        let recipes = ["as-published", "without-leak"].map(|name| name.parse().unwrap());
        let lines: Vec<String> = findings(&runs, &recipes, RunSeed(1))
            .iter()
            .map(Finding::line)
            .collect();
        let findings = lines.join("\n");
        assert!(
            findings.contains("as-published: dense against redrawn conditions -0.5000"),
            "{findings}"
        );
        assert!(
            findings.contains("warning: without-leak: dense against redrawn"),
            "{findings}"
        );
        assert!(findings.contains("75.0 % of the 4 scored"), "{findings}");
        assert!(findings.contains("costs it 0.7500 nats"), "{findings}");
        assert!(findings.contains("one seed"), "{findings}");
    }
}
