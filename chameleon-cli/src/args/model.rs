//! Flags that name a model and an adapter.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// The adapter to put on the model.
#[derive(Debug, Args)]
pub(crate) struct AdapterArg {
    /// Adapter folder that `chameleon train` wrote
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
}

/// Whether an adapter's memory counts.
#[derive(Debug, Args)]
pub(crate) struct MemoryArg {
    /// Leave out what the adapter remembers of its training texts
    #[arg(long)]
    pub(crate) no_memory: bool,
}

/// How the model's weights are held.
#[derive(Debug, Args)]
pub(crate) struct WeightsArg {
    /// How weights are held while the model runs [default: numbers]
    #[arg(long, value_name = "HOW")]
    pub(crate) weights: Option<Weights>,
}

/// See [`WeightsArg`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Weights {
    /// As 32-bit numbers
    Numbers,
    /// As a GGUF file packs them: less memory, faster decoding, answers a little different
    Packed,
}

/// The model to run.
#[derive(Debug, Args)]
pub(crate) struct ModelArg {
    /// Model: a Hugging Face folder, a GGUF file, or a hub id such as `HuggingFaceTB/SmolLM2-135M`
    #[arg(long, value_name = "PATH|GGUF|HUB_ID")]
    pub(crate) model: Option<String>,
}
