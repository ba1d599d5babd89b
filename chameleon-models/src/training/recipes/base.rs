//! The frozen model that all runs of a reproduction share.

use burn::module::Module as _;

use crate::error::ModelError;
use crate::families::causal_lm::CausalLm;
use crate::families::language_model::LanguageModel;
use crate::families::load::LoadedModel;

/// The frozen model of all runs.
#[derive(Debug)]
pub struct Base {
    pub(super) loaded: LoadedModel,
    pub(super) states_fingerprint: String,
}

impl Base {
    /// Freezes a model for rows of `seq_len` tokens.
    ///
    /// # Errors
    ///
    /// When the model has fewer learned positions.
    pub fn new(mut loaded: LoadedModel, seq_len: usize) -> Result<Self, ModelError> {
        loaded.model = loaded.model.no_grad();
        loaded.model.check_positions(seq_len)?;
        Ok(Self {
            states_fingerprint: loaded.states_fingerprint(),
            loaded,
        })
    }

    pub(super) fn model(&self) -> &LanguageModel {
        &self.loaded.model
    }

    /// The padding token, as in the published tokenizer's configuration.
    pub fn end_of_text(&self) -> u32 {
        let tokenizer = &self.loaded.tokenizer;
        let ends = &tokenizer.special_token_ids().eos;
        ends.first()
            .copied()
            .unwrap_or_else(|| tokenizer.pad_token_id())
    }
}
