//! The settings of a comparison.

use chameleon_core::RunSeed;

use crate::training::config::TrainingConfig;
use crate::training::method::Method;

/// Settings of a comparison.
#[derive(Debug, Clone)]
pub struct ComparisonConfig {
    /// In the order of the tables, each once.
    pub methods: Vec<Method>,
    /// At least one, each once.
    pub seeds: Vec<RunSeed>,
    /// Tuned over for every method; at least one, each once.
    pub learning_rates: Vec<f64>,
    /// Everything else, the same for all methods.
    pub training: TrainingConfig,
}
