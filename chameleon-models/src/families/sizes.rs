//! The sizes that describe a model.

use serde::{Deserialize, Serialize};

/// The sizes of a model, the same words for every family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSizes {
    /// Rows of the embedding, and logits per token.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward part.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; fewer than `num_heads` when heads share them.
    pub num_kv_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// The longest sequence the model was made for.
    pub max_seq_len: usize,
}
