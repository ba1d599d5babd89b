//! The GPT-2 model. Field names are Hugging Face's, so adapters find `h.0.attn.c_attn.weight`.

use burn::module::{Initializer, Module};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Bool, Device, Int, Tensor};

use super::config::Gpt2Config;
use crate::activation::gelu_new;
use crate::attention::{AttentionInput, AttentionMask, attend};
use crate::causal_lm::{CausalLm, ModelSizes, tied_logits};
use crate::config_error::ConfigError;
use crate::indices::index_tensor;
use crate::kv_cache::{KvCache, LayerPass, Segment};

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

impl CausalLm for Gpt2 {
    fn sizes(&self) -> &ModelSizes {
        &self.sizes
    }

    fn embed(&self, token_ids: Tensor<2, Int>) -> Tensor<3> {
        self.wte.forward(token_ids)
    }

    fn hidden_states(&self, token_ids: Tensor<2, Int>) -> Tensor<3> {
        let [_, seq_len] = token_ids.dims();
        let mask = AttentionMask::causal(seq_len, &self.wte.weight.device());
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
        let mut hidden = self.embed_at(pass.token_ids(), pass.positions());
        for (layer_idx, layer) in self.h.iter().enumerate() {
            hidden = layer.forward_with_cache(hidden, pass.layer(layer_idx));
        }
        pass.finish(self.ln_f.forward(hidden))
    }

    fn head_weight(&self) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.weight.val(),
            None => self.wte.weight.val().transpose(),
        }
    }

    fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => tied_logits(hidden, self.wte.weight.val()),
        }
    }
}

impl Gpt2 {
    /// A pass over whole sequences.
    fn hidden_states_under(&self, token_ids: Tensor<2, Int>, mask: &AttentionMask) -> Tensor<3> {
        let [_, seq_len] = token_ids.dims();
        let positions = (0..seq_len).collect();
        let mut hidden = self.embed_at(token_ids, &[positions]);
        for layer in &self.h {
            hidden = layer.forward(hidden, mask);
        }
        self.ln_f.forward(hidden)
    }

    /// Token embeddings plus those of their positions, `[batch or 1, seq]`.
    fn embed_at(&self, token_ids: Tensor<2, Int>, positions: &[Vec<usize>]) -> Tensor<3> {
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
}

impl Gpt2Layer {
    fn forward(&self, hidden: Tensor<3>, mask: &AttentionMask) -> Tensor<3> {
        self.forward_with(hidden, |normed| self.attn.forward(normed, mask))
    }

    fn forward_with_cache(&self, hidden: Tensor<3>, pass: LayerPass<'_, '_>) -> Tensor<3> {
        self.forward_with(hidden, |normed| self.attn.forward_with_cache(normed, pass))
    }

    fn forward_with(
        &self,
        hidden: Tensor<3>,
        attention: impl FnOnce(Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        let attended = attention(self.ln_1.forward(hidden.clone()));
        let hidden = hidden + attended;
        let normed = self.ln_2.forward(hidden.clone());
        hidden + self.mlp.forward(normed)
    }
}

impl Gpt2Attention {
    /// # Shapes
    ///
    /// - `hidden`: `[batch, seq, hidden]`
    /// - output: `[batch, seq, hidden]`
    fn forward(&self, hidden: Tensor<3>, mask: &AttentionMask) -> Tensor<3> {
        let [query, key, value] = self.project(hidden);
        self.c_proj.forward(attend(AttentionInput {
            query,
            key,
            value,
            mask,
        }))
    }

    fn forward_with_cache(&self, hidden: Tensor<3>, pass: LayerPass<'_, '_>) -> Tensor<3> {
        let [query, key, value] = self.project(hidden);
        self.c_proj.forward(pass.attend(&query, &key, &value))
    }

    /// `[batch, seq, hidden]` -> three times `[batch, heads, seq, head_dim]`
    fn project(&self, hidden: Tensor<3>) -> [Tensor<4>; 3] {
        let [batch, seq_len, hidden_size] = hidden.dims();
        let projected = self.c_attn.forward(hidden); // [batch, seq, 3 * hidden]
        let head_dim = hidden_size / self.num_heads;
        [0, 1, 2].map(|part_idx| {
            projected
                .clone()
                .narrow(2, part_idx * hidden_size, hidden_size)
                .reshape([batch, seq_len, self.num_heads, head_dim])
                .swap_dims(1, 2) // [batch, heads, seq, head_dim]
        })
    }
}

impl Gpt2Mlp {
    /// # Shapes
    ///
    /// - `hidden`: `[batch, seq, hidden]`
    /// - output: `[batch, seq, hidden]`
    fn forward(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.c_proj.forward(gelu_new(self.c_fc.forward(hidden)))
    }
}
