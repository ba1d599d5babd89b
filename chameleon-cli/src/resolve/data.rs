//! Checked configs of what every command on texts and models shares.

use std::path::PathBuf;

use chameleon_hypernet::ConditionScaling;
use chameleon_models::adapter::PromptEncoding;
use chameleon_models::data::{InstructionFields, LabelField, ReadOptions, TextFields};
use chameleon_models::training::{SpanConfig, TextSource};

use crate::{
    args::{DataArgs, MemoryArg, PromptArgs, SpanArgs},
    errors::FlagError,
};

/// Whether an adapter's memory is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryUse {
    Used,
    LeftOut,
}

pub(super) fn data(mut args: DataArgs) -> TextSource {
    TextSource {
        path: std::mem::take(&mut args.data),
        max_examples: args.max_examples,
        spill_folder: match caches() {
            Some(folder) => folder.join("token-ids"),
            None => std::env::temp_dir(),
        },
        options: ReadOptions {
            instruction_condition: args.condition_on,
            label_field: args
                .label_field
                .take()
                .or_else(|| args.group_field.clone())
                .map_or(LabelField::Auto, LabelField::Named),
            source_field: args.source_field.take().or(args.group_field.take()),
            text_fields: text_fields(args),
            ..ReadOptions::default()
        },
    }
}

/// Where hidden states of the frozen model are cached.
pub(super) fn hidden_states_folder(named: Option<PathBuf>) -> Result<PathBuf, FlagError> {
    named
        .or_else(|| Some(caches()?.join("hidden-states")))
        .ok_or(FlagError::NoCacheFolder)
}

/// The folder of this program in the user's cache folder.
fn caches() -> Option<PathBuf> {
    Some(dirs::cache_dir()?.join("chameleon"))
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
    checked_span(args.prefix, args.seq_len)
}

/// Rejects spans that leave nothing to score.
pub(super) fn checked_span(prefix: usize, seq_len: usize) -> Result<SpanConfig, FlagError> {
    if prefix < seq_len {
        Ok(SpanConfig::new(prefix, seq_len))
    } else {
        Err(FlagError::NothingToScore { prefix, seq_len })
    }
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
