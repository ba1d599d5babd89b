//! The GPT-2 family: learned positions, layer norms, one fused projection for attention.

mod config;
mod model;
mod names;

pub use config::Gpt2Config;
pub(crate) use names::NAMES;

pub use model::Gpt2;
