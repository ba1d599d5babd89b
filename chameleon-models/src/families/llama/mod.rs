//! The Llama family: rotary positions, root-mean-square norms, grouped-query attention, gated feed-forward.

mod config;
mod model;
mod names;
mod rope;

pub use config::{LlamaConfig, RopeParameters};
pub(crate) use names::NAMES;

pub use model::Llama;
pub use rope::{Llama3Scaling, RopeScaling};
