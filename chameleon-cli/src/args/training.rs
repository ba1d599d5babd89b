//! Flags of the commands that train or score: `train`, `eval` and `compare`.

use std::path::PathBuf;

use chameleon_hypernet::Condition;
use chameleon_models::adapter::LayerRange;
use chameleon_models::training::Method;
use chameleon_models::training::experiment::TenantMethod;
use clap::{Args, ValueEnum, builder::NonEmptyStringValueParser};

use super::{
    data::{DataArgs, PromptArgs, SpanArgs, ValidArgs},
    model::{AdapterArg, MemoryArg, ModelArg},
    values::{at_least, finite, fraction, fraction_or_zero, method, not_negative, positive},
};

/// `chameleon train`
#[derive(Debug, Args)]
#[command(
    mut_arg("memory_layer", |arg| arg.requires("memory")),
    mut_arg("memory_tokens", |arg| arg.requires("memory")),
)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    /// Folder the adapter is written to
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// What is trained
    #[arg(long, value_enum, value_name = "METHOD", default_value_t = TrainMethod::Core)]
    pub(crate) method: TrainMethod,
    /// Write a memory of each group's training texts, and a fitted gate, beside the adapter
    #[arg(long)]
    pub(crate) memory: bool,
    /// Write a checkpoint every N steps, in addition to the one after each epoch
    #[arg(long, value_name = "N", value_parser = at_least::<1>)]
    pub(crate) checkpoint_every: Option<usize>,
    /// Continue from the last checkpoint in --out
    #[arg(long)]
    pub(crate) resume: bool,
    /// Draw the loss curve above the progress bar while training
    #[arg(long)]
    pub(crate) tui: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) valid: ValidArgs,
    #[command(flatten)]
    pub(crate) training: TrainingArgs,
    #[command(flatten)]
    pub(crate) steps: StepsArgs,
    /// Peak learning rate
    #[arg(
        long,
        value_name = "F",
        value_parser = positive,
        default_value_t = 5e-4,
        help_heading = "Optimizer"
    )]
    pub(crate) lr: f64,
}

/// `chameleon compare`
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    /// Folder the report, the tables and the adapters are written to
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Methods to compare; a hypernetwork adds its controls and its LoRA baselines
    #[arg(
        long,
        value_parser = method(),
        value_delimiter = ',',
        value_name = "METHOD,..",
        default_value = "core-memory"
    )]
    pub(crate) methods: Vec<Method>,
    /// Seeds; each method is trained once with each; --seed if not given
    #[arg(long, value_delimiter = ',', value_name = "N,..")]
    pub(crate) seeds: Vec<u64>,
    /// The same as --seeds with N consecutive seeds, the first of which is --seed
    #[arg(
        long,
        value_name = "N",
        conflicts_with = "seeds",
        value_parser = at_least::<1>,
        default_value_t = 1
    )]
    pub(crate) num_seeds: usize,
    /// Compare at each value of one setting: `prefix=8,16,32` or `group-size=1,4,16`
    #[arg(long, value_name = "SETTING=N,..")]
    pub(crate) sweep: Option<Sweep>,
    /// Continue the comparison in --out; finished runs are kept
    #[arg(long)]
    pub(crate) resume: bool,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) valid: ValidArgs,
    /// Test texts; without them, a part of --data is held out
    #[arg(
        long,
        value_name = "PATH",
        conflicts_with = "test_fraction",
        help_heading = "Data"
    )]
    pub(crate) test: Option<PathBuf>,
    /// Part of --data held out for the test
    #[arg(
        long,
        value_name = "F",
        value_parser = fraction,
        default_value_t = 0.1,
        help_heading = "Data"
    )]
    pub(crate) test_fraction: f64,
    #[command(flatten)]
    pub(crate) training: TrainingArgs,
    #[command(flatten)]
    pub(crate) tenants: TenantArgs,
    /// Peak learning rates that every method tries; the best one and the best epoch are chosen on the validation texts
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "F,..",
        value_parser = positive,
        default_value = "0.0005,0.002,0.008",
        help_heading = "Optimizer"
    )]
    pub(crate) lr: Vec<f64>,
}

/// `chameleon eval`
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    #[command(flatten)]
    pub(crate) adapter: AdapterArg,
    #[command(flatten)]
    pub(crate) memory: MemoryArg,
    /// Tokens in a window
    #[arg(long, value_name = "TOKENS", value_parser = at_least::<2>, default_value_t = 1024)]
    pub(crate) context: usize,
    /// Tokens from the start of one window to the next; below --context, which it is if not given, windows overlap
    #[arg(long, value_name = "TOKENS", value_parser = at_least::<1>)]
    pub(crate) stride: Option<usize>,
    /// Score at most this many tokens
    #[arg(long, value_name = "N", value_parser = at_least::<1>)]
    pub(crate) max_tokens: Option<usize>,
    /// Tokens at the start of each window that form the adapter's prompt; they are not scored
    #[arg(
        long,
        value_name = "TOKENS",
        requires = "adapter",
        value_parser = at_least::<1>,
        default_value_t = 32
    )]
    pub(crate) prefix: usize,
    #[command(flatten)]
    pub(crate) data: DataArgs,
}

/// Flags shared by everything that trains.
#[derive(Debug, Args)]
pub(crate) struct TrainingArgs {
    #[command(flatten)]
    pub(crate) span: SpanArgs,
    #[command(flatten)]
    pub(crate) groups: GroupArgs,
    #[command(flatten)]
    pub(crate) adapter: AdapterShapeArgs,
    #[command(flatten)]
    pub(crate) memory: MemoryShapeArgs,
    #[command(flatten)]
    pub(crate) optimizer: OptimizerArgs,
    /// Where hidden states of the frozen model are cached; the user's cache folder if not given
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
}

/// How prompts are grouped.
#[derive(Debug, Args)]
#[command(next_help_heading = "Groups")]
pub(crate) struct GroupArgs {
    /// Number of groups
    #[arg(long, value_name = "K", value_parser = at_least::<1>, default_value_t = 8)]
    pub(crate) clusters: usize,
    #[command(flatten)]
    pub(crate) prompts: PromptArgs,
}

/// The shape of the adapter.
#[derive(Debug, Args)]
#[command(next_help_heading = "Adapter")]
pub(crate) struct AdapterShapeArgs {
    /// LoRA rank of the head
    #[arg(long, value_name = "N", value_parser = at_least::<1>, default_value_t = 4)]
    pub(crate) rank: usize,
    /// Factor that multiplies the low-rank change
    #[arg(long, value_name = "F", conflicts_with = "alpha", value_parser = finite, default_value_t = 1.0)]
    pub(crate) scale: f64,
    /// LoRA alpha: the same as --scale alpha/rank
    #[arg(long, value_name = "F", value_parser = finite)]
    pub(crate) alpha: Option<f64>,
    /// Linear modules inside the layers that are adapted besides the head, such as `q_proj,v_proj`
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAME,..",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub(crate) targets: Vec<String>,
    /// Layers that --targets adapts, such as 20..30; the layers below them run once and their output is cached
    #[arg(long, value_name = "RANGE", requires = "targets", default_value_t)]
    pub(crate) layers: LayerRange,
    /// LoRA rank inside the layers; --rank if not given
    #[arg(long, value_name = "N", requires = "targets", value_parser = at_least::<1>)]
    pub(crate) layer_rank: Option<usize>,
    /// What the hypernetwork is conditioned on: batch, centroid, prompt, blend or blend:STRENGTH
    #[arg(long, value_name = "KIND", default_value_t = Condition::Centroid)]
    pub(crate) condition: Condition,
    /// Hidden layer sizes of the hypernetwork
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "N,..",
        value_parser = at_least::<1>,
        default_value = "64,32"
    )]
    pub(crate) hidden_sizes: Vec<usize>,
    /// Dropout probability of the hypernetwork
    #[arg(long, value_name = "F", value_parser = fraction_or_zero, default_value_t = 0.0)]
    pub(crate) dropout: f64,
}

/// Exemplars and learned steps.
#[derive(Debug, Args)]
#[command(next_help_heading = "Exemplars of groups by key")]
pub(crate) struct StepsArgs {
    /// Gradient steps that `--method steps` learns
    #[arg(long, value_name = "N", value_parser = at_least::<1>, default_value_t = 4)]
    pub(crate) inner_steps: usize,
    /// Exemplars of a group, for `--method attention` and `--method steps`: the answered requests that it is adapted by
    #[arg(long, value_name = "N", value_parser = at_least::<1>, default_value_t = 16)]
    pub(crate) exemplars: usize,
}

/// A comparison of groups by key.
#[derive(Debug, Args)]
#[command(next_help_heading = "Groups by key")]
pub(crate) struct TenantArgs {
    /// What is compared with --group-field: frozen, frozen-in-context, copy, lora, own-lora, attention or steps-N, the
    /// last two also with `-other-tenant` or `-all-tenants`
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "METHOD,..",
        requires = "group_field"
    )]
    pub(crate) tenant_methods: Vec<TenantMethod>,
    /// Gradient steps that are learned
    #[arg(long, value_name = "N", value_parser = at_least::<1>, default_value_t = 4)]
    pub(crate) inner_steps: usize,
    /// Exemplars of each test group, one table row for each number; the first is the usual number in training
    #[arg(long, value_delimiter = ',', value_name = "N,..", value_parser = at_least::<1>, default_value = "16")]
    pub(crate) exemplars: Vec<usize>,
    /// Requests of each test group that are answered, its last ones
    #[arg(long, value_name = "N", value_parser = at_least::<1>, default_value_t = 12)]
    pub(crate) max_requests: usize,
}

/// The shape of a memory.
#[derive(Debug, Args)]
#[command(next_help_heading = "Memory")]
pub(crate) struct MemoryShapeArgs {
    /// Layer whose input states are the keys of a memory; two thirds of the number of layers if not given
    #[arg(long, value_name = "N")]
    pub(crate) memory_layer: Option<usize>,
    /// Largest number of tokens in a group's memory
    #[arg(long, value_name = "N", value_parser = at_least::<1>, default_value_t = 1 << 15)]
    pub(crate) memory_tokens: usize,
}

/// How the adapter is trained.
#[derive(Debug, Args)]
#[command(next_help_heading = "Optimizer")]
pub(crate) struct OptimizerArgs {
    /// Largest number of texts in a batch
    #[arg(long, value_name = "N", value_parser = at_least::<1>, default_value_t = 16)]
    pub(crate) batch_size: usize,
    /// Passes over the data
    #[arg(long, value_name = "N", value_parser = at_least::<1>, default_value_t = 3)]
    pub(crate) epochs: usize,
    /// Part of all steps in which the learning rate rises to its peak
    #[arg(long, value_name = "F", value_parser = fraction_or_zero, default_value_t = 0.05)]
    pub(crate) warmup: f64,
    /// Weight decay of AdamW
    #[arg(long, value_name = "F", value_parser = not_negative, default_value_t = 0.01)]
    pub(crate) weight_decay: f64,
    /// Gradients are clipped to this norm
    #[arg(long, value_name = "F", value_parser = positive, default_value_t = 1.0)]
    pub(crate) clip: f64,
}

/// What `train` trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TrainMethod {
    /// Plain LoRA, the same for all groups
    Lora,
    /// A hypernetwork that generates both LoRA factors (the paper)
    Dense,
    /// Shared LoRA factors, and a hypernetwork that generates the small matrix between them
    Core,
    /// LoRA, with attention to the exemplars of each group of --group-field
    Attention,
    /// LoRA, adapted to each group of --group-field by a few learned gradient steps on its exemplars
    Steps,
}

/// A setting and its values, one comparison for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sweep {
    pub(crate) setting: SweptSetting,
    /// As typed; each at least 1.
    pub(crate) values: Vec<usize>,
}

/// The setting that a sweep varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SweptSetting {
    /// Tokens of the prompt.
    Prefix,
    /// Texts that share a condition when the test is scored.
    GroupSize,
}

impl SweptSetting {
    /// Every setting.
    pub(crate) const ALL: [Self; 2] = [Self::Prefix, Self::GroupSize];

    /// The name a user types.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Prefix => "prefix",
            Self::GroupSize => "group-size",
        }
    }
}

impl std::str::FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, values) = text
            .split_once('=')
            .ok_or("expected a setting, `=` and values, such as `prefix=8,16,32`")?;
        let setting = SweptSetting::ALL
            .into_iter()
            .find(|setting| setting.name() == name)
            .ok_or_else(|| format!("`{name}` cannot be swept; `prefix` and `group-size` can"))?;
        let values = values
            .split(',')
            .map(|value| at_least::<1>(value.trim()))
            .collect::<Result<_, _>>()?;
        Ok(Self { setting, values })
    }
}
