//! The texts of an experiment: read, limited, tokenised.

use chameleon_models::{
    Tokenizer,
    recipes::{Quirks, WikiText, WikiTextRows},
};

use crate::{args::Experiment, commands::Context, errors::CliError, resolve::ReproduceConfig};

/// A quarter as many rows are validated and tested on as are trained on, when their number is limited.
const HELD_OUT_SHARE: usize = 4;

/// The rows of an experiment.
pub(super) struct Texts {
    pub(super) train: Part,
    pub(super) valid: Part,
    pub(super) test: Part,
}

/// Rows of one part, and their tokens.
pub(super) struct Part {
    pub(super) rows: WikiTextRows,
    pub(super) token_ids: Vec<Vec<u32>>,
}

impl Texts {
    /// Reads the data and tokenises it.
    pub(super) fn read(
        config: &ReproduceConfig,
        tokenizer: &Tokenizer,
        context: &Context,
    ) -> Result<Self, CliError> {
        let path = config.data.as_ref().ok_or(CliError::NoPaperData)?;
        let data = match config.experiment {
            Experiment::Wikitext => WikiText::from_folder(path)?,
        };
        let seed = context.settings.seed;
        let max_train = config.max_examples;
        let max_held_out = max_train.map(|count| count.div_ceil(HELD_OUT_SHARE));
        let part = |name: &str, rows: &WikiTextRows, max_rows| {
            let rows = match max_rows {
                Some(max_rows) => rows.limited(max_rows, seed.derive(name)),
                None => rows.clone(),
            };
            let texts: Vec<&str> = rows.texts.iter().map(String::as_str).collect();
            let token_ids = tokenizer.encode_batch(&texts)?;
            Ok::<_, CliError>(Part { rows, token_ids })
        };
        Ok(Self {
            train: part("train", &data.train, max_train)?,
            valid: part("valid", &data.valid, max_held_out)?,
            test: part("test", &data.test, max_held_out)?,
        })
    }

    /// What the published recipe trains on.
    pub(super) fn published_train(&self, _quirks: &Quirks) -> Vec<Vec<u32>> {
        self.train.token_ids.clone()
    }
}
