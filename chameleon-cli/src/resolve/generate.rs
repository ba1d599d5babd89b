//! Checked configs of the commands that answer prompts.

use std::path::PathBuf;

use chameleon_models::engine::{RandomSampling, Sampling};
use chameleon_models::training::TextSource;

use super::data::{MemoryUse, data, memory_use};
use crate::{
    args::{BatchArgs, DecodingArgs, GenerateArgs},
    errors::CliError,
};

/// `chameleon generate`
#[derive(Debug)]
pub(crate) struct GenerateConfig {
    pub(crate) model: String,
    pub(crate) adapter: Option<PathBuf>,
    pub(crate) memory: MemoryUse,
    pub(crate) group: Option<String>,
    pub(crate) prompts: PromptSource,
    pub(crate) decoding: DecodingConfig,
}

/// `chameleon batch`
#[derive(Debug)]
pub(crate) struct BatchConfig {
    pub(crate) model: String,
    pub(crate) adapter: Option<PathBuf>,
    pub(crate) memory: MemoryUse,
    pub(crate) data: TextSource,
    /// Whether each prompt belongs to the group that its field of groups names.
    pub(crate) has_groups: bool,
    pub(crate) out: PathBuf,
    pub(crate) decoding: DecodingConfig,
}

/// How answers are written.
#[derive(Debug)]
pub(crate) struct DecodingConfig {
    pub(crate) template: Template,
    pub(crate) sampling: Sampling,
    pub(crate) max_new_tokens: usize,
    pub(crate) stop: Vec<String>,
    pub(crate) batch_size: usize,
}

/// Where prompts come from.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PromptSource {
    Arguments(Vec<String>),
    File(PathBuf),
    StandardInput,
}

/// What is put around a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Template {
    Plain,
    Chat,
}

pub(super) fn generate(args: GenerateArgs) -> Result<GenerateConfig, CliError> {
    let prompts = match (args.file, args.prompts) {
        (Some(file), _) => PromptSource::File(file),
        (None, prompts) if prompts.is_empty() => PromptSource::StandardInput,
        (None, prompts) => PromptSource::Arguments(prompts),
    };
    Ok(GenerateConfig {
        model: args.model.model,
        adapter: args.adapter.adapter,
        memory: memory_use(&args.memory),
        group: args.group,
        prompts,
        decoding: decoding(args.decoding, args.batch_size)?,
    })
}

pub(super) fn batch(args: BatchArgs) -> Result<BatchConfig, CliError> {
    Ok(BatchConfig {
        model: args.model.model,
        adapter: args.adapter.adapter,
        memory: memory_use(&args.memory),
        has_groups: args.data.group_field.is_some(),
        data: data(args.data),
        out: args.out,
        decoding: decoding(args.decoding, args.batch_size)?,
    })
}

fn decoding(args: DecodingArgs, batch_size: usize) -> Result<DecodingConfig, CliError> {
    Ok(DecodingConfig {
        template: if args.chat {
            Template::Chat
        } else {
            Template::Plain
        },
        sampling: sampling(&args)?,
        max_new_tokens: args.max_new_tokens,
        stop: args.stop,
        batch_size,
    })
}

fn sampling(args: &DecodingArgs) -> Result<Sampling, CliError> {
    if args.greedy {
        return Ok(Sampling::Greedy);
    }
    let mut random = RandomSampling::new(args.temperature)?;
    if let Some(top_k) = args.top_k {
        random = random.with_top_k(top_k)?;
    }
    if let Some(top_p) = args.top_p {
        random = random.with_top_p(top_p)?;
    }
    Ok(Sampling::Random(random))
}
