//! The decoder that every family is: one stack of layers, described by a [`DecoderConfig`].

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, Linear};
use burn::tensor::{Device, Int, Tensor};
use chameleon_core::fused::RotaryHalves;
use chameleon_core::{AttentionContext, FrozenHead, FrozenWeight, LoraFactors};

use crate::error::ModelError;
use crate::families::attention::{Attend, Causal, Recording};
use crate::families::causal_lm::{
    CachedStates, CausalLm, LinearModule, PassEnd, PassInput, SequencePass,
};
use crate::families::config::DecoderConfig;
use crate::families::config_error::ConfigError;
use crate::families::indices::index_tensor;
use crate::families::kv_cache::{KvCache, Segment};
use crate::families::layer::{DecoderLayer, INITIALIZER, linear, scaled};
use crate::families::layer_context::LayerContext;
use crate::families::norm::Norm;
use crate::families::sizes::ModelSizes;
use crate::families::stored_weights::{self, StoredWeights};

/// A language model of any family, made by [`DecoderConfig::init`].
#[derive(Module, Debug)]
pub struct LanguageModel {
    /// Token embeddings, `[vocab, hidden]`.
    pub embed_tokens: Embedding,
    /// Position embeddings, `[positions, hidden]`, where they are learned.
    pub embed_positions: Option<Embedding>,
    /// The transformer layers.
    pub layers: Vec<DecoderLayer>,
    /// The norm before the head.
    pub norm: Norm,
    /// The head, `[hidden, vocab]`; the embedding serves when absent.
    pub lm_head: Option<Linear>,
    #[module(skip)]
    config: Arc<DecoderConfig>,
    #[module(skip)]
    stored: StoredWeights,
}

impl DecoderConfig {
    /// A model with random weights; loading replaces them before they are initialised.
    ///
    /// # Errors
    ///
    /// Fails if [`validate`](Self::validate) does.
    pub fn init(&self, device: &Device) -> Result<LanguageModel, ConfigError> {
        self.validate()?;
        let sizes = &self.sizes;
        let embedding = |num_rows| {
            EmbeddingConfig::new(num_rows, sizes.hidden_size)
                .with_initializer(INITIALIZER)
                .init(device)
        };
        let lm_head =
            (!self.is_tied).then(|| linear(sizes.hidden_size, sizes.vocab_size, false, device));
        Ok(LanguageModel {
            embed_tokens: embedding(sizes.vocab_size),
            embed_positions: self
                .has_learned_positions()
                .then(|| embedding(sizes.max_seq_len)),
            layers: (0..sizes.num_layers)
                .map(|_| self.init_layer(device))
                .collect(),
            norm: self.norm.init(sizes.hidden_size, device),
            lm_head,
            config: Arc::new(self.clone()),
            stored: StoredWeights::default(),
        })
    }
}

impl LanguageModel {
    /// What the model computes.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// A linear module of a layer by its name, such as `self_attn.q_proj`; `None` if there is no such layer or module.
    pub fn linear_mut(&mut self, layer_idx: usize, path: &str) -> Option<&mut Linear> {
        let modules = self.config.linear_modules();
        let module_idx = modules.iter().position(|module| module.path == path)?;
        self.layers
            .get_mut(layer_idx)?
            .linears_mut()
            .nth(module_idx)
    }

    /// The same model with a change merged into its head. A tied head is untied; the layers are shared.
    ///
    /// # Panics
    ///
    /// When the factors are of another size.
    #[must_use]
    pub fn with_merged_head(&self, factors: &LoraFactors) -> Self {
        let mut merged = self.clone();
        merged.lm_head = Some(Linear {
            weight: Param::from_tensor(self.head_weight().to_dense() + factors.delta()),
            bias: None,
        });
        merged.stored.head = None;
        merged
    }

    /// Keeps these weights as they are stored. The tensors that they replace are emptied.
    pub(crate) fn keep_stored(&mut self, stored: StoredWeights) {
        let modules = self.config.linear_modules();
        for (layer_idx, layer) in self.layers.iter_mut().enumerate() {
            for (module, linear) in modules.iter().zip(layer.linears_mut()) {
                let kept = stored.module(layer_idx, module.path);
                stored_weights::replace(kept, &mut linear.weight);
            }
        }
        if let Some(head) = &mut self.lm_head {
            stored_weights::replace(stored.head.as_ref(), &mut head.weight);
        }
        let embedding = &mut self.embed_tokens.weight;
        stored_weights::replace(stored.embedding.as_ref(), embedding);
        self.stored = stored;
    }

    /// The weights that stay as they are stored.
    pub(crate) fn stored(&self) -> &StoredWeights {
        &self.stored
    }

    /// Whether the head is a weight of its own and not the embedding.
    pub(crate) fn has_own_head(&self) -> bool {
        self.lm_head.is_some()
    }

    /// The dense embedding of tokens, which is empty if it is stored.
    pub(crate) fn dense_embedding(&self) -> Tensor<2> {
        self.embed_tokens.weight.val()
    }

    /// The angles of all rotary embeddings at positions `[batch or 1, seq]`; computed once for all layers of a pass.
    fn rotations(&self, positions: &[Vec<usize>]) -> Vec<RotaryHalves> {
        let device = self.embed_tokens.weight.device();
        let embeddings = self.config.rotary.iter();
        embeddings
            .map(|rotary| rotary.at(positions, &device))
            .collect()
    }

    /// The states that enter the first layer: `[batch, seq]` -> `[batch, seq, hidden]`.
    fn enter(&self, token_ids: Tensor<2, Int>, positions: &[Vec<usize>]) -> Tensor<3> {
        let states = scaled(self.embed(token_ids), self.config.scales.embedding);
        let Some(embed_positions) = &self.embed_positions else {
            return states;
        };
        let seq_len = positions.first().map_or(0, Vec::len);
        let last = positions.iter().flatten().max().copied().unwrap_or(0);
        let max_seq_len = self.config.sizes.max_seq_len;
        assert!(
            last < max_seq_len,
            "position {last} is past the {max_seq_len} the model has"
        );
        let indices = index_tensor(positions.iter().flatten().copied(), &states.device())
            .reshape([positions.len(), seq_len]);
        states + embed_positions.forward(indices)
    }

    /// The states that the head multiplies.
    fn leave(&self, states: Tensor<3>) -> Tensor<3> {
        scaled(self.norm.forward(states), self.config.scales.logits)
    }

    /// A pass over whole sequences with another attention than the model's.
    pub(crate) fn forward_with(
        &self,
        pass: SequencePass<'_>,
        attention: &mut dyn Attend,
    ) -> Tensor<3> {
        let [_, seq_len] = pass.input.dims();
        let rows = [(0..seq_len).collect()];
        let positions = self.rotations(&rows);
        let (mut states, first_layer) = match pass.input {
            PassInput::TokenIds(token_ids) => (self.enter(token_ids, &rows), 0),
            PassInput::Entering { layer_idx, states } => (states, layer_idx),
        };
        let end = match pass.end {
            PassEnd::Head => self.layers.len(),
            PassEnd::Entering(layer_idx) => layer_idx,
        };
        for layer_idx in first_layer..end {
            let context = LayerContext {
                config: &self.config,
                layer_idx,
                positions: &positions,
                factors: pass.factors,
                stored: &self.stored,
            };
            attention.begin_layer(layer_idx);
            states = self.layers[layer_idx].forward(states, &context, attention);
        }
        match pass.end {
            PassEnd::Head => self.leave(states),
            PassEnd::Entering(_) => states,
        }
    }

    /// Keys and values of whole sequences in the layers of the pass, as a context for sequences that follow each of
    /// them. `lens` are the lengths of the sequences, which are padded on the right.
    pub(crate) fn context_of(&self, pass: SequencePass<'_>, lens: &[usize]) -> AttentionContext {
        let [_, seq_len] = pass.input.dims();
        let mut recording = Recording::of(lens, seq_len, &self.head_weight().device());
        self.forward_with(pass, &mut recording);
        recording.into_context()
    }

    fn pass_with_cache(
        &self,
        segments: &[Segment<'_>],
        cache: &mut KvCache,
        tapped_layers: &[usize],
    ) -> CachedStates {
        let mut pass = cache.begin(segments);
        let factors = pass.factors();
        let positions = self.rotations(pass.positions());
        let mut states = self.enter(pass.token_ids(), pass.positions());
        let mut entering = BTreeMap::new();
        for (layer_idx, layer) in self.layers.iter().enumerate() {
            if tapped_layers.contains(&layer_idx) {
                entering.insert(layer_idx, pass.asked(states.clone()));
            }
            let context = LayerContext {
                config: &self.config,
                layer_idx,
                positions: &positions,
                factors: &factors,
                stored: &self.stored,
            };
            states = layer.forward(states, &context, &mut pass.layer(layer_idx));
        }
        CachedStates {
            hidden: pass.asked(self.leave(states)),
            entering,
        }
    }
}

impl CausalLm for LanguageModel {
    fn sizes(&self) -> &ModelSizes {
        &self.config.sizes
    }

    fn embed(&self, token_ids: Tensor<2, Int>) -> Tensor<3> {
        self.stored.embed(token_ids, &self.embed_tokens)
    }

    fn check_positions(&self, seq_len: usize) -> Result<(), ModelError> {
        let max_seq_len = self.config.sizes.max_seq_len;
        if self.config.has_last_position() && seq_len > max_seq_len {
            return Err(ModelError::TooManyPositions {
                found: seq_len,
                max_seq_len,
            });
        }
        Ok(())
    }

    fn linear_modules(&self) -> Vec<LinearModule> {
        self.config.linear_modules()
    }

    fn forward(&self, pass: SequencePass<'_>) -> Tensor<3> {
        let context = pass.factors.context();
        self.forward_with(pass, &mut Causal::with_context(context))
    }

    /// The whole pass runs on a thread of the pool that computes its products. Called from another thread, each of the
    /// hundreds of products of a pass would put that thread to sleep and wake it, which takes as long as a small product.
    fn states_with_cache(
        &self,
        segments: &[Segment<'_>],
        cache: &mut KvCache,
        tapped_layers: &[usize],
    ) -> CachedStates {
        rayon::scope(|_| self.pass_with_cache(segments, cache, tapped_layers))
    }

    fn head_weight(&self) -> FrozenWeight {
        self.stored
            .head_weight(&self.embed_tokens, self.lm_head.as_ref())
    }

    fn head(&self) -> FrozenHead {
        FrozenHead {
            weight: self.head_weight(),
            soft_cap: self.config.scales.logit_soft_cap,
        }
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.stored
            .logits(hidden, &self.embed_tokens, self.lm_head.as_ref())
    }
}
