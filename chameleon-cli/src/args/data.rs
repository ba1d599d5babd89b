//! Flags that name a data set and its fields.

use std::path::PathBuf;

use clap::Args;

/// The texts to work on.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// Texts: a .txt, .jsonl or .json file, or a folder of text and source files
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Field that holds the text in .jsonl and .json rows [default: text]
    #[arg(long, value_name = "NAME")]
    pub(crate) text_field: Option<String>,
    /// Field that holds the kind of each text in .jsonl and .json rows, for the tables only
    #[arg(long, value_name = "NAME")]
    pub(crate) label_field: Option<String>,
    /// Texts read at most
    #[arg(long, value_name = "N")]
    pub(crate) max_examples: Option<usize>,
}
