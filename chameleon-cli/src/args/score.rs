//! Flags of `score`.

use std::path::PathBuf;

use clap::Args;

/// `chameleon score`
#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    /// Answers: a text with one a line, or a file of rows
    #[arg(long, value_name = "FILE")]
    pub(crate) predictions: Option<PathBuf>,
    /// What they should have been, in the same order
    #[arg(long, value_name = "FILE")]
    pub(crate) references: Option<PathBuf>,
    /// Field of the answers in rows [default: text]
    #[arg(long, value_name = "NAME")]
    pub(crate) prediction_field: Option<String>,
    /// Field of the references in rows [default: text]
    #[arg(long, value_name = "NAME")]
    pub(crate) reference_field: Option<String>,
    /// Compare English words by their stems in ROUGE
    #[arg(long)]
    pub(crate) stem: bool,
}
