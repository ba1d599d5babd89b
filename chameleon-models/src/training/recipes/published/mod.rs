//! The `as-published` recipe: rows, their groups' conditions, training steps and validation loss.

pub(super) mod data;
pub(super) mod experiment;
pub(super) mod masked;
pub(super) mod rows;
pub(super) mod score;
pub(super) mod train;
