//! Checked configs of the commands that train or score.

use std::path::PathBuf;

use chameleon_hypernet::Condition;
use chameleon_models::{LayerRange, PromptEncoding, WeightStorage};

use crate::args::{EvalArgs, TrainArgs, TrainMethod, TrainingArgs};

use super::{
    DataConfig, MemoryUse, SpanConfig, adapter,
    checks::{ConfigError, Expected, at_least_one, required, within},
    data, encoding, memory_use, model, span, weights,
};

/// `chameleon train`
#[derive(Debug)]
pub(crate) struct TrainConfig {
    pub(crate) model: String,
    pub(crate) data: DataConfig,
    pub(crate) valid: HeldOut,
    pub(crate) out: PathBuf,
    pub(crate) method: TrainMethod,
    pub(crate) training: TrainingConfig,
    pub(crate) memory: MemoryMaking,
    pub(crate) checkpoint_every: Option<usize>,
    pub(crate) start: Start,
    pub(crate) view: TrainView,
}

/// How a training is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrainView {
    /// By a bar.
    Bar,
    /// On the whole terminal.
    #[cfg(feature = "tui")]
    Dashboard,
}

/// Whether a training begins or goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Fresh,
    Resume,
}

/// Whether a training leaves a memory beside the adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryMaking {
    Made,
    NotMade,
}

/// Texts that are not trained on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum HeldOut {
    /// They are in a file or folder of their own.
    File(PathBuf),
    /// This part of the data is kept aside.
    Fraction(f64),
}

/// `chameleon eval`
#[derive(Debug)]
pub(crate) struct EvalConfig {
    pub(crate) model: String,
    pub(crate) weights: WeightStorage,
    pub(crate) data: DataConfig,
    pub(crate) windows: EvalWindows,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) adapter: Option<PathBuf>,
    pub(crate) memory: MemoryUse,
    /// Tokens at the start of a window that only the adapter looks at.
    pub(crate) prefix: usize,
}

/// How a text is cut into windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EvalWindows {
    /// Tokens in a window, at least two.
    pub(crate) context: usize,
    /// Tokens from one window to the next, `context` at most.
    pub(crate) stride: usize,
}

/// Everything about training that `train` and `compare` share.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TrainingConfig {
    pub(crate) adapter: AdapterConfig,
    pub(crate) num_clusters: usize,
    pub(crate) memory: MemoryFlags,
    pub(crate) span: SpanConfig,
    pub(crate) optimizer: OptimizerConfig,
    pub(crate) cache_dir: Option<PathBuf>,
}

/// The shape of the adapter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AdapterConfig {
    pub(crate) rank: usize,
    /// Multiplies the factors; alpha / rank.
    pub(crate) scale: f64,
    /// Modules inside the layers; the head only if empty.
    pub(crate) targets: Vec<String>,
    /// The layers they are in.
    pub(crate) layers: LayerRange,
    /// Rank of the factors inside the layers.
    pub(crate) layer_rank: usize,
    pub(crate) encoding: PromptEncoding,
    pub(crate) condition: Condition,
    pub(crate) hidden_sizes: Vec<usize>,
    pub(crate) dropout: f64,
}

/// What groups remember.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryFlags {
    /// Two thirds of the way up if nothing is asked for.
    pub(crate) layer_idx: Option<usize>,
    pub(crate) max_entries: usize,
}

/// How the adapter is fitted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OptimizerConfig {
    pub(crate) batch_size: usize,
    pub(crate) num_epochs: usize,
    pub(crate) learning_rate: f64,
    /// Part of all steps in which the learning rate rises.
    pub(crate) warmup: f64,
    pub(crate) weight_decay: f64,
    pub(crate) max_grad_norm: f64,
}

pub(super) fn train(args: TrainArgs) -> Result<TrainConfig, ConfigError> {
    let asked = [
        ("memory-layer", args.training.memory_layer),
        ("memory-tokens", args.training.memory_tokens),
    ];
    if let Some((flag, _)) = asked.iter().find(|(_, value)| value.is_some())
        && !args.memory
    {
        return Err(ConfigError::NoMemory { flag });
    }
    let view = view(&args);
    Ok(TrainConfig {
        model: model(args.model)?,
        data: data(args.data)?,
        valid: held_out(args.valid, "valid-fraction", args.valid_fraction)?,
        out: required(args.out, "out", "the folder for the adapter")?,
        method: args.method.unwrap_or(TrainMethod::Core),
        training: training(args.training, args.lr.unwrap_or(5e-4))?,
        memory: if args.memory {
            MemoryMaking::Made
        } else {
            MemoryMaking::NotMade
        },
        checkpoint_every: args
            .checkpoint_every
            .map(|steps| at_least_one("checkpoint-every", steps))
            .transpose()?,
        start: if args.resume {
            Start::Resume
        } else {
            Start::Fresh
        },
        view,
    })
}

#[cfg(feature = "tui")]
fn view(args: &TrainArgs) -> TrainView {
    if args.tui {
        TrainView::Dashboard
    } else {
        TrainView::Bar
    }
}

#[cfg(not(feature = "tui"))]
fn view(_args: &TrainArgs) -> TrainView {
    TrainView::Bar
}

pub(super) fn eval(args: EvalArgs) -> Result<EvalConfig, ConfigError> {
    let context = at_least_one("context", args.context.unwrap_or(1024))?;
    if context == 1 {
        return Err(ConfigError::ContextTooShort);
    }
    let stride = at_least_one("stride", args.stride.unwrap_or(context))?;
    if stride > context {
        return Err(ConfigError::StrideSkipsTokens { stride, context });
    }
    let prefix = at_least_one("prefix", args.prefix.unwrap_or(32))?;
    if args.adapter.adapter.is_some() && prefix >= context {
        return Err(ConfigError::PrefixFillsWindow { prefix, context });
    }
    Ok(EvalConfig {
        model: model(args.model)?,
        weights: weights(&args.weights),
        data: data(args.data)?,
        windows: EvalWindows { context, stride },
        max_tokens: args
            .max_tokens
            .map(|tokens| at_least_one("max-tokens", tokens))
            .transpose()?,
        adapter: adapter(args.adapter),
        memory: memory_use(&args.memory),
        prefix,
    })
}

pub(super) fn training(
    args: TrainingArgs,
    learning_rate: f64,
) -> Result<TrainingConfig, ConfigError> {
    let rank = at_least_one("rank", args.rank.unwrap_or(4))?;
    let scale = match args.alpha {
        Some(alpha) => within("alpha", alpha, Expected::Finite)? / rank as f64,
        None => within("scale", args.scale.unwrap_or(1.0), Expected::Finite)?,
    };
    for size in &args.hidden_sizes {
        at_least_one("hidden-sizes", *size)?;
    }
    if args.targets.iter().any(String::is_empty) {
        return Err(ConfigError::EmptyEntry { flag: "targets" });
    }
    Ok(TrainingConfig {
        adapter: AdapterConfig {
            rank,
            scale,
            targets: each_once("targets", args.targets, Clone::clone)?,
            layers: args.layers.unwrap_or_default(),
            layer_rank: at_least_one("layer-rank", args.layer_rank.unwrap_or(rank))?,
            encoding: encoding(&args.prompts),
            condition: args.condition.unwrap_or(Condition::Centroid),
            hidden_sizes: or_default(args.hidden_sizes, || vec![64, 32]),
            dropout: within(
                "dropout",
                args.dropout.unwrap_or(0.0),
                Expected::FractionOrZero,
            )?,
        },
        num_clusters: at_least_one("clusters", args.clusters.unwrap_or(8))?,
        memory: MemoryFlags {
            layer_idx: args.memory_layer,
            max_entries: at_least_one("memory-tokens", args.memory_tokens.unwrap_or(1 << 15))?,
        },
        span: span(args.prefix, args.seq_len)?,
        optimizer: OptimizerConfig {
            batch_size: at_least_one("batch-size", args.batch_size.unwrap_or(16))?,
            num_epochs: at_least_one("epochs", args.epochs.unwrap_or(3))?,
            learning_rate: within("lr", learning_rate, Expected::Positive)?,
            warmup: within(
                "warmup",
                args.warmup.unwrap_or(0.05),
                Expected::FractionOrZero,
            )?,
            weight_decay: within(
                "weight-decay",
                args.weight_decay.unwrap_or(0.01),
                Expected::NotNegative,
            )?,
            max_grad_norm: within("clip", args.clip.unwrap_or(1.0), Expected::Positive)?,
        },
        cache_dir: args.cache_dir,
    })
}

pub(super) fn held_out(
    path: Option<PathBuf>,
    flag: &'static str,
    fraction: Option<f64>,
) -> Result<HeldOut, ConfigError> {
    match path {
        Some(path) => Ok(HeldOut::File(path)),
        None => within(flag, fraction.unwrap_or(0.1), Expected::Fraction).map(HeldOut::Fraction),
    }
}

pub(super) fn each_once<T: PartialEq>(
    flag: &'static str,
    values: Vec<T>,
    name: impl Fn(&T) -> String,
) -> Result<Vec<T>, ConfigError> {
    match values
        .iter()
        .enumerate()
        .find(|(idx, value)| values[..*idx].contains(value))
    {
        Some((_, value)) => Err(ConfigError::Twice {
            flag,
            value: name(value),
        }),
        None => Ok(values),
    }
}

pub(super) fn or_default<T>(values: Vec<T>, default: impl FnOnce() -> Vec<T>) -> Vec<T> {
    if values.is_empty() { default() } else { values }
}
