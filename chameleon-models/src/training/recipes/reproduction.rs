//! The paper's experiments under its recipe, under variations of it, and under ours.

use std::path::Path;

use crate::files::fingerprint::Fingerprint;
use crate::training::error::TrainingError;
use crate::training::experiment::{RunStore, peak_memory};
use crate::training::method::Head;
use crate::training::observer::Observer;
use crate::training::session::Start;

use super::base::Base;
use super::causal::Causal;
use super::config::ReproductionConfig;
use super::published::experiment::Published;
use super::recipe_name::RecipeName;
use super::runs::Run;
use super::splits::Texts;

/// Trains and scores every method under every recipe; runs that are finished in `out` are not repeated.
///
/// # Errors
///
/// When the texts cannot be read, `out` holds other runs, a training diverges, or the observer interrupts.
pub fn reproduce(
    config: &ReproductionConfig,
    base: &Base,
    out: &Path,
    start: Start,
    observer: &dyn Observer,
) -> Result<Vec<Run>, TrainingError> {
    let texts = Texts::read(config, &base.loaded, config.seed)?;
    let store = RunStore::of(out);
    store.check_start(start)?;
    let reproduction = Reproduction {
        config,
        base,
        texts: &texts,
        key: settings(config, base, &texts).to_string(),
        store,
        observer,
    };
    let mut runs = Vec::new();
    for recipe in &config.recipes {
        reproduction.recipe(recipe, &mut runs)?;
    }
    Ok(runs)
}

struct Reproduction<'a> {
    config: &'a ReproductionConfig,
    base: &'a Base,
    texts: &'a Texts,
    /// The key that finished runs must have in common with the missing ones.
    key: String,
    store: RunStore,
    observer: &'a dyn Observer,
}

impl Reproduction<'_> {
    /// All runs of one recipe.
    fn recipe(&self, recipe: &RecipeName, runs: &mut Vec<Run>) -> Result<(), TrainingError> {
        let methods = match recipe {
            RecipeName::Causal => Causal::methods(),
            RecipeName::Published { .. } => Published::methods(),
        };
        let wanted = methods.into_iter().flat_map(|method| {
            let seeds = match method.head {
                // The frozen model is deterministic, so one run is enough.
                Head::Frozen => &self.config.seeds[..1],
                _ => &self.config.seeds,
            };
            seeds.iter().map(move |&seed| (method, seed))
        });
        // Groups and states are computed only if a run is missing.
        let mut prepared = None;
        for (method, seed) in wanted {
            let name = format!("{recipe}-{method}-seed-{}.json", seed.0);
            if let Some(run) = self.store.find(&name, &self.key)? {
                runs.push(run);
                continue;
            }
            let data = match &prepared {
                Some(data) => data,
                None => prepared.insert(self.prepare(recipe)?),
            };
            peak_memory::forget();
            let mut run = match data {
                Prepared::Published(data) => data.run(method, seed, self.observer)?,
                Prepared::Causal(data) => data.run(method, seed, self.observer)?,
            };
            run.peak_memory_bytes = peak_memory::bytes();
            self.store.keep(&name, &self.key, &run)?;
            self.observer.note(&format!(
                "{recipe} {method} seed {}: loss {:.4} in {:.0} s",
                seed.0,
                run.loss(),
                run.seconds
            ));
            runs.push(run);
        }
        Ok(())
    }

    fn prepare(&self, recipe: &RecipeName) -> Result<Prepared<'_>, TrainingError> {
        let Self {
            config,
            base,
            texts,
            observer,
            ..
        } = *self;
        Ok(match recipe {
            RecipeName::Causal => {
                let data = Causal::prepare(config, base, texts, observer)?;
                Prepared::Causal(Box::new(data))
            }
            RecipeName::Published { off, .. } => {
                let name = recipe.to_string();
                let data = Published::prepare(name, off, config, base, texts, observer)?;
                Prepared::Published(Box::new(data))
            }
        })
    }
}

/// Data under one recipe.
enum Prepared<'a> {
    Published(Box<Published<'a>>),
    Causal(Box<Causal<'a>>),
}

fn settings(config: &ReproductionConfig, base: &Base, texts: &Texts) -> Fingerprint {
    let json =
        serde_json::to_vec(&(&config.settings, config.loss)).expect("settings are plain data");
    let parts = [&texts.train, &texts.valid, &texts.test];
    let builder = Fingerprint::builder()
        .part("settings", &json)
        .part("model", base.states_fingerprint.as_bytes());
    parts
        .iter()
        .flat_map(|part| &part.rows)
        .fold(builder, |builder, row| {
            let spans = [row.prompt.start, row.prompt.end, row.scored_from];
            let spans = spans
                .iter()
                .flat_map(|&position| (position as u64).to_le_bytes());
            let ids = row.token_ids.iter().flat_map(|id| id.to_le_bytes());
            builder.part("row", &spans.chain(ids).collect::<Vec<u8>>())
        })
        .finish()
}
