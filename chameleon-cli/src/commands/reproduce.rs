//! `chameleon reproduce`: the paper's experiments under its recipe, under variations of it, and under ours.

mod page;
mod report;

use std::time::Instant;

use chameleon_models::files::atomic_file;
use chameleon_models::training::recipes::{
    Base, RecipeName, ReproductionConfig, curves_csv, reproduce,
};

use crate::{
    commands::{Context, observe::unless_interrupted},
    errors::{CliError, ExitStatus},
    resolve::ReproduceConfig,
};

use report::{CURVES_FILE, PAGE_FILE, ReproduceResults, TABLE_FILE};

pub(crate) fn run(config: &ReproduceConfig, context: &Context) -> Result<ExitStatus, CliError> {
    let start = Instant::now();
    if config.recipes.iter().any(RecipeName::leaks) {
        context.output.warn(
            "as published, conditions are made of the tokens that are scored: gains under such a recipe say little \
             about use, those under `causal` do",
        );
    }
    let loaded = context.load_model(&config.model)?;
    let base = Base::new(loaded, config.settings.seq_len)?;
    if base.end_of_text() == 0 {
        context.output.warn(
            "the model's end-of-text token is token 0, which the published masks do test for: its padding is \
             neither scored nor attended to",
        );
    }
    let reproduction = ReproductionConfig {
        experiment: config.experiment,
        data: config.data.clone(),
        hub: context.hub_options(),
        recipes: config.recipes.clone(),
        loss: config.loss,
        seeds: config.seeds.clone(),
        max_examples: config.max_examples,
        prefix: config.prefix,
        condition: config.condition,
        num_answers: config.num_answers,
        settings: config.settings.clone(),
        cache_dir: config.cache_dir.clone(),
        seed: context.settings.seed,
    };
    let runs = reproduce(&reproduction, &base, &config.out, config.start, context);
    let Some(runs) = unless_interrupted(runs)? else {
        context
            .output
            .note("stopped; continue with --resume, which keeps finished runs");
        return Ok(ExitStatus::Interrupted);
    };
    let seconds = start.elapsed().as_secs_f64();
    let results = ReproduceResults::new(&runs, config, seconds, context);
    let json = serde_json::to_vec_pretty(&results).expect("a report is plain data");
    let file = |name: &str| config.out.join(name);
    atomic_file::write(&file(PAGE_FILE), page::page(&results).html().as_bytes())?;
    atomic_file::write(&file(TABLE_FILE), &json)?;
    atomic_file::write(&file(CURVES_FILE), curves_csv(&runs).as_bytes())?;
    context.output.results(&results)?;
    Ok(ExitStatus::Done)
}
