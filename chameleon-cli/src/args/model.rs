//! Flags that name a model and an adapter.

use std::path::PathBuf;

use clap::Args;

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

/// The model to run.
#[derive(Debug, Args)]
pub(crate) struct ModelArg {
    /// Model: a Hugging Face folder, a GGUF file, or a hub id such as `HuggingFaceTB/SmolLM2-135M`
    #[arg(long, value_name = "PATH|GGUF|HUB_ID")]
    pub(crate) model: Option<String>,
}
