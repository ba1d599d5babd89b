//! What a decoder computes, as data.

use chameleon_core::fused::ScoreRule;

use super::config_error::{ConfigError, check_multiple, check_positive, check_sizes};
use super::rope::RotaryConfig;
use super::sizes::ModelSizes;

/// A decoder as its family describes it: sizes, the kind and place of every part, and factors.
///
/// Made from the `config.json` of a model by [`Architecture::config`](crate::Architecture::config).
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    /// The family's name in `model_type`.
    pub family: &'static str,
    /// The sizes.
    pub sizes: ModelSizes,
    /// What the linear modules of a layer are called, and which of them are fused.
    pub modules: ModuleNames,
    /// Which of them have biases.
    pub biases: Biases,
    /// The norms of the layers and before the head.
    pub norm: NormConfig,
    /// Where the norms of a layer are.
    pub norm_place: NormPlace,
    /// The norm of queries and keys, if there is one.
    pub query_key_norm: Option<QueryKeyNorm>,
    /// The activation of the feed-forward part.
    pub activation: Activation,
    /// How attention and the feed-forward part follow each other.
    pub residual: Residual,
    /// Rotary embeddings, for the layers to choose from. The positions are learned if there is none at all.
    pub rotary: Vec<RotaryConfig>,
    /// What differs between layers.
    pub layers: Vec<LayerConfig>,
    /// Factors and caps of a whole model.
    pub scales: Scales,
    /// Whether the head is the embedding.
    pub is_tied: bool,
}

/// The names of the linear modules within a layer, as adapters find them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModuleNames {
    /// Query, key and value.
    pub query_key_value: QueryKeyValue,
    /// The output of attention.
    pub attention_output: &'static str,
    /// What enters the feed-forward part.
    pub feed_forward: FeedForward,
    /// The output of the feed-forward part.
    pub feed_forward_output: &'static str,
}

/// The projections of query, key and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryKeyValue {
    /// A module each.
    Separate([&'static str; 3]),
    /// One module: all queries, then all keys, then all values.
    SideBySide(&'static str),
    /// One module: query, key and value of the first head, then those of the second one, and so on.
    ByHead(&'static str),
}

/// The projections into the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeedForward {
    /// A gate, activated, times another projection.
    Gated([&'static str; 2]),
    /// The same as one module: the gate, then the other one.
    GatedSideBySide(&'static str),
    /// One activated projection.
    Plain(&'static str),
}

/// Which linear modules have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Biases {
    /// Those of query, key and value.
    pub query_key_value: bool,
    /// The output of attention.
    pub attention_output: bool,
    /// Those of the feed-forward part.
    pub feed_forward: bool,
}

impl Biases {
    /// No biases at all.
    pub const NONE: Self = Self {
        query_key_value: false,
        attention_output: false,
        feed_forward: false,
    };
    /// Biases everywhere.
    pub const ALL: Self = Self {
        query_key_value: true,
        attention_output: true,
        feed_forward: true,
    };
}

/// A norm over the width of its input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormConfig {
    /// The kind.
    pub kind: NormKind,
    /// Added to the variance or the mean square.
    pub epsilon: f64,
}

/// The kind of a norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NormKind {
    /// Divided by the root of the mean square, then scaled.
    RootMeanSquare,
    /// Centred, divided by the standard deviation, then scaled and shifted.
    Layer,
}

/// Where the norms of a layer's two parts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NormPlace {
    /// Before each part.
    Before,
    /// After each part, before it is added to the residual stream.
    After,
    /// Before and after each part.
    Both,
}

/// What a norm of queries and keys is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryKeyNorm {
    /// Each head by itself.
    Head,
    /// All heads together.
    Whole,
}

/// An activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Activation {
    /// `x * sigmoid(x)`
    Silu,
    /// GELU by its tanh approximation.
    GeluTanh,
    /// GELU by the error function.
    Gelu,
    /// Zero below zero.
    Relu,
}

impl Activation {
    /// The activation that Hugging Face calls by a name.
    pub(crate) fn named(key: &'static str, name: &str) -> Result<Self, ConfigError> {
        match name {
            "silu" | "swish" => Ok(Self::Silu),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" | "gelu_accurate" => Ok(Self::GeluTanh),
            "gelu" | "gelu_python" => Ok(Self::Gelu),
            "relu" => Ok(Self::Relu),
            other => Err(ConfigError::Unsupported {
                key,
                found: other.to_owned(),
                supported: "silu, gelu, gelu_new, gelu_pytorch_tanh, relu",
            }),
        }
    }
}

/// How attention and the feed-forward part follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Residual {
    /// The feed-forward part gets what attention added.
    Sequential,
    /// Both get the states that enter the layer.
    Parallel,
}

/// What differs between layers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerConfig {
    /// Which of the model's rotary embeddings; `None` for a layer without positions.
    pub rotary: Option<usize>,
    /// Its attention scores, and how far back they reach.
    pub scores: ScoreRule,
}

/// Factors and caps of a whole model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scales {
    /// The factor of embeddings as they enter the first layer.
    pub embedding: Option<f64>,
    /// The factor of what a part adds to the residual stream.
    pub residual: Option<f64>,
    /// The factor of logits.
    pub logits: Option<f64>,
    /// Logits are held between plus and minus this cap by `cap * tanh(logit / cap)`.
    pub logit_soft_cap: Option<f64>,
}

impl Scales {
    /// Nothing is scaled.
    pub const NONE: Self = Self {
        embedding: None,
        residual: None,
        logits: None,
        logit_soft_cap: None,
    };
}

impl QueryKeyValue {
    /// The names of the modules.
    pub fn names(&self) -> &[&'static str] {
        match self {
            Self::Separate(names) => names,
            Self::SideBySide(name) | Self::ByHead(name) => std::slice::from_ref(name),
        }
    }
}

impl FeedForward {
    /// The names of the modules.
    pub fn names(&self) -> &[&'static str] {
        match self {
            Self::Gated(names) => names,
            Self::GatedSideBySide(name) | Self::Plain(name) => std::slice::from_ref(name),
        }
    }
}

impl DecoderConfig {
    /// Whether positions are learned, so that there is one vector for each.
    pub fn has_learned_positions(&self) -> bool {
        self.rotary.is_empty()
    }

    /// Whether sequences may not be longer than [`max_seq_len`](ModelSizes::max_seq_len), because positions are learned
    /// or because all angles change there.
    pub fn has_last_position(&self) -> bool {
        self.has_learned_positions()
            || self
                .rotary
                .iter()
                .any(|rotary| rotary.scaling.longest_stable().is_some())
    }

    /// Checks that a model can be built from these values.
    ///
    /// # Errors
    ///
    /// Fails on sizes of zero, heads that do not divide, and factors that are not positive.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = &self.sizes;
        check_sizes(&[
            ("vocab_size", sizes.vocab_size),
            ("hidden_size", sizes.hidden_size),
            ("intermediate_size", sizes.intermediate_size),
            ("num_hidden_layers", sizes.num_layers),
            ("num_attention_heads", sizes.num_heads),
            ("num_key_value_heads", sizes.num_kv_heads),
            ("head_dim", sizes.head_dim),
            ("max_position_embeddings", sizes.max_seq_len),
        ])?;
        check_multiple(
            ("num_attention_heads", sizes.num_heads),
            ("num_key_value_heads", sizes.num_kv_heads),
        )?;
        check_positive("norm_eps", self.norm.epsilon)?;
        for (key, value) in [
            ("embedding_multiplier", self.scales.embedding),
            ("residual_multiplier", self.scales.residual),
            ("logits_scaling", self.scales.logits),
            ("final_logit_softcapping", self.scales.logit_soft_cap),
            (
                "attn_logit_softcapping",
                self.layers.first().and_then(|layer| layer.scores.soft_cap),
            ),
        ] {
            value.map_or(Ok(()), |value| check_positive(key, value))?;
        }
        for layer in &self.layers {
            check_positive("the scale of attention", layer.scores.scale)?;
            if let Some(window) = layer.scores.window {
                check_sizes(&[("sliding_window", window)])?;
            }
        }
        Ok(())
    }
}
