//! Flags that name a data set and its fields.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// The texts to work on.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// Texts: a .txt, .parquet, .csv, .tsv, .jsonl or .json file, or a folder of any of these and of source files
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Field that holds the text of a row [default: what the first row has]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["prompt_field", "instruction_field", "messages_field"])]
    pub(crate) text_field: Option<String>,
    /// Field that holds a prompt; only its answer is scored
    #[arg(long, value_name = "NAME", requires = "answer_field", conflicts_with_all = ["instruction_field", "messages_field"])]
    pub(crate) prompt_field: Option<String>,
    /// Field that holds an instruction, written out as Alpaca does; only its answer is scored
    #[arg(long, value_name = "NAME", conflicts_with = "messages_field")]
    pub(crate) instruction_field: Option<String>,
    /// Field that holds what an instruction is applied to [default: input]
    #[arg(long, value_name = "NAME", requires = "instruction_field")]
    pub(crate) input_field: Option<String>,
    /// Field that holds the answer to a prompt or an instruction [default: output]
    #[arg(long, value_name = "NAME")]
    pub(crate) answer_field: Option<String>,
    /// Field that holds a conversation, written out by the model's chat template; its last answer is scored
    #[arg(long, value_name = "NAME")]
    pub(crate) messages_field: Option<String>,
    /// What the prompt embedding of an instruction is made of [default: task-and-input]
    #[arg(long, value_enum, value_name = "PART")]
    pub(crate) condition_on: Option<ConditionPart>,
    /// Field that holds the kind of each text, for the tables only
    #[arg(long, value_name = "NAME")]
    pub(crate) label_field: Option<String>,
    /// Field that holds what each text was cut from; texts of one source are all trained on or all held out
    #[arg(long, value_name = "NAME")]
    pub(crate) source_field: Option<String>,
    /// Texts read at most
    #[arg(long, value_name = "N")]
    pub(crate) max_examples: Option<usize>,
}

/// A part of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConditionPart {
    /// The instruction alone
    Task,
    /// The instruction and its input
    TaskAndInput,
}
