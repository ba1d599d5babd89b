//! Flags of `chameleon score`.

use std::path::PathBuf;

use clap::Args;

/// `chameleon score`
#[derive(Debug, Args)]
pub(crate) struct ScoreArgs {
    /// Answers: a text file with one per line, or a table
    #[arg(long, value_name = "FILE")]
    pub(crate) predictions: PathBuf,
    /// Reference answers, in the same order
    #[arg(long, value_name = "FILE")]
    pub(crate) references: PathBuf,
    /// Field of the answers in a table
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(crate) prediction_field: String,
    /// Field of the references in a table
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub(crate) reference_field: String,
    /// Apply Porter stemming for ROUGE
    #[arg(long)]
    pub(crate) stem: bool,
}
