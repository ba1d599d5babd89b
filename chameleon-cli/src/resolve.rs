//! From flags and a config file to one checked config per command.
//!
//! Rules between flags are checked here, so that everything that can be refused without opening a model or a data set
//! is refused before a command starts. What is wrong with one flag alone, clap has refused in `args`.

mod checks;
mod compare;
mod config_file;
mod reproduce;
#[cfg(feature = "serve")]
mod serve;
mod training;

use std::path::PathBuf;

use chameleon_cluster::Engine;
use chameleon_core::{RunSeed, device::DeviceSpec};
use chameleon_hypernet::ConditionScaling;
use chameleon_models::{
    PromptEncoding, RandomSampling, Sampling, WeightStorage,
    data::{InstructionFields, LabelField, ReadOptions, TextFields},
    training::texts::{SpanConfig, TextSource},
};

use crate::{
    args::{
        BatchArgs, Cli, ClusterArgs, Command, DataArgs, DecodingArgs, GenerateArgs, GlobalArgs,
        InfoArgs, MemoryArg, PromptArgs, ScoreArgs, SpanArgs,
    },
    errors::CliError,
    output::{Format, Output},
};

#[cfg(feature = "serve")]
pub(crate) use crate::args::ServeLimits;
pub(crate) use checks::ConfigError;
pub(crate) use compare::CompareConfig;
pub(crate) use config_file::{ConfigFileError, read_flags};
pub(crate) use reproduce::ReproduceConfig;
#[cfg(feature = "serve")]
pub(crate) use serve::{PromptLog, ServeConfig};
pub(crate) use training::{EvalConfig, TrainConfig, TrainView};

/// A command with everything it needs, checked.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) settings: Settings,
    pub(crate) output: Output,
    pub(crate) command: RunConfig,
}

/// What every command needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) device: DeviceSpec,
    pub(crate) seed: RunSeed,
    pub(crate) network: Network,
    /// Threads for computing; as many as there are cores if `None`.
    pub(crate) threads: Option<usize>,
}

/// Whether the network may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Allowed,
    Forbidden,
}

/// The checked config of one command.
#[derive(Debug)]
pub(crate) enum RunConfig {
    Info(InfoArgs),
    Cluster(ClusterConfig),
    Train(TrainConfig),
    Eval(EvalConfig),
    Compare(CompareConfig),
    Reproduce(ReproduceConfig),
    Generate(GenerateConfig),
    Batch(BatchConfig),
    #[cfg(feature = "serve")]
    Serve(ServeConfig),
    Score(ScoreArgs),
    Completions(clap_complete::Shell),
}

/// `chameleon cluster`
#[derive(Debug)]
pub(crate) struct ClusterConfig {
    pub(crate) model: String,
    pub(crate) data: TextSource,
    pub(crate) num_clusters: usize,
    pub(crate) span: SpanConfig,
    pub(crate) encoding: PromptEncoding,
    pub(crate) engine: Engine,
    pub(crate) max_iterations: usize,
    pub(crate) num_nearest: usize,
}

/// Whether what an adapter remembers counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryUse {
    Used,
    LeftOut,
}

/// `chameleon generate`
#[derive(Debug)]
pub(crate) struct GenerateConfig {
    pub(crate) model: String,
    pub(crate) weights: WeightStorage,
    pub(crate) adapter: Option<PathBuf>,
    pub(crate) memory: MemoryUse,
    pub(crate) prompts: PromptSource,
    pub(crate) decoding: DecodingConfig,
}

/// `chameleon batch`
#[derive(Debug)]
pub(crate) struct BatchConfig {
    pub(crate) model: String,
    pub(crate) weights: WeightStorage,
    pub(crate) adapter: Option<PathBuf>,
    pub(crate) memory: MemoryUse,
    pub(crate) data: TextSource,
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

/// Checks the flags of a command.
pub(crate) fn resolve(cli: Cli) -> Result<Run, CliError> {
    let output = output(&cli.global);
    let settings = settings(&cli.global)?;
    let command = match cli.command {
        Command::Info(args) => RunConfig::Info(args),
        Command::Cluster(args) => RunConfig::Cluster(cluster(args)?),
        Command::Train(args) => RunConfig::Train(training::train(args)?),
        Command::Eval(args) => RunConfig::Eval(training::eval(args)?),
        Command::Compare(args) => RunConfig::Compare(compare::compare(args, settings.seed)?),
        Command::Reproduce(args) => {
            RunConfig::Reproduce(reproduce::reproduce(args, settings.seed)?)
        }
        Command::Generate(args) => RunConfig::Generate(generate(args)?),
        Command::Batch(args) => RunConfig::Batch(batch(args)?),
        #[cfg(feature = "serve")]
        Command::Serve(args) => RunConfig::Serve(serve::serve(args)?),
        Command::Score(args) => RunConfig::Score(args),
        Command::Completions(args) => RunConfig::Completions(args.shell),
    };
    Ok(Run {
        settings,
        output,
        command,
    })
}

fn output(global: &GlobalArgs) -> Output {
    let format = if global.json {
        Format::Json
    } else {
        Format::Text
    };
    Output::new(format, global.verbosity)
}

fn settings(global: &GlobalArgs) -> Result<Settings, CliError> {
    let device = match &global.device {
        Some(device) => device.parse()?,
        None => DeviceSpec::preferred()?,
    };
    let network = if global.offline {
        Network::Forbidden
    } else {
        Network::Allowed
    };
    Ok(Settings {
        device,
        seed: RunSeed(global.seed),
        network,
        threads: global.threads,
    })
}

fn cluster(args: ClusterArgs) -> Result<ClusterConfig, ConfigError> {
    Ok(ClusterConfig {
        model: args.model.model,
        data: data(args.data),
        num_clusters: args.clusters,
        span: span(&args.span)?,
        encoding: encoding(&args.prompts),
        engine: args.engine,
        max_iterations: args.max_iterations,
        num_nearest: args.nearest,
    })
}

fn encoding(args: &PromptArgs) -> PromptEncoding {
    PromptEncoding {
        representation: args.representation,
        scaling: if args.standardise {
            ConditionScaling::Standardised
        } else {
            ConditionScaling::Raw
        },
    }
}

fn generate(args: GenerateArgs) -> Result<GenerateConfig, CliError> {
    let prompts = match (args.file, args.prompts) {
        (Some(file), _) => PromptSource::File(file),
        (None, prompts) if prompts.is_empty() => PromptSource::StandardInput,
        (None, prompts) => PromptSource::Arguments(prompts),
    };
    Ok(GenerateConfig {
        model: args.model.model,
        weights: args.weights.weights,
        adapter: args.adapter.adapter,
        memory: memory_use(&args.memory),
        prompts,
        decoding: decoding(args.decoding, args.batch_size)?,
    })
}

fn batch(args: BatchArgs) -> Result<BatchConfig, CliError> {
    Ok(BatchConfig {
        model: args.model.model,
        weights: args.weights.weights,
        adapter: args.adapter.adapter,
        memory: memory_use(&args.memory),
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

fn memory_use(arg: &MemoryArg) -> MemoryUse {
    if arg.no_memory {
        MemoryUse::LeftOut
    } else {
        MemoryUse::Used
    }
}

fn data(mut args: DataArgs) -> TextSource {
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
                .map_or(LabelField::Auto, LabelField::Named),
            source_field: args.source_field.take(),
            text_fields: text_fields(args),
            ..ReadOptions::default()
        },
    }
}

/// Where hidden states of the frozen model are kept.
fn hidden_states_folder(named: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    named
        .or_else(|| Some(caches()?.join("hidden-states")))
        .ok_or(ConfigError::NoCacheFolder)
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

fn span(args: &SpanArgs) -> Result<SpanConfig, ConfigError> {
    checked_span(args.prefix, args.seq_len)
}

/// Refuses spans that leave nothing to score.
fn checked_span(prefix: usize, seq_len: usize) -> Result<SpanConfig, ConfigError> {
    if prefix < seq_len {
        Ok(SpanConfig::new(prefix, seq_len))
    } else {
        Err(ConfigError::NothingToScore { prefix, seq_len })
    }
}

#[cfg(test)]
mod tests;
