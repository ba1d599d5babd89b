//! The settings of a reproduction.

use std::path::PathBuf;

use chameleon_core::RunSeed;

use crate::data::InstructionCondition;
use crate::files::hub::HubOptions;

use super::published::rows::PublishedLoss;
use super::recipe_name::RecipeName;
use super::settings::{Experiment, PaperSettings};

/// Settings of a reproduction.
#[derive(Debug, Clone)]
pub struct ReproductionConfig {
    /// The experiment of the paper.
    pub experiment: Experiment,
    /// Local data; the hub's if `None`.
    pub data: Option<PathBuf>,
    /// Access to the hub.
    pub hub: HubOptions,
    /// At least one, each once.
    pub recipes: Vec<RecipeName>,
    /// Which tokens the published recipe scores.
    pub loss: PublishedLoss,
    /// At least one, each once.
    pub seeds: Vec<RunSeed>,
    /// Largest number of training rows.
    pub max_examples: Option<usize>,
    /// Tokens of a row of WikiText that conditions are computed from, unless the recipe leaks.
    pub prefix: usize,
    /// Part of a row of Alpaca that conditions are computed from, unless the recipe leaks.
    pub condition: InstructionCondition,
    /// Number of answers that each method generates.
    pub num_answers: usize,
    /// Sizes.
    pub settings: PaperSettings,
    /// The folder of hidden states.
    pub cache_dir: PathBuf,
    /// Draws rows, clusters and splits.
    pub seed: RunSeed,
}
