//! `chameleon reproduce`: the paper's experiments under its recipe, under variations of it, and under ours.

mod answers;
mod causal;
mod findings;
mod fit;
mod heads;
mod page;
mod published;
mod report;
mod runs;
mod texts;

use std::time::Instant;

use burn::module::Module as _;
use chameleon_core::RunSeed;
use chameleon_models::{
    LanguageModel, LoadedModel, files::atomic_file, files::fingerprint::Fingerprint,
    training::recipes::Quirk,
};

use crate::{
    args::RecipeName,
    commands::Context,
    errors::{CliError, ExitStatus},
    memory,
    resolve::ReproduceConfig,
};

use causal::Causal;
use published::Published;
use report::{CURVES_FILE, PAGE_FILE, ReproduceReport, TABLE_FILE, curves_csv};
use runs::{Method, Run, RunStore};
use texts::Texts;

pub(crate) fn run(config: &ReproduceConfig, context: &Context) -> Result<ExitStatus, CliError> {
    let start = Instant::now();
    if config.recipes.iter().any(leaks) {
        context.output.warn(
            "as published, conditions are made of the tokens that are scored: gains under such a recipe say little \
             about use, those under `causal` do",
        );
    }
    let base = Base::load(config, context)?;
    let texts = Texts::read(config, &base.loaded, context)?;
    let store = RunStore::open(&config.out, config.start, settings(config, &base, &texts))?;
    let reproduction = Reproduction {
        config,
        base: &base,
        texts: &texts,
        store,
        context,
    };
    let mut runs = Vec::new();
    let mut is_complete = true;
    for recipe in &config.recipes {
        if !reproduction.recipe(recipe, &mut runs)? {
            is_complete = false;
            break;
        }
    }
    if !is_complete {
        context.output.note(format_args!(
            "stopped after {} finished runs; go on with --resume",
            runs.len()
        ));
        return Ok(ExitStatus::Interrupted);
    }
    let device = context.settings.device.to_string();
    let seconds = start.elapsed().as_secs_f64();
    let report = ReproduceReport::new(&runs, config, &device, seconds);
    let json = serde_json::to_vec_pretty(&report).expect("a report is plain data");
    let file = |name: &str| config.out.join(name);
    atomic_file::write(&file(PAGE_FILE), page::page(&report).html().as_bytes())?;
    atomic_file::write(&file(TABLE_FILE), &json)?;
    atomic_file::write(&file(CURVES_FILE), curves_csv(&runs).as_bytes())?;
    context.output.results(&report)?;
    Ok(ExitStatus::Done)
}

/// Whether conditions hold what is scored.
fn leaks(recipe: &RecipeName) -> bool {
    match recipe {
        RecipeName::Causal => false,
        RecipeName::Published { off, .. } => !off.contains(&Quirk::Leak),
    }
}

/// The frozen model of all runs.
struct Base {
    loaded: LoadedModel,
    states_fingerprint: String,
}

impl Base {
    fn load(config: &ReproduceConfig, context: &Context) -> Result<Self, CliError> {
        let mut loaded = context.load_model(&config.model)?;
        loaded.model = loaded.model.no_grad();
        let base = Self {
            states_fingerprint: loaded.states_fingerprint(),
            loaded,
        };
        if base.end_of_text() == 0 {
            context.output.warn(
                "the model's end-of-text token is token 0, which the published masks do test for: its padding is \
                 neither scored nor attended to",
            );
        }
        Ok(base)
    }

    fn model(&self) -> &LanguageModel {
        &self.loaded.model
    }

    /// The token that fills rows up, as the published tokenizer is told to.
    fn end_of_text(&self) -> u32 {
        let tokenizer = &self.loaded.tokenizer;
        let ends = &tokenizer.special_token_ids().eos;
        ends.first()
            .copied()
            .unwrap_or_else(|| tokenizer.pad_token_id())
    }
}

struct Reproduction<'a> {
    config: &'a ReproduceConfig,
    base: &'a Base,
    texts: &'a Texts,
    store: RunStore,
    context: &'a Context,
}

impl Reproduction<'_> {
    /// All runs of one recipe; `false` if the user asked to stop.
    fn recipe(&self, recipe: &RecipeName, runs: &mut Vec<Run>) -> Result<bool, CliError> {
        let methods = match recipe {
            RecipeName::Causal => Causal::METHODS,
            RecipeName::Published { .. } => Published::METHODS,
        };
        let name = recipe.to_string();
        let wanted = methods.iter().flat_map(|&method| {
            let seeds = match method {
                // Nothing is drawn, so one run is all runs.
                Method::Frozen => &self.config.seeds[..1],
                _ => &self.config.seeds,
            };
            seeds.iter().map(move |&seed| (method, seed))
        });
        // Groups and states are made only where a run is missing.
        let mut side = None;
        for (method, seed) in wanted {
            if let Some(run) = self.store.find(&name, method, seed) {
                runs.push(run);
                continue;
            }
            if side.is_none() {
                side = self.side(recipe)?;
            }
            let Some(side) = &side else { return Ok(false) };
            memory::forget_peak();
            let Some(mut run) = side.run(method, seed, self.context)? else {
                return Ok(false);
            };
            run.peak_memory_bytes = memory::peak_bytes();
            self.store.save(&run)?;
            self.context.output.note(format_args!(
                "{name} {} seed {}: loss {:.4} in {:.0} s",
                method.name(),
                seed.0,
                run.loss(),
                run.seconds
            ));
            runs.push(run);
        }
        Ok(true)
    }

    fn side(&self, recipe: &RecipeName) -> Result<Option<Side<'_>>, CliError> {
        let (config, base, texts, context) = (self.config, self.base, self.texts, self.context);
        Ok(match recipe {
            RecipeName::Causal => Causal::prepare(config, base, texts, context)?
                .map(|side| Side::Causal(Box::new(side))),
            RecipeName::Published { off, .. } => {
                let name = recipe.to_string();
                Published::prepare(name, off, config, base, texts, context)?
                    .map(|side| Side::Published(Box::new(side)))
            }
        })
    }
}

/// Data under one recipe.
enum Side<'a> {
    Published(Box<Published<'a>>),
    Causal(Box<Causal<'a>>),
}

impl Side<'_> {
    fn run(
        &self,
        method: Method,
        seed: RunSeed,
        context: &Context,
    ) -> Result<Option<Run>, CliError> {
        match self {
            Self::Published(side) => side.run(method, seed, context),
            Self::Causal(side) => side.run(method, seed, context),
        }
    }
}

/// What finished runs must share with those that are missing.
fn settings(config: &ReproduceConfig, base: &Base, texts: &Texts) -> Fingerprint {
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
