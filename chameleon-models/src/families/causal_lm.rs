//! The interface of every language model: [`CausalLm`].
//!
//! The trait stops at hidden states and returns the head's weight, because scoring, training and decoding differ in
//! which rows need logits and which factors are added to them.

use std::collections::BTreeMap;

use burn::tensor::{Int, Tensor};
use chameleon_core::{FrozenHead, FrozenWeight, fused};
use chameleon_hypernet::LayerFactors;

use crate::error::ModelError;
use crate::families::kv_cache::{KvCache, Segment};
use crate::families::sizes::ModelSizes;

/// A linear module that every layer of a model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearModule {
    /// Its name within the layer, such as `self_attn.q_proj`.
    pub path: &'static str,
    /// Width of its input.
    pub in_size: usize,
    /// Width of its output.
    pub out_size: usize,
}

impl LinearModule {
    /// The last part of its name, such as `q_proj`.
    pub fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// Whether `target` is its name, or its name with its parent.
    pub fn is_named(&self, target: &str) -> bool {
        self.path == target || self.name() == target
    }
}

/// A pass over whole sequences, through all or some of the layers.
#[derive(Debug, Clone)]
pub struct SequencePass<'a> {
    /// The input.
    pub input: PassInput,
    /// The last layer.
    pub end: PassEnd,
    /// The factors of adapted modules.
    pub factors: &'a LayerFactors,
}

/// The input of a pass.
#[derive(Debug, Clone)]
pub enum PassInput {
    /// `[batch, seq]`
    TokenIds(Tensor<2, Int>),
    /// States that were computed before.
    Entering {
        /// The layer they enter.
        layer_idx: usize,
        /// `[batch, seq, hidden]`
        states: Tensor<3>,
    },
}

impl PassInput {
    /// `[batch, seq]`
    pub(crate) fn dims(&self) -> [usize; 2] {
        match self {
            Self::TokenIds(token_ids) => token_ids.dims(),
            Self::Entering { states, .. } => {
                let [batch, seq_len, _] = states.dims();
                [batch, seq_len]
            }
        }
    }
}

/// The end of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PassEnd {
    /// After the final norm.
    Head,
    /// With the states that enter this layer; the number of layers means the states that enter the final norm.
    Entering(usize),
}

/// States of tokens that continue rows of a cache, the tokens of all segments one after the other.
#[derive(Debug, Clone)]
pub struct CachedStates {
    /// After the final norm, `[tokens, hidden]`.
    pub hidden: Tensor<2>,
    /// As they enter each tapped layer, `[tokens, hidden]`.
    pub entering: BTreeMap<usize, Tensor<2>>,
}

/// A causal language model: token ids in, hidden states out.
pub trait CausalLm {
    /// The sizes of this model.
    fn sizes(&self) -> &ModelSizes;

    /// Rejects sequences of more tokens than the model has learned positions for. Rotary embeddings are computed for
    /// any position, so models that have them accept every length.
    ///
    /// # Errors
    ///
    /// [`ModelError::TooManyPositions`] if `seq_len` exceeds the learned positions.
    fn check_positions(&self, seq_len: usize) -> Result<(), ModelError>;

    /// The linear modules of one layer, which are those of every layer.
    fn linear_modules(&self) -> Vec<LinearModule>;

    /// The input embedding of every token, without positions; prompt embeddings are means of these.
    ///
    /// # Shapes
    ///
    /// - `token_ids`: `[batch, seq]`
    /// - output: `[batch, seq, hidden]`
    fn embed(&self, token_ids: Tensor<2, Int>) -> Tensor<3>;

    /// Hidden states of a pass over whole sequences. A token sees itself and what precedes it, so padding on the
    /// right changes no real token. Nothing is recorded for gradients below the first adapted layer.
    ///
    /// # Shapes
    ///
    /// - output: `[batch, seq, hidden]`
    ///
    /// # Panics
    ///
    /// Panics if `seq` exceeds the positions of a model that has learned ones.
    fn forward(&self, pass: SequencePass<'_>) -> Tensor<3>;

    /// Hidden states after the final norm, of tokens that continue rows of `cache`; adds them to it. Each row is
    /// changed by its own segment's layers.
    ///
    /// The result of a row does not depend on the other rows of the pass, down to the last bit on backends whose
    /// products add up in one order for every number of rows above one, as flex does.
    ///
    /// # Shapes
    ///
    /// - output: `[tokens, hidden]`, the tokens of all segments one after the other
    ///
    /// # Panics
    ///
    /// Panics if there is no segment or one is empty, if a row appears twice or is not the cache's, or if a row
    /// outgrows a model that has learned positions.
    fn hidden_states_with_cache(&self, segments: &[Segment<'_>], cache: &mut KvCache) -> Tensor<2> {
        self.states_with_cache(segments, cache, &[]).hidden
    }

    /// Like [`hidden_states_with_cache`](Self::hidden_states_with_cache), with the states that enter some layers on
    /// the way. A layer that the model does not have is left out.
    ///
    /// # Panics
    ///
    /// As [`hidden_states_with_cache`](Self::hidden_states_with_cache).
    fn states_with_cache(
        &self,
        segments: &[Segment<'_>],
        cache: &mut KvCache,
        tapped_layers: &[usize],
    ) -> CachedStates;

    /// Hidden states of the frozen model after the final norm.
    ///
    /// # Shapes
    ///
    /// - `token_ids`: `[batch, seq]`
    /// - output: `[batch, seq, hidden]`
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward).
    fn hidden_states(&self, token_ids: Tensor<2, Int>) -> Tensor<3> {
        self.forward(SequencePass {
            input: PassInput::TokenIds(token_ids),
            end: PassEnd::Head,
            factors: &LayerFactors::none(),
        })
    }

    /// The weight of the head, `[hidden, vocab]`; the embedding, as it is stored or a transposed view, when they are tied.
    fn head_weight(&self) -> FrozenWeight;

    /// The head with the cap of its logits.
    fn head(&self) -> FrozenHead {
        FrozenHead::uncapped(self.head_weight())
    }

    /// Logits of the frozen head before the cap, in whichever order of multiplication is fastest.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[rows, hidden]`
    /// - output: `[rows, vocab]`
    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        fused::frozen_product(hidden, &self.head_weight())
    }
}
