//! Flags of `chameleon serve`.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, builder::NonEmptyStringValueParser};

use super::{
    model::{MemoryArg, ModelArg},
    values::{at_least, seconds},
};

/// `chameleon serve`
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    /// Name of the model in requests; the last part of --model if not given
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Adapter folder written by `chameleon train`, served as `MODEL:NAME`; may be given several times
    #[arg(long, value_name = "[NAME=]DIR")]
    pub(crate) adapter: Vec<String>,
    /// Folder from which clients may load further adapters; without it, clients may load none
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) memory: MemoryArg,
    /// Address to listen on; port 0 picks a free one
    #[arg(long, value_name = "IP:PORT", default_value_t = LISTEN)]
    pub(crate) listen: SocketAddr,
    /// API key that clients must send; may be given several times, or once in the variable `CHAMELEON_API_KEY`
    #[arg(long, value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) api_key: Vec<String>,
    /// Allow a --listen address that other machines can reach without an API key
    #[arg(long)]
    pub(crate) insecure_listen: bool,
    /// Write prompts to the log, at `-v`
    #[arg(long)]
    pub(crate) log_prompts: bool,
    /// Keep recent answers to requests with a group in memory, so that feedback can make them examples of the group
    #[arg(long)]
    pub(crate) remember_answers: bool,
    #[command(flatten)]
    pub(crate) limits: ServeLimits,
}

const LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8080));

/// How much the server accepts.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct ServeLimits {
    /// Largest number of requests decoded together
    #[arg(long, value_name = "N", value_parser = at_least::<1>, default_value_t = 32)]
    pub(crate) max_batch: usize,
    /// Largest number of waiting requests; further ones are refused with status 429
    #[arg(long, value_name = "N", value_parser = at_least::<1>, default_value_t = 256)]
    pub(crate) max_queued: usize,
    /// Largest number of tokens in the KV cache, over all running requests
    #[arg(long, value_name = "TOKENS", value_parser = at_least::<1>, default_value_t = 65_536)]
    pub(crate) max_cached_tokens: usize,
    /// Largest number of tokens in a prompt; the context length of the model if not given
    #[arg(long, value_name = "TOKENS", value_parser = at_least::<1>)]
    pub(crate) max_prompt_tokens: Option<usize>,
    /// Largest number of tokens in an answer, and the limit of a chat request that sets none
    #[arg(long, value_name = "TOKENS", value_parser = at_least::<1>, default_value_t = 1024)]
    pub(crate) max_new_tokens: usize,
    /// Largest request body, in bytes
    #[arg(long, value_name = "BYTES", value_parser = at_least::<1>, default_value_t = 1 << 20)]
    pub(crate) max_body_bytes: usize,
    /// Largest number of open connections; further ones wait
    #[arg(long, value_name = "N", value_parser = at_least::<1>, default_value_t = 1024)]
    pub(crate) max_connections: usize,
    /// Seconds from the first byte of a request to the last byte of its response
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "600")]
    pub(crate) request_timeout: Duration,
    /// Longest time in which a client may accept none of its response; then it is gone or malicious.
    #[arg(skip = Duration::from_mins(1))]
    pub(crate) write_timeout: Duration,
    /// Seconds that running requests get to finish when the server is asked to stop
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "30")]
    pub(crate) drain_timeout: Duration,
}
