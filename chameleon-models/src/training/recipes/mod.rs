//! The settings of the paper, so that anybody can repeat them and see what they measure.
//!
//! Owns the `as-published` recipe: its sizes ([`PaperSettings`]), everything unusual about it ([`Quirk`]), and
//! training and scoring under it. The `causal` recipe, under which claims are made, is the rest of this crate;
//! grouping rows is the caller's business here as there.

mod published;
mod quirks;
mod settings;
mod texts;

pub use published::data::{
    PublishedData, PublishedStates, StateIndex, cache_published_states, embed_rows,
    published_fingerprint,
};
pub use published::rows::{PublishedLoss, PublishedRow, PublishedText, RowOptions, published_rows};
pub use published::score::{BatchScore, PublishedScore, PublishedScorer};
pub use published::train::{PublishedOptions, PublishedSetup, PublishedTrainer};
pub use quirks::{Quirk, Quirks, UnknownQuirk};
pub use settings::PaperSettings;
pub use texts::{PaperRows, PaperTexts};
