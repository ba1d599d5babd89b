//! Flags that name a model and an adapter.

use std::path::PathBuf;

use clap::Args;

/// The model to run.
#[derive(Debug, Args)]
pub(crate) struct ModelArg {
    /// Model: a Hugging Face folder, a GGUF file, or a hub id such as `HuggingFaceTB/SmolLM2-135M`
    #[arg(long, value_name = "PATH|GGUF|HUB_ID")]
    pub(crate) model: String,
}

/// The adapter to use with the model.
#[derive(Debug, Args)]
pub(crate) struct AdapterArg {
    /// Adapter folder written by `chameleon train`
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
}

/// Whether an adapter's memory is used.
#[derive(Debug, Args)]
pub(crate) struct MemoryArg {
    /// Do not use the adapter's memory of its training texts
    #[arg(long)]
    pub(crate) no_memory: bool,
}
