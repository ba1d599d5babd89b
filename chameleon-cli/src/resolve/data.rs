//! Checked configs of what every command on texts and models shares.

use std::path::PathBuf;

use chameleon_hypernet::ConditionScaling;
use chameleon_models::{
    PromptEncoding,
    data::{InstructionCondition, InstructionFields, TextFields},
};

use crate::{
    args::{DataArgs, MemoryArg, PromptArgs, SpanArgs},
    errors::FlagError,
};

/// The texts to work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataConfig {
    pub(crate) path: PathBuf,
    pub(crate) text_fields: TextFields,
    pub(crate) instruction_condition: InstructionCondition,
    pub(crate) label_field: Option<String>,
    pub(crate) source_field: Option<String>,
    pub(crate) max_examples: Option<usize>,
}

/// How a text is cut: the prompt in front, the scored rest behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpanConfig {
    /// Tokens of the prompt, at least one.
    pub(crate) prefix: usize,
    /// Tokens kept of the whole text, more than `prefix`.
    pub(crate) seq_len: usize,
    /// The smallest prefix of the sweep this belongs to: hidden states are kept from there on and serve all prefixes.
    pub(crate) smallest_prefix: usize,
    /// The largest one: texts too short for it are left out, so that all prefixes see the same texts.
    pub(crate) largest_prefix: usize,
}

impl SpanConfig {
    /// Spans that belong to no sweep.
    pub(crate) fn new(prefix: usize, seq_len: usize) -> Self {
        Self {
            prefix,
            seq_len,
            smallest_prefix: prefix,
            largest_prefix: prefix,
        }
    }

    /// The same, refused if nothing is left to score.
    pub(super) fn checked(prefix: usize, seq_len: usize) -> Result<Self, FlagError> {
        if prefix < seq_len {
            Ok(Self::new(prefix, seq_len))
        } else {
            Err(FlagError::NothingToScore { prefix, seq_len })
        }
    }
}

/// Whether the memory of an adapter is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryUse {
    Used,
    LeftOut,
}

pub(super) fn data(mut args: DataArgs) -> DataConfig {
    DataConfig {
        path: std::mem::take(&mut args.data),
        instruction_condition: args.condition_on,
        label_field: args.label_field.take(),
        source_field: args.source_field.take(),
        max_examples: args.max_examples,
        text_fields: text_fields(args),
    }
}

fn text_fields(args: DataArgs) -> TextFields {
    let instruction = InstructionFields::default();
    if let Some(field) = args.text_field {
        TextFields::Text(field)
    } else if let Some(field) = args.messages_field {
        TextFields::Chat(field)
    } else if let (Some(prompt), Some(answer)) = (args.prompt_field, &args.answer_field) {
        TextFields::Answer {
            prompt,
            answer: answer.clone(),
        }
    } else if args.instruction_field.is_some() || args.answer_field.is_some() {
        TextFields::Instruction(InstructionFields {
            instruction: args.instruction_field.unwrap_or(instruction.instruction),
            input: args.input_field,
            output: args.answer_field.unwrap_or(instruction.output),
        })
    } else {
        TextFields::Auto
    }
}

pub(super) fn span(args: &SpanArgs) -> Result<SpanConfig, FlagError> {
    SpanConfig::checked(args.prefix, args.seq_len)
}

pub(super) fn encoding(args: &PromptArgs) -> PromptEncoding {
    PromptEncoding {
        representation: args.representation,
        scaling: if args.standardise {
            ConditionScaling::Standardised
        } else {
            ConditionScaling::Raw
        },
    }
}

pub(super) fn memory_use(arg: &MemoryArg) -> MemoryUse {
    if arg.no_memory {
        MemoryUse::LeftOut
    } else {
        MemoryUse::Used
    }
}
