//! `chameleon remember` and `chameleon forget`: the exemplars of an adapter's groups, on disk.

use std::collections::BTreeMap;

use chameleon_models::adapter::{ExemplarStore, NewExemplar, StoreLimits, read_config};
use chameleon_models::data::{self, Document};
use chameleon_models::engine::EngineError;
use serde::Serialize;

use crate::{
    args::ForgetArgs,
    commands::Context,
    errors::{CliError, ExitStatus},
    output::{Column, Page, Results, Table},
    resolve::{RememberConfig, RowGroup},
};

/// The groups that were changed.
#[derive(Debug, Serialize)]
struct Remembered {
    groups: Vec<RememberedGroup>,
}

#[derive(Debug, Serialize)]
struct RememberedGroup {
    key: String,
    num_added: usize,
    num_examples: usize,
}

/// What was removed.
#[derive(Debug, Serialize)]
struct Forgotten {
    key: String,
    num_examples: usize,
}

pub(crate) fn remember(config: &RememberConfig, context: &Context) -> Result<ExitStatus, CliError> {
    let adapter = read_config(&config.adapter)?;
    if adapter.exemplars.is_none() {
        let adapter = config.adapter.display().to_string();
        return Err(EngineError::NoExemplarUse { adapter }.into());
    }
    let found = data::read_documents(&config.data.path, &config.data.options, None)?;
    config.data.report_skipped(&found.skipped, context);
    let mut by_key: BTreeMap<String, Vec<NewExemplar>> = BTreeMap::new();
    for document in found.documents {
        let key = match &config.group {
            RowGroup::Key(key) => key.clone(),
            RowGroup::Field => document.label.clone().ok_or_else(|| CliError::NoGroup {
                origin: document.origin.to_string(),
            })?,
        };
        by_key.entry(key).or_default().push(exemplar(&document));
    }
    let mut store =
        ExemplarStore::open(&config.adapter, StoreLimits::default()).map_err(EngineError::from)?;
    let mut groups = Vec::new();
    for (key, exemplars) in by_key {
        let added = store.add(&key, exemplars).map_err(EngineError::from)?;
        groups.push(RememberedGroup {
            num_added: added.ids.len(),
            num_examples: store.get(&key).map_or(0, |group| group.exemplars.len()),
            key,
        });
    }
    context.output.results(&Remembered { groups })?;
    Ok(ExitStatus::Done)
}

pub(crate) fn forget(config: &ForgetArgs, context: &Context) -> Result<ExitStatus, CliError> {
    let mut store =
        ExemplarStore::open(&config.adapter, StoreLimits::default()).map_err(EngineError::from)?;
    let key = &config.group;
    let existed = match config.example {
        Some(id) => store.remove(key, id),
        None => store.remove_key(key),
    }
    .map_err(EngineError::from)?;
    if !existed {
        return Err(CliError::NoSuchGroup { key: key.clone() });
    }
    let num_examples = store.get(key).map_or(0, |group| group.exemplars.len());
    context.output.results(&Forgotten {
        key: key.clone(),
        num_examples,
    })?;
    Ok(ExitStatus::Done)
}

/// A row with an answer is an answered request; one without is a text.
fn exemplar(document: &Document) -> NewExemplar {
    let prompt = match &document.exchange {
        Some(_) => document.prompt(),
        None => "",
    };
    NewExemplar {
        answer: document.text[prompt.len()..].to_owned(),
        prompt: prompt.to_owned(),
    }
}

impl Results for Remembered {
    fn write_text(&self, page: &mut Page) {
        let mut table = Table::new([
            Column::text("group"),
            Column::number("added"),
            Column::number("examples"),
        ]);
        for group in &self.groups {
            table.row([
                group.key.clone(),
                group.num_added.to_string(),
                group.num_examples.to_string(),
            ]);
        }
        page.table(&table);
    }
}

impl Results for Forgotten {
    fn write_text(&self, page: &mut Page) {
        page.line(format_args!(
            "{} has {} examples now",
            self.key, self.num_examples
        ));
    }
}
