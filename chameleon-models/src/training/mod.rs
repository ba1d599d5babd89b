//! Training and scoring: from grouped examples to a trained adapter and its scores.

pub mod causal_objective;
pub mod config;
pub mod error;
pub mod eval;
pub mod evaluation;
pub mod experiment;
pub mod fit;
pub mod grouped_examples;
pub mod hidden_cache;
pub mod known_states;
pub mod memory;
pub mod method;
pub mod new_adapter;
pub mod observer;
pub mod prepare;
pub mod recipes;
pub mod session;
pub mod states;
pub mod text_metrics;
pub mod texts;
pub mod train;
pub mod training_state;

pub(crate) mod metrics_file;

mod gradients;

pub use error::TrainingError;
