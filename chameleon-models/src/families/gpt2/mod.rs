//! The GPT-2 family: learned positions, layer norms, one fused projection for attention.

mod config;
mod import;
mod model;

pub use config::Gpt2Config;
pub use model::{Gpt2, Gpt2Attention, Gpt2Layer, Gpt2Mlp};
