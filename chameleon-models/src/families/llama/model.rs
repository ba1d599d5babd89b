//! The Llama model. Field names are Hugging Face's, so adapters find `layers.0.self_attn.q_proj.weight`.

use burn::module::{Initializer, Module};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Int, Tensor};
use chameleon_core::FrozenWeight;
use chameleon_core::fused::{self, RotaryHalves};

use super::config::LlamaConfig;
use super::rope::RotaryFrequencies;
use crate::error::ModelError;
use crate::families::attention::{Attend, Projected};
use crate::families::causal_lm::{CachedStates, CausalLm, LinearModule, SequencePass};
use crate::families::config_error::ConfigError;
use crate::families::decoder::{self, Decoder, LayerContext};
use crate::families::kv_cache::{KvCache, Segment};
use crate::families::sizes::ModelSizes;
use crate::families::stored_weights::{self, StoredWeights};

/// A Llama model, made by [`LlamaConfig::init`].
#[derive(Module, Debug)]
pub struct Llama {
    /// Token embeddings, `[vocab, hidden]`.
    pub embed_tokens: Embedding,
    /// The transformer layers.
    pub layers: Vec<LlamaLayer>,
    /// The norm before the head.
    pub norm: RmsNorm,
    /// The head, `[hidden, vocab]`; the embedding serves when absent.
    pub lm_head: Option<Linear>,
    #[module(skip)]
    sizes: ModelSizes,
    #[module(skip)]
    rotary: RotaryFrequencies,
    #[module(skip)]
    pub(crate) stored: StoredWeights,
}

/// One transformer layer.
#[derive(Module, Debug)]
pub struct LlamaLayer {
    /// The norm before attention.
    pub input_layernorm: RmsNorm,
    /// Attention.
    pub self_attn: LlamaAttention,
    /// The norm before the feed-forward part.
    pub post_attention_layernorm: RmsNorm,
    /// The feed-forward part.
    pub mlp: LlamaMlp,
}

/// Grouped-query attention.
#[derive(Module, Debug)]
pub struct LlamaAttention {
    /// `[hidden, heads * head_dim]`
    pub q_proj: Linear,
    /// `[hidden, kv_heads * head_dim]`
    pub k_proj: Linear,
    /// `[hidden, kv_heads * head_dim]`
    pub v_proj: Linear,
    /// `[heads * head_dim, hidden]`
    pub o_proj: Linear,
    #[module(skip)]
    head_dim: usize,
}

/// The gated feed-forward part.
#[derive(Module, Debug)]
#[expect(
    clippy::struct_field_names,
    reason = "the names that Burn's modules and checkpoints have"
)]
pub struct LlamaMlp {
    /// `[hidden, intermediate]`
    pub gate_proj: Linear,
    /// `[hidden, intermediate]`
    pub up_proj: Linear,
    /// `[intermediate, hidden]`
    pub down_proj: Linear,
}

const Q_PROJ: &str = "self_attn.q_proj";
const K_PROJ: &str = "self_attn.k_proj";
const V_PROJ: &str = "self_attn.v_proj";
const O_PROJ: &str = "self_attn.o_proj";
const GATE_PROJ: &str = "mlp.gate_proj";
const UP_PROJ: &str = "mlp.up_proj";
const DOWN_PROJ: &str = "mlp.down_proj";

impl LlamaConfig {
    /// A model with random weights; loading replaces them before they are initialised.
    ///
    /// # Errors
    ///
    /// Fails if [`validate`](Self::validate) does.
    pub fn init(&self, device: &Device) -> Result<Llama, ConfigError> {
        self.validate()?;
        let sizes = self.sizes();
        let layers = (0..sizes.num_layers)
            .map(|_| self.init_layer(&sizes, device))
            .collect();
        let lm_head = (!self.tie_word_embeddings)
            .then(|| linear(sizes.hidden_size, sizes.vocab_size, false, device));
        Ok(Llama {
            embed_tokens: EmbeddingConfig::new(sizes.vocab_size, sizes.hidden_size)
                .with_initializer(INITIALIZER)
                .init(device),
            layers,
            norm: self.init_norm(device),
            lm_head,
            rotary: RotaryFrequencies::new(sizes.head_dim, self.rope_base(), self.rope_scaling()?),
            sizes,
            stored: StoredWeights::default(),
        })
    }

    fn init_layer(&self, sizes: &ModelSizes, device: &Device) -> LlamaLayer {
        let query_size = sizes.num_heads * sizes.head_dim;
        let kv_size = sizes.num_kv_heads * sizes.head_dim;
        let attention = |from, to| linear(from, to, self.attention_bias, device);
        let mlp = |from, to| linear(from, to, self.mlp_bias, device);
        LlamaLayer {
            input_layernorm: self.init_norm(device),
            self_attn: LlamaAttention {
                q_proj: attention(sizes.hidden_size, query_size),
                k_proj: attention(sizes.hidden_size, kv_size),
                v_proj: attention(sizes.hidden_size, kv_size),
                o_proj: attention(query_size, sizes.hidden_size),
                head_dim: sizes.head_dim,
            },
            post_attention_layernorm: self.init_norm(device),
            mlp: LlamaMlp {
                gate_proj: mlp(sizes.hidden_size, sizes.intermediate_size),
                up_proj: mlp(sizes.hidden_size, sizes.intermediate_size),
                down_proj: mlp(sizes.intermediate_size, sizes.hidden_size),
            },
        }
    }

    fn init_norm(&self, device: &Device) -> RmsNorm {
        RmsNormConfig::new(self.hidden_size)
            .with_epsilon(self.rms_norm_eps)
            .init(device)
    }
}

/// The initialisation of weights by Hugging Face.
const INITIALIZER: Initializer = Initializer::Normal {
    mean: 0.0,
    std: 0.02,
};

fn linear(from: usize, to: usize, has_bias: bool, device: &Device) -> Linear {
    LinearConfig::new(from, to)
        .with_bias(has_bias)
        .with_initializer(INITIALIZER)
        .init(device)
}

impl Llama {
    /// Keeps these weights as they are stored. The tensors that they replace are emptied.
    pub(crate) fn keep_stored(&mut self, stored: StoredWeights) {
        for (layer_idx, layer) in self.layers.iter_mut().enumerate() {
            let (attention, mlp) = (&mut layer.self_attn, &mut layer.mlp);
            for (path, linear) in [
                (Q_PROJ, &mut attention.q_proj),
                (K_PROJ, &mut attention.k_proj),
                (V_PROJ, &mut attention.v_proj),
                (O_PROJ, &mut attention.o_proj),
                (GATE_PROJ, &mut mlp.gate_proj),
                (UP_PROJ, &mut mlp.up_proj),
                (DOWN_PROJ, &mut mlp.down_proj),
            ] {
                stored_weights::replace(stored.module(layer_idx, path), &mut linear.weight);
            }
        }
        if let Some(head) = &mut self.lm_head {
            stored_weights::replace(stored.head.as_ref(), &mut head.weight);
        }
        let embedding = &mut self.embed_tokens.weight;
        stored_weights::replace(stored.embedding.as_ref(), embedding);
        self.stored = stored;
    }
}

impl CausalLm for Llama {
    fn sizes(&self) -> &ModelSizes {
        &self.sizes
    }

    fn embed(&self, token_ids: Tensor<2, Int>) -> Tensor<3> {
        self.stored.embed(token_ids, &self.embed_tokens)
    }

    fn check_positions(&self, _seq_len: usize) -> Result<(), ModelError> {
        Ok(())
    }

    fn linear_modules(&self) -> Vec<LinearModule> {
        let sizes = &self.sizes;
        let query_size = sizes.num_heads * sizes.head_dim;
        let kv_size = sizes.num_kv_heads * sizes.head_dim;
        [
            (Q_PROJ, sizes.hidden_size, query_size),
            (K_PROJ, sizes.hidden_size, kv_size),
            (V_PROJ, sizes.hidden_size, kv_size),
            (O_PROJ, query_size, sizes.hidden_size),
            (GATE_PROJ, sizes.hidden_size, sizes.intermediate_size),
            (UP_PROJ, sizes.hidden_size, sizes.intermediate_size),
            (DOWN_PROJ, sizes.intermediate_size, sizes.hidden_size),
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
        self.stored
            .head_weight(&self.embed_tokens, self.lm_head.as_ref())
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.stored
            .logits(hidden, &self.embed_tokens, self.lm_head.as_ref())
    }
}

impl Decoder for Llama {
    type Positions = RotaryHalves;

    fn num_layers(&self) -> usize {
        self.layers.len()
    }

    fn positions(&self, positions: &[Vec<usize>]) -> RotaryHalves {
        self.rotary
            .at(positions, &self.embed_tokens.weight.device())
    }

    fn enter(&self, token_ids: Tensor<2, Int>, _positions: &[Vec<usize>]) -> Tensor<3> {
        self.embed(token_ids)
    }

    fn layer(
        &self,
        states: Tensor<3>,
        context: &LayerContext<'_, RotaryHalves>,
        attention: &mut dyn Attend,
    ) -> Tensor<3> {
        let layer = &self.layers[context.layer_idx];
        let normed = rms_norm(&layer.input_layernorm, states.clone());
        let states = states + layer.self_attn.forward(&normed, context, attention);
        let normed = rms_norm(&layer.post_attention_layernorm, states.clone());
        states + layer.mlp.forward(&normed, context)
    }

    fn stored(&self) -> &StoredWeights {
        &self.stored
    }

    fn final_norm(&self, states: Tensor<3>) -> Tensor<3> {
        rms_norm(&self.norm, states)
    }
}

impl LlamaAttention {
    /// `[batch, seq, hidden]` -> `[batch, seq, hidden]`
    fn forward(
        &self,
        x: &Tensor<3>,
        context: &LayerContext<'_, RotaryHalves>,
        attention: &mut dyn Attend,
    ) -> Tensor<3> {
        let attended = attention.attend(Projected {
            query: context.linear(Q_PROJ, &self.q_proj, x),
            key: context.linear(K_PROJ, &self.k_proj, x),
            value: context.linear(V_PROJ, &self.v_proj, x),
            head_dim: self.head_dim,
            rotary: Some(context.positions),
        });
        context.linear(O_PROJ, &self.o_proj, &attended)
    }
}

impl LlamaMlp {
    /// `[batch, seq, hidden]` -> `[batch, seq, hidden]`
    fn forward(&self, x: &Tensor<3>, context: &LayerContext<'_, RotaryHalves>) -> Tensor<3> {
        let gate = context.linear(GATE_PROJ, &self.gate_proj, x);
        let up = context.linear(UP_PROJ, &self.up_proj, x);
        context.linear(DOWN_PROJ, &self.down_proj, &fused::swiglu(gate, up))
    }
}

fn rms_norm(norm: &RmsNorm, states: Tensor<3>) -> Tensor<3> {
    fused::rms_norm(states, norm.gamma.val(), norm.epsilon)
}
