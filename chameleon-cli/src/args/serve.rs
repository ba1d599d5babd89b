//! Flags of `chameleon serve`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

use super::{MemoryArg, ModelArg, WeightsArg};

/// `chameleon serve`
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    #[command(flatten)]
    pub(crate) weights: WeightsArg,
    /// Name clients know the model by [default: the last part of --model]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Adapter folder that `chameleon train` wrote, served as `MODEL:NAME`; may be given several times
    #[arg(long, value_name = "[NAME=]DIR")]
    pub(crate) adapter: Vec<String>,
    /// Folder out of which clients may load further adapters; without it they may load none
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) memory: MemoryArg,
    /// Address to listen on; port 0 is any free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Key that clients must present; may be given several times. The variable `CHAMELEON_API_KEY` does the same
    #[arg(long, value_name = "KEY")]
    pub(crate) api_key: Vec<String>,
    /// Listen on an address that others can reach although no key is set
    #[arg(long)]
    pub(crate) insecure_listen: bool,
    /// Write prompts to the log, at `-v`
    #[arg(long)]
    pub(crate) log_prompts: bool,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

/// How much the server takes on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Requests decoded together at most [default: 32]
    #[arg(long, value_name = "N")]
    pub(crate) max_batch: Option<usize>,
    /// Requests that wait at most; one more is refused with 429 [default: 256]
    #[arg(long, value_name = "N")]
    pub(crate) max_queued: Option<usize>,
    /// Tokens whose keys and values are kept at most, over all running requests [default: 65536]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) max_cached_tokens: Option<usize>,
    /// Tokens of a prompt at most [default: what the model takes]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) max_prompt_tokens: Option<usize>,
    /// Tokens of an answer at most, and of a chat answer that names no number [default: 1024]
    #[arg(long, value_name = "TOKENS")]
    pub(crate) max_new_tokens: Option<usize>,
    /// Bytes of a request's body at most [default: 1048576]
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_body_bytes: Option<usize>,
    /// Connections at once at most; further ones wait [default: 1024]
    #[arg(long, value_name = "N")]
    pub(crate) max_connections: Option<usize>,
    /// Seconds a request may take from its first byte to its last [default: 600]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) request_timeout: Option<f64>,
    /// Seconds that running requests get to finish when the server is asked to stop [default: 30]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) drain_timeout: Option<f64>,
}
