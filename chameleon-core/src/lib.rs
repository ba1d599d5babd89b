#![doc = include_str!("../README.md")]

mod attention_context;
mod batch;
pub mod device;
mod factors;
mod frozen_weight;
pub mod fused;
mod loss;
mod low_rank;
mod module_change;
mod pooling;
mod seed;
mod sequence;
pub mod stored;

pub use attention_context::{AttentionContext, ContextAttention, ContextKeys};
pub use batch::TokenBatch;
pub use factors::{FactorShape, LoraFactors};
pub use frozen_weight::FrozenWeight;
pub use loss::{
    FrozenHead, HeadInput, LinearCrossEntropy, RowMatches, linear_cross_entropy, perplexity,
    score_rows, score_rows_with_matches,
};
pub use low_rank::{LowRankChange, RankMix};
pub use module_change::{GroupedChange, ModuleChange};
pub use pooling::{masked_mean, prompt_embeddings};
pub use seed::{RunSeed, fnv1a};
pub use sequence::{SequenceError, SplitSequence, TokenBuffer};
