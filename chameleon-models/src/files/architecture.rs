//! The families of models that are known.

use std::fmt;

use serde_json::Value;

use crate::families::config::DecoderConfig;
use crate::families::config_error::ConfigError;
use crate::families::family::Family;
use crate::families::{gemma, gpt_neox, gpt2, granite, llama, mistral, olmo2, phi3, qwen, smollm3};
use crate::files::name_table::NameTable;

/// A family of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// Llama 2 and 3, SmolLM2, TinyLlama and others of the same build.
    Llama,
    /// Mistral.
    Mistral,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    /// Qwen3.
    Qwen3,
    /// Gemma 2.
    Gemma2,
    /// The text models of Gemma 3.
    Gemma3,
    /// Phi-3, Phi-3.5 and Phi-4-mini.
    Phi3,
    /// `SmolLM3`.
    SmolLm3,
    /// `OLMo` 2.
    Olmo2,
    /// Granite 3.
    Granite,
    /// GPT-NeoX and Pythia.
    GptNeoX,
    /// GPT-2.
    Gpt2,
}

impl Architecture {
    /// All families.
    pub const ALL: &'static [Self] = &[
        Self::Llama,
        Self::Mistral,
        Self::Qwen2,
        Self::Qwen3,
        Self::Gemma2,
        Self::Gemma3,
        Self::Phi3,
        Self::SmolLm3,
        Self::Olmo2,
        Self::Granite,
        Self::GptNeoX,
        Self::Gpt2,
    ];

    /// All families, for messages.
    pub const NAMES: &'static str = "llama, mistral, qwen2, qwen3, gemma2, gemma3_text, phi3, smollm3, olmo2, \
         granite, gpt_neox and gpt2";

    /// Its description.
    pub(crate) fn family(self) -> &'static Family {
        match self {
            Self::Llama => &llama::FAMILY,
            Self::Mistral => &mistral::FAMILY,
            Self::Qwen2 => &qwen::QWEN2,
            Self::Qwen3 => &qwen::QWEN3,
            Self::Gemma2 => &gemma::GEMMA2,
            Self::Gemma3 => &gemma::GEMMA3,
            Self::Phi3 => &phi3::FAMILY,
            Self::SmolLm3 => &smollm3::FAMILY,
            Self::Olmo2 => &olmo2::FAMILY,
            Self::Granite => &granite::FAMILY,
            Self::GptNeoX => &gpt_neox::FAMILY,
            Self::Gpt2 => &gpt2::FAMILY,
        }
    }

    /// The name in `model_type`.
    pub fn name(self) -> &'static str {
        self.family().name
    }

    /// The name in `general.architecture` of GGUF files.
    pub fn gguf_name(self) -> &'static str {
        self.family().gguf
    }

    /// The family of a `model_type`.
    pub fn from_name(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|architecture| architecture.name() == name)
    }

    /// The family of a `general.architecture`.
    pub fn from_gguf_name(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|architecture| architecture.gguf_name() == name)
    }

    /// The decoder that a `config.json` of the family describes.
    ///
    /// ```
    /// # use chameleon_models::Architecture;
    /// let json = serde_json::json!({"vocab_size": 96, "hidden_size": 16, "intermediate_size": 32,
    ///     "num_hidden_layers": 2, "num_attention_heads": 4, "torch_dtype": "float32"});
    /// let config = Architecture::Llama.config(&json)?;
    /// assert_eq!(config.sizes.head_dim, 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// When a value is missing, of the wrong type or impossible, or asks for something that is not implemented.
    pub fn config(self, config: &Value) -> Result<DecoderConfig, ConfigError> {
        self.family().config(config)
    }

    /// What its tensors are called.
    pub(crate) fn names(self) -> &'static NameTable {
        &self.family().names
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_is_named_once() {
        let names: Vec<&str> = Architecture::ALL
            .iter()
            .map(|family| family.name())
            .collect();
        let (last, others) = names.split_last().unwrap();
        assert_eq!(
            Architecture::NAMES,
            format!("{} and {last}", others.join(", "))
        );
        for &architecture in Architecture::ALL {
            assert_eq!(
                Architecture::from_name(architecture.name()),
                Some(architecture)
            );
            assert_eq!(
                Architecture::from_gguf_name(architecture.gguf_name()),
                Some(architecture)
            );
        }
    }
}
