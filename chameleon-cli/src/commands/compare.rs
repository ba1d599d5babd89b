//! `chameleon compare`: several methods on the same data, in one honest table.
//!
//! Every method tries the same learning rates with the first seed and keeps its best epoch on the validation texts.
//! What was chosen is trained with all seeds and scored once on the test.

mod course;
mod duels;
mod page;
mod protocol;
mod recall;
mod runs;
mod store;
mod sweep;
mod table;

use std::path::PathBuf;
use std::time::Instant;

use chameleon_hypernet::Condition;
use chameleon_models::files::atomic_file;

use crate::{
    commands::{
        Context,
        prepare::{Part, Prepared, PreparedTest, Sources, prepare_with_test},
        states::known_states,
    },
    errors::{CliError, ExitStatus},
    resolve::{CompareConfig, Start},
};

use recall::MemoryScorer;
use runs::{Comparison, MethodRuns, States};
use store::Store;
use table::CompareReport;

pub(crate) fn run(config: &CompareConfig, context: &Context) -> Result<ExitStatus, CliError> {
    let is_finished = match &config.sweep {
        None => match compare(config, context)? {
            Some(report) => {
                context.output.results(&report)?;
                true
            }
            None => false,
        },
        Some(sweep) => match sweep::run(config, sweep, context)? {
            Some(report) => {
                context.output.results(&report)?;
                true
            }
            None => false,
        },
    };
    if is_finished {
        return Ok(ExitStatus::Done);
    }
    context
        .output
        .note("stopped; go on with --resume, which keeps the runs that are finished");
    Ok(ExitStatus::Interrupted)
}

/// One comparison, or `None` if the user asked to stop.
fn compare(config: &CompareConfig, context: &Context) -> Result<Option<CompareReport>, CliError> {
    refuse_taken(config)?;
    let start = Instant::now();
    let Some(texts) = PreparedStates::of(config, context)? else {
        return Ok(None);
    };
    let comparison = texts.comparison(config, context);
    comparison.check_store()?;
    finish(&comparison, config.out.clone(), start)
}

/// Nothing that exists is written over without being asked to.
fn refuse_taken(config: &CompareConfig) -> Result<(), CliError> {
    let out = &config.out;
    let is_taken = Store::of(out).exists() || out.join(TABLE_FILE).exists();
    if config.start == Start::Fresh && is_taken {
        return Err(CliError::ComparisonTaken { path: out.clone() });
    }
    Ok(())
}

/// Runs what is missing of a comparison and writes its files, or answers `None` if the user asked to stop.
fn finish(
    comparison: &Comparison<'_>,
    out: PathBuf,
    start: Instant,
) -> Result<Option<CompareReport>, CliError> {
    let methods = comparison.config.methods.iter();
    let methods: Option<Vec<MethodRuns>> = methods
        .map(|&method| comparison.method(method))
        .collect::<Result<_, _>>()?;
    let Some(methods) = methods else {
        return Ok(None);
    };
    let report = CompareReport::new(comparison, &methods, out, start.elapsed().as_secs_f64());
    let folder = &report.out;
    std::fs::create_dir_all(folder).map_err(|source| CliError::Folder {
        path: folder.clone(),
        source,
    })?;
    let json = serde_json::to_vec_pretty(&report).expect("a report is plain data");
    let page = page::page(&report, comparison, &methods)?;
    atomic_file::write(&folder.join(PAGE_FILE), page.html().as_bytes())?;
    atomic_file::write(&folder.join(TABLE_FILE), &json)?;
    Ok(Some(report))
}

const TABLE_FILE: &str = "compare.json";
const PAGE_FILE: &str = "report.html";

/// Texts in three parts, with the hidden states of each.
struct PreparedStates {
    prepared: Prepared,
    test: Part,
    states: States,
    recall: Option<MemoryScorer>,
}

impl PreparedStates {
    fn of(config: &CompareConfig, context: &Context) -> Result<Option<Self>, CliError> {
        let training = &config.training;
        let PreparedTest { prepared, test } = prepare_with_test(
            &Sources {
                model: &config.model,
                data: &config.data,
                held_out: &config.valid,
                training,
            },
            &config.test,
            context,
        )?;
        let cached = |part| {
            let cache_dir = training.cache_dir.as_ref();
            prepared.shared_hidden_states(part, training.span, cache_dir, context)
        };
        let known = |part| known_states(&prepared, part, training, context, || cached(part));
        let Some(frozen_test) = cached(&test)? else {
            return Ok(None);
        };
        let (Some(train), Some(valid), Some(test_states)) = (
            known(&prepared.train)?,
            known(&prepared.held_out)?,
            known(&test)?,
        ) else {
            return Ok(None);
        };
        let remembers = config
            .methods
            .iter()
            .any(|&method| protocol::memory(method).is_some());
        let recall = if remembers {
            let with_prompts = training.adapter.condition == Condition::Batch;
            let Some(recall) = MemoryScorer::of(&prepared, &test, training, with_prompts, context)?
            else {
                return Ok(None);
            };
            Some(recall)
        } else {
            None
        };
        Ok(Some(Self {
            prepared,
            test,
            recall,
            states: States {
                train,
                valid,
                test: test_states,
                frozen_test,
            },
        }))
    }

    fn comparison<'a>(&'a self, config: &'a CompareConfig, context: &'a Context) -> Comparison<'a> {
        Comparison {
            config,
            prepared: &self.prepared,
            test: &self.test,
            group_size: None,
            states: &self.states,
            recall: self.recall.as_ref(),
            store: Store::of(&config.out),
            context,
        }
    }
}
