//! One layer of the decoder: attention and the feed-forward part, with whatever norms, fused modules and factors the
//! configuration describes.

use burn::module::{Initializer, Module};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::{gelu, relu};
use burn::tensor::{Device, Tensor};
use chameleon_core::fused;

use super::attention::{Attend, Projected};
use super::causal_lm::LinearModule;
use super::config::{
    Activation, DecoderConfig, FeedForward, QueryKeyNorm, QueryKeyValue, Residual,
};
use super::layer_context::LayerContext;
use super::norm::{Norm, PartNorms};

/// One transformer layer.
#[derive(Module, Debug)]
pub struct DecoderLayer {
    /// The norms around attention.
    pub attention_norms: PartNorms,
    /// Attention.
    pub attention: AttentionPart,
    /// The norms around the feed-forward part.
    pub feed_forward_norms: PartNorms,
    /// The feed-forward part.
    pub feed_forward: FeedForwardPart,
}

/// Attention in which several query heads may share one key-value head.
#[derive(Module, Debug)]
pub struct AttentionPart {
    /// Query, key and value, `[hidden, heads * head_dim]` and so on; or one module for all.
    pub inputs: Vec<Linear>,
    /// `[heads * head_dim, hidden]`
    pub output: Linear,
    /// The norm of queries.
    pub query_norm: Option<Norm>,
    /// The norm of keys.
    pub key_norm: Option<Norm>,
}

/// The feed-forward part.
#[derive(Module, Debug)]
pub struct FeedForwardPart {
    /// The gate and the other projection, `[hidden, intermediate]` each; or one module for both; or one projection.
    pub inputs: Vec<Linear>,
    /// `[intermediate, hidden]`
    pub output: Linear,
}

/// The initialisation of weights by Hugging Face.
pub(crate) const INITIALIZER: Initializer = Initializer::Normal {
    mean: 0.0,
    std: 0.02,
};

pub(crate) fn linear(from: usize, to: usize, has_bias: bool, device: &Device) -> Linear {
    LinearConfig::new(from, to)
        .with_bias(has_bias)
        .with_initializer(INITIALIZER)
        .init(device)
}

/// Times a factor, if there is one.
pub(crate) fn scaled(x: Tensor<3>, factor: Option<f64>) -> Tensor<3> {
    match factor {
        Some(factor) => x * factor,
        None => x,
    }
}

/// Widths of queries, keys and values.
fn widths(config: &DecoderConfig) -> [usize; 3] {
    let sizes = &config.sizes;
    let key_size = sizes.num_kv_heads * sizes.head_dim;
    [sizes.num_heads * sizes.head_dim, key_size, key_size]
}

impl DecoderConfig {
    /// The linear modules of a layer, in the order of [`DecoderLayer::linears`].
    pub(crate) fn linear_modules(&self) -> Vec<LinearModule> {
        let sizes = &self.sizes;
        let module = |path, in_size, out_size| LinearModule {
            path,
            in_size,
            out_size,
        };
        let widths = widths(self);
        let mut modules = match &self.modules.query_key_value {
            QueryKeyValue::Separate(names) => names
                .iter()
                .zip(widths)
                .map(|(name, width)| module(*name, sizes.hidden_size, width))
                .collect(),
            QueryKeyValue::SideBySide(name) | QueryKeyValue::ByHead(name) => {
                vec![module(*name, sizes.hidden_size, widths.iter().sum())]
            }
        };
        modules.push(module(
            self.modules.attention_output,
            widths[0],
            sizes.hidden_size,
        ));
        let inner = match self.modules.feed_forward {
            FeedForward::GatedSideBySide(_) => 2 * sizes.intermediate_size,
            FeedForward::Gated(_) | FeedForward::Plain(_) => sizes.intermediate_size,
        };
        let inputs = self.modules.feed_forward.names().iter();
        modules.extend(inputs.map(|name| module(name, sizes.hidden_size, inner)));
        modules.push(module(
            self.modules.feed_forward_output,
            sizes.intermediate_size,
            sizes.hidden_size,
        ));
        modules
    }

    /// A layer with random weights.
    pub(crate) fn init_layer(&self, device: &Device) -> DecoderLayer {
        let sizes = &self.sizes;
        let biases = &self.biases;
        let num_inputs = self.modules.query_key_value.names().len();
        let num_inner = self.modules.feed_forward.names().len();
        let has_bias = |idx: usize| match idx {
            _ if idx < num_inputs => biases.query_key_value,
            _ if idx == num_inputs => biases.attention_output,
            _ => biases.feed_forward,
        };
        let mut linears = self
            .linear_modules()
            .into_iter()
            .enumerate()
            .map(|(idx, module)| linear(module.in_size, module.out_size, has_bias(idx), device));
        let mut take = |count: usize| -> Vec<Linear> { linears.by_ref().take(count).collect() };
        let [query_width, key_width, _] = widths(self);
        let head_norm = |whole: usize| {
            self.query_key_norm.map(|over| {
                let width = match over {
                    QueryKeyNorm::Head => sizes.head_dim,
                    QueryKeyNorm::Whole => whole,
                };
                self.norm.init(width, device)
            })
        };
        let norms = || PartNorms::init(self.norm_place, &self.norm, sizes.hidden_size, device);
        DecoderLayer {
            attention_norms: norms(),
            attention: AttentionPart {
                inputs: take(num_inputs),
                output: take(1).remove(0),
                query_norm: head_norm(query_width),
                key_norm: head_norm(key_width),
            },
            feed_forward_norms: norms(),
            feed_forward: FeedForwardPart {
                inputs: take(num_inner),
                output: take(1).remove(0),
            },
        }
    }
}

impl DecoderLayer {
    /// Its linear modules.
    pub(crate) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear> {
        let attention = &mut self.attention;
        let feed_forward = &mut self.feed_forward;
        attention
            .inputs
            .iter_mut()
            .chain([&mut attention.output])
            .chain(feed_forward.inputs.iter_mut())
            .chain([&mut feed_forward.output])
    }

    /// `[batch, seq, hidden]` -> `[batch, seq, hidden]`
    pub(crate) fn forward(
        &self,
        states: Tensor<3>,
        context: &LayerContext<'_>,
        attention: &mut dyn Attend,
    ) -> Tensor<3> {
        let scale = context.config.scales.residual;
        let entering = self.attention_norms.entering(states.clone());
        let attended = self.attention.forward(&entering, context, attention);
        let attended = scaled(self.attention_norms.leaving(attended), scale);
        let feed_forward = |states: Tensor<3>| {
            let entering = self.feed_forward_norms.entering(states);
            let inner = self.feed_forward.forward(&entering, context);
            scaled(self.feed_forward_norms.leaving(inner), scale)
        };
        match context.config.residual {
            Residual::Sequential => {
                let states = states + attended;
                states.clone() + feed_forward(states)
            }
            Residual::Parallel => states.clone() + attended + feed_forward(states),
        }
    }
}

impl AttentionPart {
    /// `[batch, seq, hidden]` -> `[batch, seq, hidden]`
    fn forward(
        &self,
        x: &Tensor<3>,
        context: &LayerContext<'_>,
        attention: &mut dyn Attend,
    ) -> Tensor<3> {
        let config = context.config;
        let head_dim = config.sizes.head_dim;
        let layer = &config.layers[context.layer_idx];
        let names = &config.modules;
        let [query, key, value] = match &names.query_key_value {
            QueryKeyValue::Separate([query, key, value]) => [
                context.linear(query, &self.inputs[0], x),
                context.linear(key, &self.inputs[1], x),
                context.linear(value, &self.inputs[2], x),
            ],
            QueryKeyValue::SideBySide(name) => {
                let projected = context.linear(name, &self.inputs[0], x);
                side_by_side(&projected, widths(config))
            }
            QueryKeyValue::ByHead(name) => {
                by_head(&context.linear(name, &self.inputs[0], x), head_dim)
            }
        };
        let normed = |norm: &Option<Norm>, x: Tensor<3>| match (norm, config.query_key_norm) {
            (Some(norm), Some(QueryKeyNorm::Head)) => norm_of_heads(norm, x, head_dim),
            (Some(norm), _) => norm.forward(x),
            (None, _) => x,
        };
        let attended = attention.attend(Projected {
            query: normed(&self.query_norm, query),
            key: normed(&self.key_norm, key),
            value,
            head_dim,
            rotary: layer.rotary.map(|idx| &context.positions[idx]),
            scores: layer.scores,
        });
        context.linear(names.attention_output, &self.output, &attended)
    }
}

/// Parts of these widths along the last axis.
fn side_by_side<const N: usize>(projected: &Tensor<3>, widths: [usize; N]) -> [Tensor<3>; N] {
    let mut first = 0;
    widths.map(|width| {
        let part = projected.clone().narrow(2, first, width);
        first += width;
        part
    })
}

/// Queries, keys and values from `[batch, seq, heads * 3 * head_dim]`.
fn by_head(projected: &Tensor<3>, head_dim: usize) -> [Tensor<3>; 3] {
    let [batch, seq_len, width] = projected.dims();
    let heads = projected
        .clone()
        .reshape([batch, seq_len, width / (3 * head_dim), 3 * head_dim]);
    [0, 1, 2].map(|part_idx| {
        heads
            .clone()
            .narrow(3, part_idx * head_dim, head_dim)
            .reshape([batch, seq_len, width / 3])
    })
}

/// A norm over each head.
fn norm_of_heads(norm: &Norm, x: Tensor<3>, head_dim: usize) -> Tensor<3> {
    let [batch, seq_len, width] = x.dims();
    let heads = x.reshape([batch, seq_len * (width / head_dim), head_dim]);
    norm.forward(heads).reshape([batch, seq_len, width])
}

impl FeedForwardPart {
    /// `[batch, seq, hidden]` -> `[batch, seq, hidden]`
    fn forward(&self, x: &Tensor<3>, context: &LayerContext<'_>) -> Tensor<3> {
        let config = context.config;
        let activation = config.activation;
        let inner = match &config.modules.feed_forward {
            FeedForward::Gated([gate, up]) => {
                let gate = context.linear(gate, &self.inputs[0], x);
                gated(activation, gate, context.linear(up, &self.inputs[1], x))
            }
            FeedForward::GatedSideBySide(name) => {
                let projected = context.linear(name, &self.inputs[0], x);
                let width = config.sizes.intermediate_size;
                let [gate, up] = side_by_side(&projected, [width, width]);
                gated(activation, gate, up)
            }
            FeedForward::Plain(name) => {
                activated(activation, context.linear(name, &self.inputs[0], x))
            }
        };
        context.linear(config.modules.feed_forward_output, &self.output, &inner)
    }
}

fn gated(activation: Activation, gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
    match activation {
        Activation::Silu => fused::swiglu(gate, up),
        other => activated(other, gate) * up,
    }
}

fn activated(activation: Activation, x: Tensor<3>) -> Tensor<3> {
    match activation {
        Activation::Silu => burn::tensor::activation::silu(x),
        Activation::GeluTanh => fused::gelu_tanh(x),
        Activation::Gelu => gelu(x),
        Activation::Relu => relu(x),
    }
}
