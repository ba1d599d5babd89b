//! The texts of an experiment: downloaded or read, limited, tokenised, and split into examples for the recipe `causal`.

use std::path::PathBuf;

use chameleon_core::RunSeed;

use crate::data::hub_dataset::{self, HubDataset};
use crate::data::{Example, TokeniseError, WindowOptions};
use crate::families::load::LoadedModel;
use crate::files::hub::HubOptions;
use crate::training::error::TrainingError;

use super::config::ReproductionConfig;
use super::published::rows::PublishedText;
use super::quirks::{Quirk, Quirks};
use super::settings::Experiment;
use super::texts::{PaperRows, PaperTexts};

/// If the number of training rows is limited, those of validation and test rows are limited to a quarter of it.
const HELD_OUT_SHARE: usize = 4;

/// The rows of an experiment.
pub(super) struct Texts {
    pub(super) train: Part,
    pub(super) valid: Part,
    pub(super) test: Part,
}

/// Rows of one split, for both recipes.
pub(super) struct Part {
    /// Every row.
    pub(super) rows: Vec<PublishedText>,
    /// Windows of rows, or exchanges; rows that are too short are left out.
    pub(super) examples: Vec<Example>,
}

impl Texts {
    /// Reads the data and tokenises it.
    pub(super) fn read(
        config: &ReproductionConfig,
        loaded: &LoadedModel,
        seed: RunSeed,
    ) -> Result<Self, TrainingError> {
        let data = match config.experiment {
            Experiment::Wikitext => {
                let folder = match &config.data {
                    Some(folder) => folder.clone(),
                    None => fetched(&HubDataset::WIKITEXT_2_RAW, &config.hub)?,
                };
                PaperTexts::wikitext(&folder)?
            }
            Experiment::Alpaca => {
                let file = match &config.data {
                    Some(file) => file.clone(),
                    None => only_file(&HubDataset::ALPACA_CLEANED, &config.hub)?,
                };
                PaperTexts::alpaca(&file, config.condition, seed)?
            }
        };
        let max_train = config.max_examples;
        let max_held_out = max_train.map(|count| count.div_ceil(HELD_OUT_SHARE));
        let part = |name: &str, rows: &PaperRows, max_rows: Option<usize>| match max_rows {
            Some(max_rows) => {
                let rows = rows.limited(max_rows, seed.derive(name));
                Part::cut(&rows, config, loaded)
            }
            None => Part::cut(rows, config, loaded),
        };
        Ok(Self {
            train: part("train", &data.train, max_train)?,
            valid: part("valid", &data.valid, max_held_out)?,
            test: part("test", &data.test, max_held_out)?,
        })
    }

    /// The training rows of the published recipe.
    pub(super) fn published_train(
        &self,
        experiment: Experiment,
        quirks: &Quirks,
    ) -> Vec<PublishedText> {
        let mut rows = self.train.rows.clone();
        if experiment == Experiment::Alpaca && quirks.has(Quirk::TrainedValidation) {
            rows.extend_from_slice(&self.valid.rows);
        }
        rows
    }
}

impl Part {
    fn cut(
        rows: &PaperRows,
        config: &ReproductionConfig,
        loaded: &LoadedModel,
    ) -> Result<Self, TrainingError> {
        let texts: Vec<&str> = rows.texts.iter().map(String::as_str).collect();
        let mut published: Vec<PublishedText> = loaded
            .tokenizer
            .encode_batch(&texts)?
            .into_iter()
            .map(|token_ids| PublishedText::of_prefix(token_ids, config.prefix))
            .collect();
        let options = WindowOptions::new(config.settings.seq_len, config.prefix)?;
        let tokenise =
            |text: &str| Ok::<_, TokeniseError>(loaded.tokenizer.encode_with_ends(text)?);
        // The seed has no effect, because these rows are split already.
        let mut examples = rows.examples(options, RunSeed(0), &tokenise)?;
        for (row, exchange) in published.iter_mut().zip(&rows.exchanges) {
            if exchange.is_some() {
                // Without an example (below), the row has no room for an answer.
                row.scored_from = config.settings.seq_len;
            }
        }
        for example in &mut examples {
            let row_idx = example.document_idx;
            if rows.exchanges[row_idx].is_some() {
                published[row_idx].prompt = example.prompt.clone();
                published[row_idx].scored_from = example.sequence.boundary();
            }
            // Rows of one article are correlated, so the interval resamples articles.
            example.document_idx = rows.document_indices[row_idx];
        }
        Ok(Self {
            rows: published,
            examples,
        })
    }
}

/// Downloads a data set of the hub; returns its folder.
fn fetched(dataset: &HubDataset, options: &HubOptions) -> Result<PathBuf, TrainingError> {
    Ok(hub_dataset::resolve(dataset, options)?)
}

/// The one file of a data set that has one.
fn only_file(dataset: &HubDataset, options: &HubOptions) -> Result<PathBuf, TrainingError> {
    let folder = fetched(dataset, options)?;
    let files = hub_dataset::parquet_files(&folder)?;
    files
        .into_iter()
        .next()
        .ok_or(TrainingError::NoParquet { path: folder })
}
