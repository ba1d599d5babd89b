#![doc = include_str!("../README.md")]

pub mod batch;
pub mod device;
pub mod factors;
pub mod fused;
pub mod loss;
pub mod pooling;
pub mod seed;
pub mod sequence;

pub use batch::TokenBatch;
pub use device::{BackendKind, DeviceError, DeviceSpec, is_flex};
pub use factors::{FactorShape, LoraFactors};
pub use fused::{CausalAttention, HalfTurn, LowRankChange, RankMix};
pub use loss::{
    ChunkRows, HeadInput, LinearCrossEntropy, linear_cross_entropy, perplexity, score_rows,
};
pub use pooling::{masked_mean, prompt_embeddings};
pub use seed::RunSeed;
pub use sequence::{SequenceError, SplitSequence, TokenStore};
