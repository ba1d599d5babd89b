//! Flags that name a data set and its fields.

use std::path::PathBuf;

use chameleon_models::adapter::Representation;
use chameleon_models::data::InstructionCondition;
use clap::Args;

use super::values::{at_least, fraction, instruction_condition};

/// The texts to work on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct DataArgs {
    /// Texts: a .txt, .parquet, .csv, .tsv, .jsonl or .json file, or a folder of any of these and of source files
    #[arg(long, value_name = "PATH")]
    pub(crate) data: PathBuf,
    /// Field that holds the text of a row; without it, the layout is recognised from the fields of the first row
    #[arg(long, value_name = "NAME", conflicts_with_all = ["prompt_field", "instruction_field", "messages_field"])]
    pub(crate) text_field: Option<String>,
    /// Field that holds a prompt; only its answer is scored
    #[arg(long, value_name = "NAME", requires = "answer_field", conflicts_with_all = ["instruction_field", "messages_field"])]
    pub(crate) prompt_field: Option<String>,
    /// Field that holds an instruction, formatted with the Alpaca template; only its answer is scored
    #[arg(long, value_name = "NAME", conflicts_with = "messages_field")]
    pub(crate) instruction_field: Option<String>,
    /// Field that holds the input of an instruction
    #[arg(
        long,
        value_name = "NAME",
        requires = "instruction_field",
        default_value = "input"
    )]
    pub(crate) input_field: String,
    /// Field that holds the answer to a prompt or an instruction; `output` for instructions if not given
    #[arg(long, value_name = "NAME")]
    pub(crate) answer_field: Option<String>,
    /// Field that holds a conversation, formatted with the model's chat template; its last answer is scored
    #[arg(long, value_name = "NAME")]
    pub(crate) messages_field: Option<String>,
    /// Part of an instruction that its prompt embedding is computed from
    #[arg(long, value_name = "PART", value_parser = instruction_condition(), default_value = "task-and-input")]
    pub(crate) condition_on: InstructionCondition,
    /// Field that holds the label of each text, used in tables only
    #[arg(long, value_name = "NAME")]
    pub(crate) label_field: Option<String>,
    /// Field that holds the key of each text's group, such as a customer; all texts of one group belong to the same split
    #[arg(long, value_name = "NAME", conflicts_with_all = ["label_field", "source_field"])]
    pub(crate) group_field: Option<String>,
    /// Field that holds the source of each text; all texts of one source belong to the same split
    #[arg(long, value_name = "NAME")]
    pub(crate) source_field: Option<String>,
    /// Read at most this many texts
    #[arg(long, value_name = "N", value_parser = at_least::<1>)]
    pub(crate) max_examples: Option<usize>,
}

/// The validation texts.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct ValidArgs {
    /// Validation texts; without them, a part of --data is held out
    #[arg(long, value_name = "PATH", conflicts_with = "valid_fraction")]
    pub(crate) valid: Option<PathBuf>,
    /// Part of --data held out for validation
    #[arg(long, value_name = "F", value_parser = fraction, default_value_t = 0.1)]
    pub(crate) valid_fraction: f64,
}

/// How a text is split into prompt and scored tokens.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub(crate) struct SpanArgs {
    /// Tokens at the start of each text that form its prompt; they are not scored
    #[arg(long, value_name = "TOKENS", value_parser = at_least::<1>, default_value_t = 32)]
    pub(crate) prefix: usize,
    /// Tokens kept of each text
    #[arg(long, value_name = "TOKENS", value_parser = at_least::<1>, default_value_t = 128)]
    pub(crate) seq_len: usize,
}

/// How prompts are embedded, for k-means and for the hypernetwork.
#[derive(Debug, Args)]
#[command(next_help_heading = "Groups")]
pub(crate) struct PromptArgs {
    /// What a prompt's vector is the mean of: token-embeddings, or hidden:N for the hidden states after N layers
    #[arg(long, value_name = "KIND", default_value_t)]
    pub(crate) representation: Representation,
    /// Standardise these vectors to zero mean and unit variance over the training prompts
    #[arg(long)]
    pub(crate) standardise: bool,
}
