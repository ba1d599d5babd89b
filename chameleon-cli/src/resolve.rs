//! From raw flags and a config file to one checked config per command.
//!
//! Everything that can be refused without opening a model or a data set is refused here, so that commands start only
//! with values that make sense together.

mod checks;
mod compare;
mod config_file;
mod reproduce;
#[cfg(feature = "serve")]
mod serve;
mod training;

use std::path::PathBuf;

use chameleon_core::{DeviceSpec, RunSeed};
use chameleon_hypernet::ConditionScaling;
use chameleon_models::{
    PromptEncoding, WeightStorage,
    data::{InstructionCondition, InstructionFields, TextFields},
    training::text_metrics::Stemming,
};

use crate::{
    args::{
        AdapterArg, BatchArgs, Cli, ClusterArgs, Command, ConditionPart, DataArgs, DecodingArgs,
        EngineKind, GenerateArgs, GlobalArgs, InfoArgs, MemoryArg, ModelArg, PromptArgs, ScoreArgs,
        Weights, WeightsArg,
    },
    errors::CliError,
    output::{Format, Output},
};

use checks::{Expected, at_least_one, required, within};

pub(crate) use checks::ConfigError;
pub(crate) use compare::CompareConfig;
pub(crate) use config_file::{ConfigFileError, read_flags};
pub(crate) use reproduce::ReproduceConfig;
#[cfg(feature = "serve")]
pub(crate) use serve::{PromptLog, ServeConfig, ServeLimits};
pub(crate) use training::{
    AdapterConfig, EvalConfig, HeldOut, MemoryMaking, Start, TrainConfig, TrainView, TrainingConfig,
};

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
    Info(InfoConfig),
    Cluster(ClusterConfig),
    Train(TrainConfig),
    Eval(EvalConfig),
    Compare(CompareConfig),
    Reproduce(ReproduceConfig),
    Generate(GenerateConfig),
    Batch(BatchConfig),
    #[cfg(feature = "serve")]
    Serve(ServeConfig),
    Score(ScoreConfig),
    Completions(clap_complete::Shell),
}

/// `chameleon score`
#[derive(Debug)]
pub(crate) struct ScoreConfig {
    pub(crate) predictions: PathBuf,
    pub(crate) references: PathBuf,
    pub(crate) prediction_field: String,
    pub(crate) reference_field: String,
    pub(crate) stemming: Stemming,
}

/// `chameleon info`
#[derive(Debug)]
pub(crate) struct InfoConfig {
    pub(crate) model: Option<String>,
    pub(crate) adapter: Option<PathBuf>,
}

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
}

/// `chameleon cluster`
#[derive(Debug)]
pub(crate) struct ClusterConfig {
    pub(crate) model: String,
    pub(crate) data: DataConfig,
    pub(crate) num_clusters: usize,
    pub(crate) span: SpanConfig,
    pub(crate) encoding: PromptEncoding,
    pub(crate) engine: EngineKind,
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
    pub(crate) data: DataConfig,
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

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Sampling {
    Greedy,
    Sample {
        temperature: f64,
        top_k: Option<usize>,
        top_p: Option<f64>,
    },
}

/// Checks the flags of a command.
pub(crate) fn resolve(cli: Cli) -> Result<Run, CliError> {
    let output = output(&cli.global);
    let settings = settings(&cli.global)?;
    let command = match cli.command {
        Command::Info(args) => RunConfig::Info(info(args)),
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
        Command::Score(args) => RunConfig::Score(score(args)?),
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
    let threads = global
        .threads
        .map(|threads| at_least_one("threads", threads))
        .transpose()?;
    Ok(Settings {
        device,
        seed: RunSeed(global.seed.unwrap_or(1)),
        network,
        threads,
    })
}

fn info(args: InfoArgs) -> InfoConfig {
    InfoConfig {
        model: args.model.model,
        adapter: args.adapter.adapter,
    }
}

fn cluster(args: ClusterArgs) -> Result<ClusterConfig, ConfigError> {
    Ok(ClusterConfig {
        model: model(args.model)?,
        data: data(args.data)?,
        num_clusters: at_least_one(
            "clusters",
            required(args.clusters, "clusters", "the number of groups")?,
        )?,
        span: span(args.prefix, args.seq_len)?,
        encoding: encoding(&args.prompts),
        engine: args.engine.unwrap_or(EngineKind::Burn),
        max_iterations: at_least_one("max-iterations", args.max_iterations.unwrap_or(50))?,
        num_nearest: args.nearest.unwrap_or(3),
    })
}

fn encoding(args: &PromptArgs) -> PromptEncoding {
    PromptEncoding {
        representation: args.representation.unwrap_or_default(),
        scaling: if args.standardise {
            ConditionScaling::Standardised
        } else {
            ConditionScaling::Raw
        },
    }
}

fn generate(args: GenerateArgs) -> Result<GenerateConfig, ConfigError> {
    let prompts = match (args.file, args.prompts) {
        (Some(file), _) => PromptSource::File(file),
        (None, prompts) if prompts.is_empty() => PromptSource::StandardInput,
        (None, prompts) => PromptSource::Arguments(prompts),
    };
    Ok(GenerateConfig {
        model: model(args.model)?,
        weights: weights(&args.weights),
        adapter: adapter(args.adapter),
        memory: memory_use(&args.memory),
        prompts,
        decoding: decoding(args.decoding, args.batch_size.unwrap_or(8))?,
    })
}

fn batch(args: BatchArgs) -> Result<BatchConfig, ConfigError> {
    Ok(BatchConfig {
        model: model(args.model)?,
        weights: weights(&args.weights),
        adapter: adapter(args.adapter),
        memory: memory_use(&args.memory),
        data: data(args.data)?,
        out: required(args.out, "out", "a file for the answers")?,
        decoding: decoding(args.decoding, args.batch_size.unwrap_or(32))?,
    })
}

fn decoding(args: DecodingArgs, batch_size: usize) -> Result<DecodingConfig, ConfigError> {
    let sampling = if args.greedy {
        Sampling::Greedy
    } else {
        Sampling::Sample {
            temperature: within(
                "temperature",
                args.temperature.unwrap_or(0.8),
                Expected::Temperature,
            )?,
            top_k: args
                .top_k
                .map(|top_k| at_least_one("top-k", top_k))
                .transpose()?,
            top_p: args
                .top_p
                .map(|top_p| within("top-p", top_p, Expected::Probability))
                .transpose()?,
        }
    };
    if args.stop.iter().any(String::is_empty) {
        return Err(ConfigError::EmptyStop);
    }
    Ok(DecodingConfig {
        template: if args.chat {
            Template::Chat
        } else {
            Template::Plain
        },
        sampling,
        max_new_tokens: at_least_one("max-new-tokens", args.max_new_tokens.unwrap_or(64))?,
        stop: args.stop,
        batch_size: at_least_one("batch-size", batch_size)?,
    })
}

fn weights(arg: &WeightsArg) -> WeightStorage {
    match arg.weights {
        None | Some(Weights::Numbers) => WeightStorage::F32,
        Some(Weights::Packed) => WeightStorage::Packed,
    }
}

fn model(arg: ModelArg) -> Result<String, ConfigError> {
    required(arg.model, "model", "a model")
}

fn adapter(arg: AdapterArg) -> Option<PathBuf> {
    arg.adapter
}

fn memory_use(arg: &MemoryArg) -> MemoryUse {
    if arg.no_memory {
        MemoryUse::LeftOut
    } else {
        MemoryUse::Used
    }
}

fn data(mut args: DataArgs) -> Result<DataConfig, ConfigError> {
    Ok(DataConfig {
        path: required(args.data.take(), "data", "texts")?,
        instruction_condition: match args.condition_on {
            Some(ConditionPart::Task) => InstructionCondition::Task,
            Some(ConditionPart::TaskAndInput) | None => InstructionCondition::TaskAndInput,
        },
        label_field: args.label_field.take(),
        source_field: args.source_field.take(),
        max_examples: args
            .max_examples
            .map(|count| at_least_one("max-examples", count))
            .transpose()?,
        text_fields: text_fields(args),
    })
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
            input: args.input_field.unwrap_or(instruction.input),
            output: args.answer_field.unwrap_or(instruction.output),
        })
    } else {
        TextFields::Auto
    }
}

fn score(args: ScoreArgs) -> Result<ScoreConfig, ConfigError> {
    let field = |field: Option<String>| field.unwrap_or_else(|| "text".to_owned());
    Ok(ScoreConfig {
        predictions: required(args.predictions, "predictions", "answers")?,
        references: required(args.references, "references", "reference answers")?,
        prediction_field: field(args.prediction_field),
        reference_field: field(args.reference_field),
        stemming: if args.stem {
            Stemming::Porter
        } else {
            Stemming::Off
        },
    })
}

fn span(prefix: Option<usize>, seq_len: Option<usize>) -> Result<SpanConfig, ConfigError> {
    let prefix = at_least_one("prefix", prefix.unwrap_or(32))?;
    let seq_len = at_least_one("seq-len", seq_len.unwrap_or(128))?;
    if prefix >= seq_len {
        return Err(ConfigError::NothingToScore { prefix, seq_len });
    }
    Ok(SpanConfig::new(prefix, seq_len))
}

#[cfg(test)]
mod tests;
