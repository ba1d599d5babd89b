//! The GPT-2 model. Field names are Hugging Face's, so adapters find `h.0.attn.c_attn.weight`.

use burn::module::{Initializer, Module};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor};
use chameleon_core::{FrozenWeight, fused};

use super::config::Gpt2Config;
use crate::error::ModelError;
use crate::families::attention::{Attend, Projected};
use crate::families::causal_lm::{CachedStates, CausalLm, LinearModule, SequencePass};
use crate::families::config_error::ConfigError;
use crate::families::decoder::{self, Decoder, LayerContext};
use crate::families::indices::index_tensor;
use crate::families::kv_cache::{KvCache, Segment};
use crate::families::sizes::ModelSizes;
use crate::families::stored_weights::{self, StoredWeights};

/// A GPT-2 model, made by [`Gpt2Config::init`].
#[derive(Module, Debug)]
pub struct Gpt2 {
    /// Token embeddings, `[vocab, hidden]`.
    pub wte: Embedding,
    /// Position embeddings, `[positions, hidden]`.
    pub wpe: Embedding,
    /// The transformer layers.
    pub h: Vec<Gpt2Layer>,
    /// The norm before the head.
    pub ln_f: LayerNorm,
    /// The head, `[hidden, vocab]`; the embedding serves when absent.
    pub lm_head: Option<Linear>,
    #[module(skip)]
    sizes: ModelSizes,
    #[module(skip)]
    pub(crate) stored: StoredWeights,
}

/// One transformer layer.
#[derive(Module, Debug)]
pub struct Gpt2Layer {
    /// The norm before attention.
    pub ln_1: LayerNorm,
    /// Attention.
    pub attn: Gpt2Attention,
    /// The norm before the feed-forward part.
    pub ln_2: LayerNorm,
    /// The feed-forward part.
    pub mlp: Gpt2Mlp,
}

/// Attention with one projection for query, key and value.
#[derive(Module, Debug)]
pub struct Gpt2Attention {
    /// `[hidden, 3 * hidden]`: query, key and value side by side.
    pub c_attn: Linear,
    /// `[hidden, hidden]`
    pub c_proj: Linear,
    #[module(skip)]
    num_heads: usize,
}

/// The feed-forward part.
#[derive(Module, Debug)]
pub struct Gpt2Mlp {
    /// `[hidden, intermediate]`
    pub c_fc: Linear,
    /// `[intermediate, hidden]`
    pub c_proj: Linear,
}

const C_ATTN: &str = "attn.c_attn";
const ATTN_C_PROJ: &str = "attn.c_proj";
const C_FC: &str = "mlp.c_fc";
const MLP_C_PROJ: &str = "mlp.c_proj";

impl Gpt2Config {
    /// A model with random weights; loading replaces them before they are ever drawn.
    ///
    /// # Errors
    ///
    /// Fails if [`validate`](Self::validate) does.
    pub fn init(&self, device: &Device) -> Result<Gpt2, ConfigError> {
        self.validate()?;
        let sizes = self.sizes();
        let hidden_size = sizes.hidden_size;
        let embedding = |num_rows| {
            EmbeddingConfig::new(num_rows, hidden_size)
                .with_initializer(INITIALIZER)
                .init(device)
        };
        Ok(Gpt2 {
            wte: embedding(sizes.vocab_size),
            wpe: embedding(sizes.max_seq_len),
            h: (0..sizes.num_layers)
                .map(|_| self.init_layer(&sizes, device))
                .collect(),
            ln_f: self.init_norm(device),
            lm_head: (!self.tie_word_embeddings).then(|| {
                LinearConfig::new(hidden_size, sizes.vocab_size)
                    .with_bias(false)
                    .with_initializer(INITIALIZER)
                    .init(device)
            }),
            sizes,
            stored: StoredWeights::default(),
        })
    }

    fn init_layer(&self, sizes: &ModelSizes, device: &Device) -> Gpt2Layer {
        let linear = |from, to| {
            LinearConfig::new(from, to)
                .with_initializer(INITIALIZER)
                .init(device)
        };
        Gpt2Layer {
            ln_1: self.init_norm(device),
            attn: Gpt2Attention {
                c_attn: linear(sizes.hidden_size, 3 * sizes.hidden_size),
                c_proj: linear(sizes.hidden_size, sizes.hidden_size),
                num_heads: sizes.num_heads,
            },
            ln_2: self.init_norm(device),
            mlp: Gpt2Mlp {
                c_fc: linear(sizes.hidden_size, sizes.intermediate_size),
                c_proj: linear(sizes.intermediate_size, sizes.hidden_size),
            },
        }
    }

    fn init_norm(&self, device: &Device) -> LayerNorm {
        LayerNormConfig::new(self.hidden_size)
            .with_epsilon(self.layer_norm_epsilon)
            .init(device)
    }
}

/// How Hugging Face draws the weights of a fresh model.
const INITIALIZER: Initializer = Initializer::Normal {
    mean: 0.0,
    std: 0.02,
};

impl Gpt2 {
    /// Keeps these weights as they are stored. The tensors that they replace are emptied.
    pub(crate) fn keep_stored(&mut self, stored: StoredWeights) {
        for (layer_idx, layer) in self.h.iter_mut().enumerate() {
            for (path, linear) in [
                (C_ATTN, &mut layer.attn.c_attn),
                (ATTN_C_PROJ, &mut layer.attn.c_proj),
                (C_FC, &mut layer.mlp.c_fc),
                (MLP_C_PROJ, &mut layer.mlp.c_proj),
            ] {
                stored_weights::replace(stored.module(layer_idx, path), &mut linear.weight);
            }
        }
        if let Some(head) = &mut self.lm_head {
            stored_weights::replace(stored.head.as_ref(), &mut head.weight);
        }
        stored_weights::replace(stored.embedding.as_ref(), &mut self.wte.weight);
        self.stored = stored;
    }
}

impl CausalLm for Gpt2 {
    fn sizes(&self) -> &ModelSizes {
        &self.sizes
    }

    fn embed(&self, token_ids: Tensor<2, Int>) -> Tensor<3> {
        self.stored.embed(token_ids, &self.wte)
    }

    fn check_positions(&self, seq_len: usize) -> Result<(), ModelError> {
        let max_seq_len = self.sizes.max_seq_len;
        if seq_len > max_seq_len {
            return Err(ModelError::TooManyPositions {
                found: seq_len,
                max_seq_len,
            });
        }
        Ok(())
    }

    fn linear_modules(&self) -> Vec<LinearModule> {
        let ModelSizes {
            hidden_size,
            intermediate_size,
            ..
        } = self.sizes;
        [
            (C_ATTN, hidden_size, 3 * hidden_size),
            (ATTN_C_PROJ, hidden_size, hidden_size),
            (C_FC, hidden_size, intermediate_size),
            (MLP_C_PROJ, intermediate_size, hidden_size),
        ]
        .map(|(path, in_size, out_size)| LinearModule {
            path,
            in_size,
            out_size,
        })
        .to_vec()
    }

    fn forward(&self, pass: SequencePass<'_>) -> Tensor<3> {
        decoder::forward(self, pass)
    }

    fn states_with_cache(
        &self,
        segments: &[Segment<'_>],
        cache: &mut KvCache,
        tapped_layers: &[usize],
    ) -> CachedStates {
        decoder::forward_with_cache(self, segments, cache, tapped_layers)
    }

    fn head_weight(&self) -> FrozenWeight {
        self.stored.head_weight(&self.wte, self.lm_head.as_ref())
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.stored.logits(hidden, &self.wte, self.lm_head.as_ref())
    }
}

impl Decoder for Gpt2 {
    /// Positions are added to the embeddings; the layers do not use them.
    type Positions = ();

    fn num_layers(&self) -> usize {
        self.h.len()
    }

    fn positions(&self, _positions: &[Vec<usize>]) {}

    fn enter(&self, token_ids: Tensor<2, Int>, positions: &[Vec<usize>]) -> Tensor<3> {
        let seq_len = positions.first().map_or(0, Vec::len);
        let last = positions.iter().flatten().max().copied().unwrap_or(0);
        assert!(
            last < self.sizes.max_seq_len,
            "position {last} is past the {} the model has",
            self.sizes.max_seq_len
        );
        let indices = index_tensor(positions.iter().flatten().copied(), &token_ids.device())
            .reshape([positions.len(), seq_len]);
        self.embed(token_ids) + self.wpe.forward(indices)
    }

    fn layer(
        &self,
        states: Tensor<3>,
        context: &LayerContext<'_, ()>,
        attention: &mut dyn Attend,
    ) -> Tensor<3> {
        let layer = &self.h[context.layer_idx];
        let normed = layer.ln_1.forward(states.clone());
        let states = states + layer.attn.forward(&normed, context, attention);
        let normed = layer.ln_2.forward(states.clone());
        states + layer.mlp.forward(&normed, context)
    }

    fn stored(&self) -> &StoredWeights {
        &self.stored
    }

    fn final_norm(&self, states: Tensor<3>) -> Tensor<3> {
        self.ln_f.forward(states)
    }
}

impl Gpt2Attention {
    /// `[batch, seq, hidden]` -> `[batch, seq, hidden]`
    fn forward(
        &self,
        x: &Tensor<3>,
        context: &LayerContext<'_, ()>,
        attention: &mut dyn Attend,
    ) -> Tensor<3> {
        let [_, _, hidden_size] = x.dims();
        let projected = context.linear(C_ATTN, &self.c_attn, x); // [batch, seq, 3 * hidden]
        let [query, key, value] = [0, 1, 2].map(|part_idx| {
            projected
                .clone()
                .narrow(2, part_idx * hidden_size, hidden_size)
        });
        let attended = attention.attend(Projected {
            query,
            key,
            value,
            head_dim: hidden_size / self.num_heads,
            rotary: None,
        });
        context.linear(ATTN_C_PROJ, &self.c_proj, &attended)
    }
}

impl Gpt2Mlp {
    /// `[batch, seq, hidden]` -> `[batch, seq, hidden]`
    fn forward(&self, x: &Tensor<3>, context: &LayerContext<'_, ()>) -> Tensor<3> {
        let wide = fused::gelu_tanh(context.linear(C_FC, &self.c_fc, x));
        context.linear(MLP_C_PROJ, &self.c_proj, &wide)
    }
}
