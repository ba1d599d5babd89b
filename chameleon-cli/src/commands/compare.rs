//! `chameleon compare`: several methods on the same data, in one table.

mod page;
mod sweep;
mod table;
mod tenants;

use std::path::PathBuf;
use std::time::Instant;

use chameleon_models::files::atomic_file;
use chameleon_models::training::experiment::{
    Comparison, ComparisonReport, ComparisonTexts, RunStore,
};
use chameleon_models::training::{
    Split, Start, TrainingConfig, TrainingData, TrainingError, TrainingSources,
};

use crate::{
    commands::{Context, observe::unless_interrupted},
    errors::{CliError, ExitStatus},
    resolve::CompareConfig,
};

use table::CompareResults;

pub(crate) fn run(config: &CompareConfig, context: &Context) -> Result<ExitStatus, CliError> {
    let finished = match (&config.tenants, &config.sweep) {
        (Some(tenants), _) => unless_interrupted(tenants::run(config, tenants, context))?
            .map(|results| context.output.results(&results)),
        (None, None) => unless_interrupted(compare(config, context))?
            .map(|results| context.output.results(&results)),
        (None, Some(sweep)) => unless_interrupted(sweep::run(config, sweep, context))?
            .map(|report| context.output.results(&report)),
    };
    if let Some(shown) = finished {
        shown?;
        return Ok(ExitStatus::Done);
    }
    context
        .output
        .note("stopped; continue with --resume, which keeps finished runs");
    Ok(ExitStatus::Interrupted)
}

fn compare(config: &CompareConfig, context: &Context) -> Result<CompareResults, CliError> {
    refuse_taken(config)?;
    let start = Instant::now();
    let texts = prepare(config, context)?;
    let comparison = comparison(config, &texts, texts.test(), context);
    comparison.check_store()?;
    finish(&comparison, config.out.clone(), start, context)
}

/// Rejects a folder with results, unless the comparison is resumed.
fn refuse_taken(config: &CompareConfig) -> Result<(), CliError> {
    RunStore::of(&config.out).check_start(config.start)?;
    if config.start == Start::Fresh && config.out.join(TABLE_FILE).exists() {
        let path = config.out.clone();
        let what = "a comparison";
        return Err(TrainingError::Exists { path, what }.into());
    }
    Ok(())
}

fn prepare(config: &CompareConfig, context: &Context) -> Result<ComparisonTexts, CliError> {
    let data = read(config, &config.comparison.training, context)?;
    let (config, seed) = (&config.comparison, context.settings.seed);
    Ok(ComparisonTexts::prepare(data, config, seed, context)?)
}

/// Opens the model and reads the three splits.
fn read(
    config: &CompareConfig,
    training: &TrainingConfig,
    context: &Context,
) -> Result<TrainingData, CliError> {
    let loaded = context.load_model(&config.model)?;
    let sources = TrainingSources {
        train: &config.data,
        valid: &config.valid,
        test: Some(&config.test),
    };
    let seed = context.settings.seed;
    Ok(TrainingData::prepare(
        loaded, &sources, training, seed, context,
    )?)
}

fn comparison<'a>(
    config: &'a CompareConfig,
    texts: &'a ComparisonTexts,
    test: &'a Split,
    context: &'a Context,
) -> Comparison<'a> {
    Comparison {
        config: &config.comparison,
        texts,
        test,
        group_size: None,
        store: RunStore::of(&config.out),
        observer: context,
    }
}

/// Runs the missing trainings of a comparison and writes its files.
fn finish(
    comparison: &Comparison<'_>,
    out: PathBuf,
    start: Instant,
    context: &Context,
) -> Result<CompareResults, CliError> {
    let methods = comparison.run()?;
    let report = ComparisonReport::new(comparison, &methods, start.elapsed().as_secs_f64());
    let results = CompareResults::new(report, out, context);
    let folder = &results.out;
    std::fs::create_dir_all(folder).map_err(TrainingError::file("make the folder", folder))?;
    let json = serde_json::to_vec_pretty(&results).expect("a report is plain data");
    let page = page::page(&results, comparison, &methods)?;
    atomic_file::write(&folder.join(PAGE_FILE), page.html().as_bytes())?;
    atomic_file::write(&folder.join(TABLE_FILE), &json)?;
    Ok(results)
}

const TABLE_FILE: &str = "compare.json";
const PAGE_FILE: &str = "report.html";
