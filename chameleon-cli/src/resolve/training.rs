//! Checked configs of the commands that train or score.

use std::path::PathBuf;

use chameleon_core::RunSeed;
use chameleon_hypernet::GeneratorKind;
use chameleon_models::adapter::{PromptEncoding, StepsConfig};
use chameleon_models::training::{
    AdapterOptions, Head, HeldOut, MemoryOptions, MemoryStage, Start, TextSource, TrainOptions,
    TrainingConfig,
};

use super::data::{MemoryUse, data, encoding, hidden_states_folder, memory_use, span};
use crate::{
    args::{AdapterShapeArgs, EvalArgs, StepsArgs, TrainArgs, TrainMethod, TrainingArgs},
    errors::FlagError,
};

/// `chameleon train`
#[derive(Debug)]
pub(crate) struct TrainConfig {
    pub(crate) model: String,
    pub(crate) data: TextSource,
    pub(crate) valid: HeldOut,
    pub(crate) out: PathBuf,
    pub(crate) head: Head,
    pub(crate) training: TrainingConfig,
    pub(crate) memory: MemoryStage,
    pub(crate) checkpoint_every: Option<usize>,
    pub(crate) start: Start,
    pub(crate) view: TrainView,
}

/// How the progress of a training is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TrainView {
    /// By a bar.
    Bar,
    /// By a bar and the loss curve.
    Curve,
}

/// `chameleon eval`
#[derive(Debug)]
pub(crate) struct EvalConfig {
    pub(crate) model: String,
    pub(crate) data: TextSource,
    pub(crate) windows: EvalWindows,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) adapter: Option<PathBuf>,
    pub(crate) memory: MemoryUse,
    /// Tokens at the start of a window that are the adapter's condition.
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

pub(super) fn train(args: TrainArgs) -> Result<TrainConfig, FlagError> {
    Ok(TrainConfig {
        model: args.model.model,
        data: data(args.data),
        valid: held_out(args.valid.valid, args.valid.valid_fraction),
        out: args.out,
        head: match args.method {
            TrainMethod::Lora => Head::Lora,
            TrainMethod::Dense => Head::Generated(GeneratorKind::Dense),
            TrainMethod::Core => Head::Generated(GeneratorKind::Core),
            TrainMethod::Attention => Head::Attention,
            TrainMethod::Steps => Head::Steps,
        },
        training: TrainingConfig {
            steps: steps(&args.steps),
            ..training(args.training, args.lr)?
        },
        memory: if args.memory {
            MemoryStage::Build
        } else {
            MemoryStage::Skip
        },
        checkpoint_every: args.checkpoint_every,
        start: start(args.resume),
        view: if args.tui {
            TrainView::Curve
        } else {
            TrainView::Bar
        },
    })
}

pub(super) fn eval(args: EvalArgs) -> Result<EvalConfig, FlagError> {
    let (prefix, context) = (args.prefix, args.context);
    let stride = args.stride.unwrap_or(context);
    if stride > context {
        return Err(FlagError::StrideSkipsTokens { stride, context });
    }
    if args.adapter.adapter.is_some() && prefix >= context {
        return Err(FlagError::PrefixFillsWindow { prefix, context });
    }
    Ok(EvalConfig {
        model: args.model.model,
        data: data(args.data),
        windows: EvalWindows { context, stride },
        max_tokens: args.max_tokens,
        adapter: args.adapter.adapter,
        memory: memory_use(&args.memory),
        prefix,
    })
}

pub(super) fn training(
    args: TrainingArgs,
    learning_rate: f64,
) -> Result<TrainingConfig, FlagError> {
    let optimizer = args.optimizer;
    Ok(TrainingConfig {
        adapter: adapter(args.adapter, encoding(&args.groups.prompts))?,
        num_clusters: args.groups.clusters,
        steps: StepsConfig::default(),
        memory: MemoryOptions {
            layer_idx: args.memory.memory_layer,
            max_entries: args.memory.memory_tokens,
        },
        span: span(&args.span)?,
        batch_size: optimizer.batch_size,
        optimizer: TrainOptions {
            num_epochs: optimizer.epochs,
            learning_rate,
            warmup: optimizer.warmup,
            weight_decay: optimizer.weight_decay,
            max_grad_norm: optimizer.clip,
        },
        cache_dir: hidden_states_folder(args.cache_dir)?,
    })
}

pub(super) fn steps(args: &StepsArgs) -> StepsConfig {
    StepsConfig {
        num_steps: args.inner_steps,
        num_exemplars: args.exemplars,
    }
}

fn adapter(args: AdapterShapeArgs, encoding: PromptEncoding) -> Result<AdapterOptions, FlagError> {
    Ok(AdapterOptions {
        rank: args.rank,
        scale: args
            .alpha
            .map_or(args.scale, |alpha| alpha / args.rank as f64),
        targets: each_once("targets", args.targets, Clone::clone)?,
        layers: args.layers,
        layer_rank: args.layer_rank.unwrap_or(args.rank),
        encoding,
        condition: args.condition,
        hidden_sizes: args.hidden_sizes,
        dropout: args.dropout,
    })
}

pub(super) fn held_out(path: Option<PathBuf>, fraction: f64) -> HeldOut {
    path.map_or(HeldOut::Fraction(fraction), HeldOut::File)
}

pub(super) fn start(resume: bool) -> Start {
    if resume { Start::Resume } else { Start::Fresh }
}

/// The seeds that are named, or `count` of them from the seed of the run on.
pub(super) fn seeds(
    named: Vec<u64>,
    count: usize,
    first: RunSeed,
) -> Result<Vec<RunSeed>, FlagError> {
    let mut seeds = each_once("seeds", named, ToString::to_string)?;
    if seeds.is_empty() {
        seeds.extend((0..count as u64).map(|offset| first.0.wrapping_add(offset)));
    }
    Ok(seeds.into_iter().map(RunSeed).collect())
}

/// Rejects a list that has a value twice.
pub(super) fn each_once<T: PartialEq>(
    flag: &'static str,
    values: Vec<T>,
    name: impl Fn(&T) -> String,
) -> Result<Vec<T>, FlagError> {
    let repeated = (1..values.len()).find(|&idx| values[..idx].contains(&values[idx]));
    match repeated {
        Some(idx) => Err(FlagError::Twice {
            flag,
            value: name(&values[idx]),
        }),
        None => Ok(values),
    }
}
