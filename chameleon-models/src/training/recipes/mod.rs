//! The settings of the paper, for its reproduction.
//!
//! Owns the `as-published` recipe: its sizes ([`PaperSettings`]), its deviations from common practice ([`Quirk`]),
//! training and scoring under it, and the experiments that compare it with `causal`, the recipe of our own results
//! ([`reproduce`]). Nothing outside this folder imports it.

mod answers;
mod base;
mod causal;
mod config;
mod findings;
mod finished;
mod heads;
mod published;
mod quirks;
mod recipe_name;
mod report;
mod reproduction;
mod runs;
mod settings;
mod splits;
mod texts;

pub use answers::TextScores;
pub use base::Base;
pub use config::ReproductionConfig;
pub use published::data::{
    PublishedData, PublishedStates, StateIndex, cache_published_states, embed_rows,
    published_fingerprint,
};
pub use published::masked::Visibility;
pub use published::rows::{PublishedLoss, PublishedRow, PublishedText, RowOptions, published_rows};
pub use published::score::{BatchScore, PublishedScore, PublishedScorer};
pub use published::train::PublishedObjective;
pub use quirks::{Quirk, Quirks, UnknownQuirk};
pub use recipe_name::{RecipeName, UnknownRecipe};
pub use report::{MethodRow, RecipeRow, ReproductionReport, RunRow, curves_csv};
pub use reproduction::reproduce;
pub use runs::{Facts, Run, Unit};
pub use settings::{Experiment, PaperSettings};
pub use texts::{PaperRows, PaperTexts};
