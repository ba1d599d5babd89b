//! Models small enough for tests.

use serde_json::json;

use super::config::DecoderConfig;
use super::{gpt2, llama};

impl DecoderConfig {
    /// The smallest Llama worth testing: two layers of width 16, four heads on two key-value heads, 96 tokens.
    ///
    /// # Panics
    ///
    /// Never: the values are valid.
    pub fn tiny_llama() -> Self {
        let config = llama::FAMILY.config(&json!({
            "vocab_size": 96, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
            "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
        }));
        config.expect("the values are valid")
    }

    /// The smallest GPT-2 worth testing: two layers of width 16, four heads, 96 tokens.
    ///
    /// # Panics
    ///
    /// Never: the values are valid.
    pub fn tiny_gpt2() -> Self {
        let config = gpt2::FAMILY.config(&json!({
            "vocab_size": 96, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 4,
        }));
        config.expect("the values are valid")
    }
}
