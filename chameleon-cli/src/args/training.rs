//! Flags of the commands that train or score: `train`, `eval` and `compare`.

use std::path::PathBuf;

use chameleon_hypernet::Condition;
use chameleon_models::LayerRange;
use clap::{Args, ValueEnum};

use super::{AdapterArg, DataArgs, MemoryArg, ModelArg, PromptArgs, WeightsArg};

/// `chameleon train`
#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Texts to validate on; without them a part of --data is kept aside
    #[arg(long, value_name = "PATH", conflicts_with = "valid_fraction")]
    pub(crate) valid: Option<PathBuf>,
    /// Part of --data kept aside to validate on [default: 0.1]
    #[arg(long, value_name = "F")]
    pub(crate) valid_fraction: Option<f64>,
    /// Folder the adapter is written to
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// What is trained [default: core]
    #[arg(long, value_enum, value_name = "METHOD")]
    pub(crate) method: Option<TrainMethod>,
    #[command(flatten)]
    pub(crate) training: TrainingArgs,
    /// Keep what each group's training texts said beside the adapter, and how much it counts
    #[arg(long)]
    pub(crate) memory: bool,
    /// Highest learning rate [default: 0.0005]
    #[arg(long, value_name = "F")]
    pub(crate) lr: Option<f64>,
    /// Write a checkpoint every N steps, besides the one after each epoch
    #[arg(long, value_name = "N")]
    pub(crate) checkpoint_every: Option<usize>,
    /// Go on from the last checkpoint in --out
    #[arg(long)]
    pub(crate) resume: bool,
    /// Draw learning curves, speed and the time left on the whole terminal while training
    #[cfg(feature = "tui")]
    #[arg(long)]
    pub(crate) tui: bool,
}

/// `chameleon compare`
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Texts to choose by; without them a part of --data is kept aside
    #[arg(long, value_name = "PATH", conflicts_with = "valid_fraction")]
    pub(crate) valid: Option<PathBuf>,
    /// Part of --data kept aside to choose by [default: 0.1]
    #[arg(long, value_name = "F")]
    pub(crate) valid_fraction: Option<f64>,
    /// Texts to test on; without them a part of --data is kept aside
    #[arg(long, value_name = "PATH", conflicts_with = "test_fraction")]
    pub(crate) test: Option<PathBuf>,
    /// Part of --data kept aside to test on [default: 0.1]
    #[arg(long, value_name = "F")]
    pub(crate) test_fraction: Option<f64>,
    /// Folder the report, the tables and the adapters are written to
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// What is compared; a hypernetwork brings its controls and its LoRA along [default: core-memory]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "METHOD,..")]
    pub(crate) methods: Vec<CompareMethod>,
    /// Each method is trained once per seed [default: --seed]
    #[arg(long, value_delimiter = ',', value_name = "N,..")]
    pub(crate) seeds: Vec<u64>,
    /// The same as --seeds with N seeds from --seed on
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    pub(crate) num_seeds: Option<usize>,
    /// Learning rates that every method tries; its best one and its best epoch are chosen on the validation texts
    /// [default: 0.0005,0.002,0.008]
    #[arg(long, value_delimiter = ',', value_name = "F,..")]
    pub(crate) lr: Vec<f64>,
    #[command(flatten)]
    pub(crate) training: TrainingArgs,
    /// Compare at each value of one setting: `prefix=8,16,32` or `group-size=1,4,16`
    #[arg(long, value_name = "SETTING=N,..")]
    pub(crate) sweep: Option<Sweep>,
    /// Go on with the comparison in --out: runs that are finished are kept
    #[arg(long)]
    pub(crate) resume: bool,
}

/// `chameleon eval`
#[derive(Debug, Args)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    #[command(flatten)]
    pub(crate) weights: WeightsArg,
    #[command(flatten)]
    pub(crate) adapter: AdapterArg,
    #[command(flatten)]
    pub(crate) memory: MemoryArg,
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// Tokens the model sees at once [default: 1024]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) context: Option<usize>,
    /// Tokens from one window to the next; below --context the windows overlap [default: --context]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) stride: Option<usize>,
    /// Tokens scored at most
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<usize>,
    /// Tokens at the start of each window that an adapter looks at and that are not scored [default: 32]
    #[arg(long, value_name = "TOKENS", requires = "adapter")]
    pub(crate) prefix: Option<usize>,
}

/// Flags shared by everything that trains.
#[derive(Debug, Args)]
pub(crate) struct TrainingArgs {
    /// Rank of the factors [default: 4]
    #[arg(long, value_name = "N")]
    pub(crate) rank: Option<usize>,
    /// Multiplies the factors directly [default: 1]
    #[arg(long, value_name = "F", conflicts_with = "alpha")]
    pub(crate) scale: Option<f64>,
    /// The same as `--scale` set to alpha / rank
    #[arg(long, value_name = "F", conflicts_with = "scale")]
    pub(crate) alpha: Option<f64>,
    /// Modules inside the layers that are adapted besides the head, such as `q_proj,v_proj` [default: none]
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    pub(crate) targets: Vec<String>,
    /// Layers whose modules are adapted, such as 20..30; what lies below runs once and is kept [default: all]
    #[arg(long, value_name = "RANGE", requires = "targets")]
    pub(crate) layers: Option<LayerRange>,
    /// Rank of the factors inside the layers [default: --rank]
    #[arg(long, value_name = "N", requires = "targets")]
    pub(crate) layer_rank: Option<usize>,
    #[command(flatten)]
    pub(crate) prompts: PromptArgs,
    /// Number of groups [default: 8]
    #[arg(long, value_name = "K")]
    pub(crate) clusters: Option<usize>,
    /// What the hypernetwork sees of a group: batch, centroid, prompt, blend or blend:STRENGTH [default: centroid]
    #[arg(long, value_name = "KIND")]
    pub(crate) condition: Option<Condition>,
    /// Layer whose incoming states tell the places of a memory apart [default: two thirds of all]
    #[arg(long, value_name = "N")]
    pub(crate) memory_layer: Option<usize>,
    /// Tokens that a group remembers at most [default: 32768]
    #[arg(long, value_name = "N")]
    pub(crate) memory_tokens: Option<usize>,
    /// Widths of the hypernetwork [default: 64,32]
    #[arg(long, value_delimiter = ',', value_name = "N,..")]
    pub(crate) hidden_sizes: Vec<usize>,
    /// Part of the hypernetwork switched off at random in training [default: 0]
    #[arg(long, value_name = "F")]
    pub(crate) dropout: Option<f64>,
    /// Tokens at the start of each text that make its prompt; they are never scored [default: 32]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) prefix: Option<usize>,
    /// Tokens kept of each text [default: 128]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) seq_len: Option<usize>,
    /// Texts in a batch at most [default: 16]
    #[arg(long, value_name = "N")]
    pub(crate) batch_size: Option<usize>,
    /// Passes over the data [default: 3]
    #[arg(long, value_name = "N")]
    pub(crate) epochs: Option<usize>,
    /// Part of all steps in which the learning rate rises [default: 0.05]
    #[arg(long, value_name = "F")]
    pub(crate) warmup: Option<f64>,
    /// Weight decay of AdamW [default: 0.01]
    #[arg(long, value_name = "F")]
    pub(crate) weight_decay: Option<f64>,
    /// Largest norm of the gradient [default: 1]
    #[arg(long, value_name = "F")]
    pub(crate) clip: Option<f64>,
    /// Where hidden states of the frozen model are kept [default: the user's cache folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
}

/// What `train` trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TrainMethod {
    /// Plain LoRA, the same for every group
    Lora,
    /// A hypernetwork that writes all numbers of both factors (the paper)
    Dense,
    /// Learned factors and a hypernetwork that writes the small core between them
    Core,
}

/// What `compare` compares, in the order of its tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum CompareMethod {
    /// The model as it is
    Frozen,
    /// LoRA of the same rank
    Lora,
    /// `lora` with what each group remembers of its texts
    LoraMemory,
    /// `lora` with the memories of other groups
    LoraMemoryShuffled,
    /// `lora` with one memory of all groups
    LoraMemoryConstant,
    /// LoRA with as many trained numbers as `core`
    LoraEqual,
    /// LoRA with as many trained numbers as `dense`
    LoraEqualDense,
    /// One LoRA for each group
    Experts,
    /// The dense hypernetwork
    Dense,
    /// `dense` with the conditions of other groups
    DenseShuffled,
    /// `dense` with one condition for all groups
    DenseConstant,
    /// The core hypernetwork
    Core,
    /// `core` with the conditions of other groups
    CoreShuffled,
    /// `core` with one condition for all groups
    CoreConstant,
    /// `core` with what each group remembers of its texts
    CoreMemory,
    /// `core` with the memories of other groups
    CoreMemoryShuffled,
    /// `core` with one memory of all groups
    CoreMemoryConstant,
}

/// A setting and the values it takes, one comparison each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sweep {
    pub(crate) setting: SweptSetting,
    /// As typed, unchecked.
    pub(crate) values: Vec<usize>,
}

/// What a sweep changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SweptSetting {
    /// Tokens of the prompt
    Prefix,
    /// Texts that share a condition when the test is scored
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
            .map(|value| {
                value
                    .trim()
                    .parse()
                    .map_err(|_| format!("`{value}` is not a whole number"))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { setting, values })
    }
}
