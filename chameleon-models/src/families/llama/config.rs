//! The configuration of a Llama model, by the names that Hugging Face's `config.json` uses.

use serde::{Deserialize, Serialize};

use super::rope::{Llama3Scaling, RopeScaling};
use crate::families::config_error::{ConfigError, check_multiple, check_positive, check_sizes};
use crate::families::sizes::{ModelSizes, TokenIds};

/// The configuration of a Llama model: Llama 2 and 3, SmolLM2, TinyLlama, Mistral without a sliding window.
///
/// The fields carry the names of `config.json`; keys that are not listed here are ignored.
///
/// ```
/// # use chameleon_models::families::LlamaConfig;
/// let json = r#"{"vocab_size": 96, "hidden_size": 16, "intermediate_size": 32,
///     "num_hidden_layers": 2, "num_attention_heads": 4, "torch_dtype": "float32"}"#;
/// let config: LlamaConfig = serde_json::from_str(json)?;
/// config.validate()?;
/// assert_eq!(config.sizes().head_dim, 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LlamaConfig {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward part.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; as many as query heads when absent.
    #[serde(default)]
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; `hidden_size / num_attention_heads` when absent.
    #[serde(default)]
    pub head_dim: Option<usize>,
    /// The activation of the feed-forward part; only `silu` is implemented.
    #[serde(default = "defaults::hidden_act")]
    pub hidden_act: String,
    /// The longest sequence the model was made for.
    #[serde(default = "defaults::max_position_embeddings")]
    pub max_position_embeddings: usize,
    /// Added to the mean square inside the norms.
    #[serde(default = "defaults::rms_norm_eps")]
    pub rms_norm_eps: f64,
    /// Base of the rotary wavelengths; older files have it here, newer ones in `rope_parameters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// The scaling of the rotary wavelengths, as in older files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeParameters>,
    /// Base and scaling of the rotary wavelengths, as in newer files; takes precedence over the two above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_parameters: Option<RopeParameters>,
    /// Whether the head is the embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Whether the four projections of attention have a bias.
    #[serde(default)]
    pub attention_bias: bool,
    /// Whether the three projections of the feed-forward part have a bias.
    #[serde(default)]
    pub mlp_bias: bool,
    /// Attention that looks back only so far (Mistral); refused unless it is longer than any sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// The token that starts a text.
    #[serde(default)]
    pub bos_token_id: Option<TokenIds>,
    /// The tokens that end a text.
    #[serde(default)]
    pub eos_token_id: Option<TokenIds>,
}

/// `rope_parameters`, or `rope_scaling` of older files.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RopeParameters {
    /// Base of the wavelengths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_theta: Option<f64>,
    /// `default`, `linear` or `llama3`.
    #[serde(default, alias = "type", skip_serializing_if = "Option::is_none")]
    pub rope_type: Option<String>,
    /// How much longer the longest wavelengths become.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// Wavelengths longer than `original / low_freq_factor` are stretched in full (`llama3`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_freq_factor: Option<f64>,
    /// Wavelengths shorter than `original / high_freq_factor` stay as they are (`llama3`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high_freq_factor: Option<f64>,
    /// The length the model was first trained for (`llama3`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_max_position_embeddings: Option<usize>,
    /// Which share of a head rotates; only all of it is implemented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partial_rotary_factor: Option<f64>,
}

impl LlamaConfig {
    /// A small model for tests: two layers of width 16, four heads on two key-value heads.
    pub fn tiny() -> Self {
        Self {
            vocab_size: 96,
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: Some(2),
            head_dim: None,
            hidden_act: defaults::hidden_act(),
            max_position_embeddings: 64,
            rms_norm_eps: 1e-5,
            rope_theta: Some(10_000.0),
            rope_scaling: None,
            rope_parameters: None,
            tie_word_embeddings: true,
            attention_bias: false,
            mlp_bias: false,
            sliding_window: None,
            bos_token_id: None,
            eos_token_id: None,
        }
    }

    /// `HuggingFaceTB/SmolLM2-135M` and `SmolLM2-135M-Instruct`.
    pub fn smollm2_135m() -> Self {
        Self {
            vocab_size: 49_152,
            hidden_size: 576,
            intermediate_size: 1536,
            num_hidden_layers: 30,
            num_attention_heads: 9,
            num_key_value_heads: Some(3),
            max_position_embeddings: 8192,
            rope_theta: Some(100_000.0),
            ..Self::tiny()
        }
    }

    /// The sizes, with absent values filled in.
    pub fn sizes(&self) -> ModelSizes {
        ModelSizes {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_layers: self.num_hidden_layers,
            num_heads: self.num_attention_heads,
            num_kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            head_dim: self
                .head_dim
                .unwrap_or(self.hidden_size / self.num_attention_heads.max(1)),
            max_seq_len: self.max_position_embeddings,
        }
    }

    /// The base of the rotary wavelengths.
    pub fn rope_base(&self) -> f64 {
        [&self.rope_parameters, &self.rope_scaling]
            .into_iter()
            .flatten()
            .find_map(|parameters| parameters.rope_theta)
            .or(self.rope_theta)
            .unwrap_or(10_000.0)
    }

    /// The scaling of the rotary wavelengths.
    ///
    /// # Errors
    ///
    /// Fails if the kind of stretching is not implemented, or lacks one of its values.
    pub fn rope_scaling(&self) -> Result<RopeScaling, ConfigError> {
        match self.rope_parameters.as_ref().or(self.rope_scaling.as_ref()) {
            Some(parameters) => parameters.scaling(self.max_position_embeddings),
            None => Ok(RopeScaling::None),
        }
    }

    /// Checks that a model can be built from these values.
    ///
    /// # Errors
    ///
    /// Fails on sizes of zero, heads that do not divide, and whatever is not implemented.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = self.sizes();
        check_sizes(&[
            ("vocab_size", sizes.vocab_size),
            ("hidden_size", sizes.hidden_size),
            ("intermediate_size", sizes.intermediate_size),
            ("num_hidden_layers", sizes.num_layers),
            ("num_attention_heads", sizes.num_heads),
            ("num_key_value_heads", sizes.num_kv_heads),
            ("max_position_embeddings", sizes.max_seq_len),
        ])?;
        let heads = ("num_attention_heads", sizes.num_heads);
        if self.head_dim.is_none() {
            check_multiple(("hidden_size", sizes.hidden_size), heads)?;
        }
        check_sizes(&[("head_dim", sizes.head_dim)])?;
        check_multiple(("head_dim", sizes.head_dim), ("pairs of the rotation", 2))?;
        check_multiple(heads, ("num_key_value_heads", sizes.num_kv_heads))?;
        check_positive("rms_norm_eps", self.rms_norm_eps)?;
        check_positive("rope_theta", self.rope_base())?;
        if !matches!(self.hidden_act.as_str(), "silu" | "swish") {
            return Err(ConfigError::Unsupported {
                key: "hidden_act",
                found: self.hidden_act.clone(),
                supported: "silu",
            });
        }
        if let Some(window) = self.sliding_window
            && window < self.max_position_embeddings
        {
            return Err(ConfigError::Unsupported {
                key: "sliding_window",
                found: window.to_string(),
                supported: "null, or no less than max_position_embeddings",
            });
        }
        self.rope_scaling().map(drop)
    }
}

impl RopeParameters {
    /// The checked form of these values.
    fn scaling(&self, max_position_embeddings: usize) -> Result<RopeScaling, ConfigError> {
        if let Some(share) = self.partial_rotary_factor
            && (share - 1.0).abs() > f64::EPSILON
        {
            return Err(ConfigError::Unsupported {
                key: "partial_rotary_factor",
                found: share.to_string(),
                supported: "1",
            });
        }
        match self.rope_type.as_deref().unwrap_or("default") {
            "default" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear {
                factor: needed("factor", self.factor, "rope_type linear")?,
            }),
            "llama3" => {
                let need = |key, value| needed(key, value, "rope_type llama3");
                let scaling = Llama3Scaling {
                    factor: need("factor", self.factor)?,
                    low_freq_factor: need("low_freq_factor", self.low_freq_factor)?,
                    high_freq_factor: need("high_freq_factor", self.high_freq_factor)?,
                    original_max_seq_len: self
                        .original_max_position_embeddings
                        .unwrap_or(max_position_embeddings),
                };
                check_sizes(&[(
                    "original_max_position_embeddings",
                    scaling.original_max_seq_len,
                )])?;
                check_positive(
                    "high_freq_factor - low_freq_factor",
                    scaling.high_freq_factor - scaling.low_freq_factor,
                )?;
                Ok(RopeScaling::Llama3(scaling))
            }
            other => Err(ConfigError::Unsupported {
                key: "rope_type",
                found: other.to_owned(),
                supported: "default, linear, llama3",
            }),
        }
    }
}

/// A positive number that must be there.
fn needed(
    key: &'static str,
    value: Option<f64>,
    because: &'static str,
) -> Result<f64, ConfigError> {
    let value = value.ok_or(ConfigError::Missing { key, because })?;
    check_positive(key, value)?;
    Ok(value)
}

/// The defaults of `transformers` for absent keys.
mod defaults {
    pub(super) fn hidden_act() -> String {
        "silu".to_owned()
    }

    pub(super) fn max_position_embeddings() -> usize {
        2048
    }

    pub(super) fn rms_norm_eps() -> f64 {
        1e-6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(changes: &serde_json::Value) -> LlamaConfig {
        let mut json = serde_json::to_value(LlamaConfig::tiny()).unwrap();
        for (key, value) in changes.as_object().unwrap() {
            json[key] = value.clone();
        }
        serde_json::from_value(json).unwrap()
    }

    fn refusal(changes: &serde_json::Value) -> String {
        parse(changes).validate().unwrap_err().to_string()
    }

    #[test]
    fn presets_are_valid() {
        LlamaConfig::tiny().validate().unwrap();
        LlamaConfig::smollm2_135m().validate().unwrap();
    }

    #[test]
    fn a_config_survives_its_own_json() {
        let config = LlamaConfig::smollm2_135m();
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<LlamaConfig>(&json).unwrap(), config);
    }

    #[test]
    fn end_tokens_may_be_one_or_many() {
        let one = parse(&serde_json::json!({"eos_token_id": 2}));
        let many = parse(&serde_json::json!({"eos_token_id": [2, 7]}));
        assert_eq!(one.eos_token_id.unwrap().as_slice(), [2]);
        assert_eq!(many.eos_token_id.unwrap().as_slice(), [2, 7]);
    }

    #[test]
    fn rope_is_read_from_old_and_new_files() {
        let numbers = serde_json::json!({"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32, "rope_type": "llama3", "rope_theta": 500_000.0});
        let old = parse(&serde_json::json!({"rope_theta": 500_000.0, "rope_scaling": numbers}));
        let new = parse(&serde_json::json!({"rope_theta": null, "rope_parameters": numbers}));
        assert_eq!(old.rope_scaling().unwrap(), new.rope_scaling().unwrap());
        assert!((old.rope_base() - new.rope_base()).abs() < f64::EPSILON);
        let linear = parse(&serde_json::json!({"rope_scaling": {"type": "linear", "factor": 2}}));
        assert_eq!(
            linear.rope_scaling().unwrap(),
            RopeScaling::Linear { factor: 2.0 }
        );
    }

    #[test]
    fn impossible_values_are_named() {
        for (changes, message) in [
            (
                serde_json::json!({"vocab_size": 0}),
                "`vocab_size` is 0, expected at least 1",
            ),
            (
                serde_json::json!({"num_attention_heads": 0}),
                "`num_attention_heads` is 0, expected at least 1",
            ),
            (
                serde_json::json!({"num_attention_heads": 3}),
                "`hidden_size` is 16, expected a multiple of `num_attention_heads`, which is 3",
            ),
            (
                serde_json::json!({"num_key_value_heads": 3}),
                "`num_attention_heads` is 4, expected a multiple of `num_key_value_heads`, which is 3",
            ),
            (
                serde_json::json!({"head_dim": 3}),
                "`head_dim` is 3, expected a multiple of `pairs of the rotation`, which is 2",
            ),
            (
                serde_json::json!({"hidden_act": "relu"}),
                "`hidden_act` is `relu`, supported: silu",
            ),
            (
                serde_json::json!({"rope_scaling": {"rope_type": "yarn", "factor": 2}}),
                "`rope_type` is `yarn`, supported: default, linear, llama3",
            ),
            (
                serde_json::json!({"rope_scaling": {"rope_type": "llama3", "factor": 2}}),
                "`low_freq_factor` is missing, `rope_type llama3` needs it",
            ),
            (
                serde_json::json!({"rope_scaling": {"rope_type": "linear", "factor": -1}}),
                "`factor` is -1, expected a positive number",
            ),
            (
                serde_json::json!({"sliding_window": 8}),
                "`sliding_window` is `8`, supported: null, or no less than max_position_embeddings",
            ),
            (
                serde_json::json!({"rms_norm_eps": 0.0}),
                "`rms_norm_eps` is 0, expected a positive number",
            ),
        ] {
            assert_eq!(refusal(&changes), message);
        }
    }
}
