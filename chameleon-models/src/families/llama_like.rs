//! What most families share: the keys and the build of Llama, from which they differ in a few places.

use chameleon_core::fused::ScoreRule;

use super::config::{
    Activation, Biases, DecoderConfig, FeedForward, LayerConfig, ModuleNames, NormConfig, NormKind,
    NormPlace, QueryKeyValue, Residual, Scales,
};
use super::config_error::{ConfigError, check_multiple, check_sizes};
use super::config_keys::ConfigKeys;
use super::rope::RotaryConfig;
use super::rope_config::{self, RopeDefaults};
use super::sizes::ModelSizes;

/// What a family assumes for keys that are absent, as its class in `transformers` does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults {
    /// The key of the activation.
    pub(crate) activation_key: &'static str,
    /// The activation.
    pub(crate) activation: &'static str,
    /// Added to the mean square inside the norms.
    pub(crate) epsilon: f64,
    /// Whether the head is the embedding.
    pub(crate) is_tied: bool,
    /// The base of the rotary wavelengths.
    pub(crate) rope_base: f64,
}

impl Defaults {
    /// Those of Llama.
    pub(crate) const LLAMA: Self = Self {
        activation_key: "hidden_act",
        activation: "silu",
        epsilon: 1e-6,
        is_tied: false,
        rope_base: 10_000.0,
    };
}

/// The modules of Llama.
pub(crate) const MODULES: ModuleNames = ModuleNames {
    query_key_value: QueryKeyValue::Separate([
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
    ]),
    attention_output: "self_attn.o_proj",
    feed_forward: FeedForward::Gated(["mlp.gate_proj", "mlp.up_proj"]),
    feed_forward_output: "mlp.down_proj",
};

/// A decoder of Llama's build, from Llama's keys.
pub(crate) fn describe(
    keys: &ConfigKeys<'_>,
    family: &'static str,
    defaults: &Defaults,
) -> Result<DecoderConfig, ConfigError> {
    let sizes = sizes(keys)?;
    let attention_bias = keys.flag_or("attention_bias", false)?;
    let activation = keys.text(defaults.activation_key)?;
    let rotary = rope_config::rotary(keys, rope_defaults(&sizes, defaults))?;
    let layer = LayerConfig {
        rotary: Some(0),
        scores: ScoreRule::of_head(sizes.head_dim),
    };
    Ok(DecoderConfig {
        family,
        sizes: stable_sizes(sizes, &rotary),
        modules: MODULES,
        biases: Biases {
            query_key_value: attention_bias,
            attention_output: attention_bias,
            feed_forward: keys.flag_or("mlp_bias", false)?,
        },
        norm: NormConfig {
            kind: NormKind::RootMeanSquare,
            epsilon: keys.number_or("rms_norm_eps", defaults.epsilon)?,
        },
        norm_place: NormPlace::Before,
        query_key_norm: None,
        activation: Activation::named(
            defaults.activation_key,
            activation.unwrap_or(defaults.activation),
        )?,
        residual: Residual::Sequential,
        rotary: vec![rotary],
        layers: vec![layer; sizes.num_layers],
        scales: Scales::NONE,
        is_tied: keys.flag_or("tie_word_embeddings", defaults.is_tied)?,
    })
}

fn sizes(keys: &ConfigKeys<'_>) -> Result<ModelSizes, ConfigError> {
    let hidden_size = keys.required_count("hidden_size")?;
    let num_heads = keys.required_count("num_attention_heads")?;
    let head_dim = keys.count("head_dim")?;
    let heads = ("num_attention_heads", num_heads);
    check_sizes(&[heads])?;
    if head_dim.is_none() {
        check_multiple(("hidden_size", hidden_size), heads)?;
    }
    let head_dim = head_dim.unwrap_or(hidden_size / num_heads);
    check_sizes(&[("head_dim", head_dim)])?;
    Ok(ModelSizes {
        vocab_size: keys.required_count("vocab_size")?,
        hidden_size,
        intermediate_size: keys.required_count("intermediate_size")?,
        num_layers: num_layers(keys, "num_hidden_layers")?,
        num_heads,
        num_kv_heads: keys.count("num_key_value_heads")?.unwrap_or(num_heads),
        head_dim,
        max_seq_len: keys.count("max_position_embeddings")?.unwrap_or(2048),
    })
}

/// The number of layers, of which a list is made before the sizes are checked.
pub(crate) fn num_layers(keys: &ConfigKeys<'_>, key: &'static str) -> Result<usize, ConfigError> {
    /// No model has nearly as many.
    const MAX_LAYERS: usize = 10_000;
    let found = keys.required_count(key)?;
    if found > MAX_LAYERS {
        return Err(ConfigError::Unsupported {
            key,
            found: found.to_string(),
            supported: "at most 10,000",
        });
    }
    Ok(found)
}

/// What the sizes determine of a rotary embedding.
pub(crate) fn rope_defaults(sizes: &ModelSizes, defaults: &Defaults) -> RopeDefaults {
    RopeDefaults {
        head_dim: sizes.head_dim,
        max_seq_len: sizes.max_seq_len,
        base: defaults.rope_base,
        share: 1.0,
    }
}

/// Sizes whose longest sequence is the longest with the same angles throughout.
pub(crate) fn stable_sizes(sizes: ModelSizes, rotary: &RotaryConfig) -> ModelSizes {
    let stable = rotary.scaling.longest_stable().unwrap_or(usize::MAX);
    ModelSizes {
        max_seq_len: sizes.max_seq_len.min(stable),
        ..sizes
    }
}

/// The sliding window where a switch turns it on.
pub(crate) fn switched_window(keys: &ConfigKeys<'_>) -> Result<Option<usize>, ConfigError> {
    let is_on = keys.flag_or("use_sliding_window", false)?;
    Ok(keys.count("sliding_window")?.filter(|_| is_on))
}

/// For each layer whether it is local, from `layer_types` or, where that is absent, by a rule.
pub(crate) fn local_layers(
    keys: &ConfigKeys<'_>,
    num_layers: usize,
    rule: impl Fn(usize) -> bool,
) -> Result<Vec<bool>, ConfigError> {
    const KEY: &str = "layer_types";
    let Some(types) = keys.texts(KEY)? else {
        return Ok((0..num_layers).map(rule).collect());
    };
    if types.len() != num_layers {
        return Err(ConfigError::WrongLength {
            key: KEY,
            found: types.len(),
            expected: num_layers,
        });
    }
    types
        .into_iter()
        .map(|found| match found {
            "sliding_attention" => Ok(true),
            "full_attention" => Ok(false),
            other => Err(ConfigError::Unsupported {
                key: KEY,
                found: other.to_owned(),
                supported: "sliding_attention, full_attention",
            }),
        })
        .collect()
}

/// Gives local layers their window.
pub(crate) fn set_windows(config: &mut DecoderConfig, are_local: &[bool], window: Option<usize>) {
    for (layer, &is_local) in config.layers.iter_mut().zip(are_local) {
        layer.scores.window = window.filter(|_| is_local);
    }
}
