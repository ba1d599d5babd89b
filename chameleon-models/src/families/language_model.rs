//! A model of any family.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Int, Tensor};
use chameleon_core::{FrozenWeight, LoraFactors};

use crate::error::ModelError;
use crate::families::attention::Attend;
use crate::families::causal_lm::{CachedStates, CausalLm, LinearModule, SequencePass};
use crate::families::decoder;
use crate::families::gpt2::Gpt2;
use crate::families::kv_cache::{KvCache, Segment};
use crate::families::llama::Llama;
use crate::families::sizes::ModelSizes;
use crate::families::stored_weights::StoredWeights;

/// A model of any family, for code that reads the family from a file.
#[derive(Module, Debug)]
pub enum LanguageModel {
    /// GPT-2.
    Gpt2(Gpt2),
    /// Llama and its relatives.
    Llama(Llama),
}

impl LanguageModel {
    /// The same model with a change merged into its head. A tied head is untied; the layers are shared.
    ///
    /// # Panics
    ///
    /// When the factors are of another size.
    #[must_use]
    pub fn with_merged_head(&self, factors: &LoraFactors) -> Self {
        let head = Linear {
            weight: Param::from_tensor(self.head_weight().to_dense() + factors.delta()),
            bias: None,
        };
        let mut merged = self.clone();
        let (own_head, stored) = match &mut merged {
            Self::Gpt2(model) => (&mut model.lm_head, &mut model.stored),
            Self::Llama(model) => (&mut model.lm_head, &mut model.stored),
        };
        *own_head = Some(head);
        stored.head = None;
        merged
    }

    /// Keeps these weights as they are stored. The tensors that they replace are emptied.
    pub(crate) fn keep_stored(&mut self, stored: StoredWeights) {
        match self {
            Self::Gpt2(model) => model.keep_stored(stored),
            Self::Llama(model) => model.keep_stored(stored),
        }
    }

    /// The weights that stay as they are stored.
    pub(crate) fn stored(&self) -> &StoredWeights {
        match self {
            Self::Gpt2(model) => &model.stored,
            Self::Llama(model) => &model.stored,
        }
    }

    /// Whether the head is a weight of its own and not the embedding.
    pub(crate) fn has_own_head(&self) -> bool {
        match self {
            Self::Gpt2(model) => model.lm_head.is_some(),
            Self::Llama(model) => model.lm_head.is_some(),
        }
    }

    /// The path of the embedding's weight in the module.
    pub(crate) fn embedding_field(&self) -> &'static str {
        match self {
            Self::Gpt2(_) => "wte.weight",
            Self::Llama(_) => "embed_tokens.weight",
        }
    }

    /// The dense embedding of tokens, which is empty if it is stored.
    pub(crate) fn dense_embedding(&self) -> Tensor<2> {
        match self {
            Self::Gpt2(model) => model.wte.weight.val(),
            Self::Llama(model) => model.embed_tokens.weight.val(),
        }
    }

    /// A pass over whole sequences with another attention than the model's.
    pub(crate) fn forward_with(
        &self,
        pass: SequencePass<'_>,
        attention: &mut dyn Attend,
    ) -> Tensor<3> {
        match self {
            Self::Gpt2(model) => decoder::forward_with(model, pass, attention),
            Self::Llama(model) => decoder::forward_with(model, pass, attention),
        }
    }

    fn as_causal_lm(&self) -> &dyn CausalLm {
        match self {
            Self::Gpt2(model) => model,
            Self::Llama(model) => model,
        }
    }
}

impl CausalLm for LanguageModel {
    fn sizes(&self) -> &ModelSizes {
        self.as_causal_lm().sizes()
    }

    fn embed(&self, token_ids: Tensor<2, Int>) -> Tensor<3> {
        self.as_causal_lm().embed(token_ids)
    }

    fn check_positions(&self, seq_len: usize) -> Result<(), ModelError> {
        self.as_causal_lm().check_positions(seq_len)
    }

    fn linear_modules(&self) -> Vec<LinearModule> {
        self.as_causal_lm().linear_modules()
    }

    fn forward(&self, pass: SequencePass<'_>) -> Tensor<3> {
        self.as_causal_lm().forward(pass)
    }

    fn states_with_cache(
        &self,
        segments: &[Segment<'_>],
        cache: &mut KvCache,
        tapped_layers: &[usize],
    ) -> CachedStates {
        self.as_causal_lm()
            .states_with_cache(segments, cache, tapped_layers)
    }

    fn head_weight(&self) -> FrozenWeight {
        self.as_causal_lm().head_weight()
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.as_causal_lm().logits(hidden)
    }
}
