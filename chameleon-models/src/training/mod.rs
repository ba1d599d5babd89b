//! How does it learn, and how good is it? From examples in groups to a trained adapter and its scores.

pub mod bootstrap;
pub mod eval;
pub mod grouped_examples;
pub mod hidden_cache;
pub mod recipes;
pub mod states;
pub mod text_metrics;
pub mod train;
pub mod training_state;

pub(crate) mod gradients;
