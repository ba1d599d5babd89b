//! The configuration of a GPT-2 model, read by the names that Hugging Face's `config.json` uses.

use serde::{Deserialize, Serialize};

use crate::families::config_error::{ConfigError, check_multiple, check_positive, check_sizes};
use crate::families::sizes::{ModelSizes, TokenIds};

/// The configuration of a GPT-2 model.
///
/// In JSON the sizes are called `n_embd`, `n_layer` and so on; keys that are not listed here are ignored.
///
/// ```
/// # use chameleon_models::families::Gpt2Config;
/// let json = r#"{"vocab_size": 96, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 4}"#;
/// let config: Gpt2Config = serde_json::from_str(json)?;
/// config.validate()?;
/// assert_eq!(config.sizes().intermediate_size, 64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gpt2Config {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Learned positions, which is the longest sequence.
    #[serde(rename = "n_positions", alias = "max_position_embeddings")]
    pub max_seq_len: usize,
    /// Width of the residual stream.
    #[serde(rename = "n_embd", alias = "hidden_size")]
    pub hidden_size: usize,
    /// Transformer layers.
    #[serde(rename = "n_layer", alias = "num_hidden_layers")]
    pub num_layers: usize,
    /// Attention heads.
    #[serde(rename = "n_head", alias = "num_attention_heads")]
    pub num_heads: usize,
    /// Width of the feed-forward part; four times `hidden_size` when absent.
    #[serde(rename = "n_inner", default)]
    pub intermediate_size: Option<usize>,
    /// The activation of the feed-forward part; only GELU by its tanh approximation is implemented.
    #[serde(default = "defaults::activation_function")]
    pub activation_function: String,
    /// Added to the variance inside the norms.
    #[serde(default = "defaults::layer_norm_epsilon")]
    pub layer_norm_epsilon: f64,
    /// Whether the head is the embedding.
    #[serde(default = "defaults::yes")]
    pub tie_word_embeddings: bool,
    /// Whether scores are divided by the square root of the head's width; refused unless true.
    #[serde(default = "defaults::yes")]
    pub scale_attn_weights: bool,
    /// Whether scores are also divided by the layer's number; refused unless false.
    #[serde(default)]
    pub scale_attn_by_inverse_layer_idx: bool,
    /// What starts a text.
    #[serde(default)]
    pub bos_token_id: Option<TokenIds>,
    /// What ends a text.
    #[serde(default)]
    pub eos_token_id: Option<TokenIds>,
}

impl Gpt2Config {
    /// The smallest model worth testing: two layers of width 16, four heads.
    pub fn tiny() -> Self {
        Self {
            vocab_size: 96,
            max_seq_len: 64,
            hidden_size: 16,
            num_layers: 2,
            num_heads: 4,
            intermediate_size: None,
            activation_function: defaults::activation_function(),
            layer_norm_epsilon: defaults::layer_norm_epsilon(),
            tie_word_embeddings: true,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            bos_token_id: None,
            eos_token_id: None,
        }
    }

    /// The published model of 124 million parameters.
    pub fn small() -> Self {
        Self {
            vocab_size: 50_257,
            max_seq_len: 1024,
            hidden_size: 768,
            num_layers: 12,
            num_heads: 12,
            bos_token_id: Some(TokenIds::One(50_256)),
            eos_token_id: Some(TokenIds::One(50_256)),
            ..Self::tiny()
        }
    }

    /// The sizes, with absent values filled in.
    pub fn sizes(&self) -> ModelSizes {
        ModelSizes {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size.unwrap_or(4 * self.hidden_size),
            num_layers: self.num_layers,
            num_heads: self.num_heads,
            num_kv_heads: self.num_heads,
            head_dim: self.hidden_size / self.num_heads.max(1),
            max_seq_len: self.max_seq_len,
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
            ("n_positions", sizes.max_seq_len),
            ("n_embd", sizes.hidden_size),
            ("n_layer", sizes.num_layers),
            ("n_head", sizes.num_heads),
            ("n_inner", sizes.intermediate_size),
        ])?;
        check_multiple(("n_embd", sizes.hidden_size), ("n_head", sizes.num_heads))?;
        check_positive("layer_norm_epsilon", self.layer_norm_epsilon)?;
        if !matches!(
            self.activation_function.as_str(),
            "gelu_new" | "gelu_pytorch_tanh"
        ) {
            return Err(ConfigError::Unsupported {
                key: "activation_function",
                found: self.activation_function.clone(),
                supported: "gelu_new, gelu_pytorch_tanh",
            });
        }
        for (key, found, supported) in [
            ("scale_attn_weights", self.scale_attn_weights, true),
            (
                "scale_attn_by_inverse_layer_idx",
                self.scale_attn_by_inverse_layer_idx,
                false,
            ),
        ] {
            if found != supported {
                return Err(ConfigError::Unsupported {
                    key,
                    found: found.to_string(),
                    supported: if supported { "true" } else { "false" },
                });
            }
        }
        Ok(())
    }
}

/// What `transformers` assumes for keys that are absent.
mod defaults {
    pub(super) fn activation_function() -> String {
        "gelu_new".to_owned()
    }

    pub(super) fn layer_norm_epsilon() -> f64 {
        1e-5
    }

    pub(super) fn yes() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(changes: &serde_json::Value) -> String {
        let mut json = serde_json::to_value(Gpt2Config::tiny()).unwrap();
        for (key, value) in changes.as_object().unwrap() {
            json[key] = value.clone();
        }
        let config: Gpt2Config = serde_json::from_value(json).unwrap();
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn presets_are_valid() {
        Gpt2Config::tiny().validate().unwrap();
        Gpt2Config::small().validate().unwrap();
    }

    #[test]
    fn impossible_values_are_named() {
        for (changes, message) in [
            (
                serde_json::json!({"n_layer": 0}),
                "`n_layer` is 0, expected at least 1",
            ),
            (
                serde_json::json!({"n_head": 3}),
                "`n_embd` is 16, expected a multiple of `n_head`, which is 3",
            ),
            (
                serde_json::json!({"activation_function": "relu"}),
                "`activation_function` is `relu`, supported: gelu_new, gelu_pytorch_tanh",
            ),
            (
                serde_json::json!({"scale_attn_weights": false}),
                "`scale_attn_weights` is `false`, supported: true",
            ),
        ] {
            assert_eq!(refusal(&changes), message);
        }
    }
}
