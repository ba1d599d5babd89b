//! The Llama model. Field names are Hugging Face's, so adapters find `layers.0.self_attn.q_proj.weight`.

use burn::module::{Initializer, Module};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig};
use burn::tensor::{Bool, Device, Int, Tensor};

use super::config::LlamaConfig;
use super::rope::{RotaryFrequencies, Rotation};
use crate::activation::silu;
use crate::attention::{AttentionInput, AttentionMask, attend};
use crate::causal_lm::{CausalLm, ModelSizes, tied_logits};
use crate::config_error::ConfigError;
use crate::kv_cache::{KvCache, LayerPass, Segment};

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
pub struct LlamaMlp {
    /// `[hidden, intermediate]`
    pub gate_proj: Linear,
    /// `[hidden, intermediate]`
    pub up_proj: Linear,
    /// `[intermediate, hidden]`
    pub down_proj: Linear,
}

impl LlamaConfig {
    /// A model with random weights; loading replaces them before they are ever drawn.
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

/// How Hugging Face draws the weights of a fresh model.
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

impl CausalLm for Llama {
    fn sizes(&self) -> &ModelSizes {
        &self.sizes
    }

    fn embed(&self, token_ids: Tensor<2, Int>) -> Tensor<3> {
        self.embed_tokens.forward(token_ids)
    }

    fn hidden_states(&self, token_ids: Tensor<2, Int>) -> Tensor<3> {
        let [_, seq_len] = token_ids.dims();
        let mask = AttentionMask::causal(seq_len, &self.embed_tokens.weight.device());
        self.hidden_states_under(token_ids, &mask)
    }

    fn hidden_states_without(
        &self,
        token_ids: Tensor<2, Int>,
        unseen: Tensor<2, Bool>,
    ) -> Tensor<3> {
        self.hidden_states_under(token_ids, &AttentionMask::causal_without(unseen))
    }

    fn hidden_states_with_cache(&self, segments: &[Segment<'_>], cache: &mut KvCache) -> Tensor<2> {
        let mut pass = cache.begin(segments);
        let mut hidden = self.embed(pass.token_ids());
        let rotation = self.rotary.at(pass.positions(), &hidden.device());
        for (layer_idx, layer) in self.layers.iter().enumerate() {
            hidden = layer.forward_with_cache(hidden, &rotation, pass.layer(layer_idx));
        }
        pass.finish(self.norm.forward(hidden))
    }

    fn head_weight(&self) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.weight.val(),
            None => self.embed_tokens.weight.val().transpose(),
        }
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => tied_logits(hidden, self.embed_tokens.weight.val()),
        }
    }
}

impl Llama {
    /// A pass over whole sequences.
    fn hidden_states_under(&self, token_ids: Tensor<2, Int>, mask: &AttentionMask) -> Tensor<3> {
        let [_, seq_len] = token_ids.dims();
        let mut hidden = self.embed(token_ids);
        let rotation = self.rotary.at(&[(0..seq_len).collect()], &hidden.device());
        for layer in &self.layers {
            hidden = layer.forward(hidden, &rotation, mask);
        }
        self.norm.forward(hidden)
    }
}

impl LlamaLayer {
    fn forward(&self, hidden: Tensor<3>, rotation: &Rotation, mask: &AttentionMask) -> Tensor<3> {
        self.forward_with(hidden, |normed| {
            self.self_attn.forward(normed, rotation, mask)
        })
    }

    fn forward_with_cache(
        &self,
        hidden: Tensor<3>,
        rotation: &Rotation,
        pass: LayerPass<'_, '_>,
    ) -> Tensor<3> {
        self.forward_with(hidden, |normed| {
            self.self_attn.forward_with_cache(normed, rotation, pass)
        })
    }

    fn forward_with(
        &self,
        hidden: Tensor<3>,
        attention: impl FnOnce(Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        let attended = attention(self.input_layernorm.forward(hidden.clone()));
        let hidden = hidden + attended;
        let normed = self.post_attention_layernorm.forward(hidden.clone());
        hidden + self.mlp.forward(normed)
    }
}

/// Query, key and value of one layer, split into heads and turned to their positions.
struct Projected {
    /// `[batch, heads, seq, head_dim]`
    query: Tensor<4>,
    /// `[batch, kv_heads, seq, head_dim]`
    key: Tensor<4>,
    /// `[batch, kv_heads, seq, head_dim]`
    value: Tensor<4>,
}

impl LlamaAttention {
    /// # Shapes
    ///
    /// - `hidden`: `[batch, seq, hidden]`
    /// - output: `[batch, seq, hidden]`
    fn forward(&self, hidden: Tensor<3>, rotation: &Rotation, mask: &AttentionMask) -> Tensor<3> {
        let Projected { query, key, value } = self.project(hidden, rotation);
        self.o_proj.forward(attend(AttentionInput {
            query,
            key,
            value,
            mask,
        }))
    }

    fn forward_with_cache(
        &self,
        hidden: Tensor<3>,
        rotation: &Rotation,
        pass: LayerPass<'_, '_>,
    ) -> Tensor<3> {
        let Projected { query, key, value } = self.project(hidden, rotation);
        self.o_proj.forward(pass.attend(&query, &key, &value))
    }

    fn project(&self, hidden: Tensor<3>, rotation: &Rotation) -> Projected {
        Projected {
            query: rotation.apply(self.heads(&self.q_proj, hidden.clone())),
            key: rotation.apply(self.heads(&self.k_proj, hidden.clone())),
            value: self.heads(&self.v_proj, hidden),
        }
    }

    /// `[batch, seq, hidden]` -> `[batch, heads, seq, head_dim]`
    fn heads(&self, projection: &Linear, hidden: Tensor<3>) -> Tensor<4> {
        let projected = projection.forward(hidden);
        let [batch, seq_len, width] = projected.dims();
        let num_heads = width / self.head_dim;
        projected
            .reshape([batch, seq_len, num_heads, self.head_dim])
            .swap_dims(1, 2)
    }
}

impl LlamaMlp {
    /// # Shapes
    ///
    /// - `hidden`: `[batch, seq, hidden]`
    /// - output: `[batch, seq, hidden]`
    fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        let gate = silu(self.gate_proj.forward(hidden.clone()));
        self.down_proj.forward(gate * self.up_proj.forward(hidden))
    }
}
