//! The checked config of `chameleon serve`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use chameleon_models::WeightStorage;

use super::{ConfigError, Expected, MemoryUse, at_least_one, memory_use, model, weights, within};
use crate::args::{LimitArgs, ServeArgs};

/// `chameleon serve`
#[derive(Debug)]
pub(crate) struct ServeConfig {
    pub(crate) model: String,
    pub(crate) weights: WeightStorage,
    /// What clients call the model.
    pub(crate) name: String,
    pub(crate) adapters: Vec<NamedAdapter>,
    pub(crate) adapter_dir: Option<PathBuf>,
    pub(crate) memory: MemoryUse,
    pub(crate) listen: SocketAddr,
    /// Without any, everybody who reaches the address may ask.
    pub(crate) api_keys: Vec<String>,
    pub(crate) prompt_log: PromptLog,
    pub(crate) limits: ServeLimits,
}

/// An adapter that is there from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamedAdapter {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
}

/// Whether prompts are written to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PromptLog {
    Hidden,
    Shown,
}

/// How much the server takes on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServeLimits {
    pub(crate) max_batch: usize,
    pub(crate) max_queued: usize,
    pub(crate) max_cached_tokens: usize,
    /// What the model takes if `None`.
    pub(crate) max_prompt_tokens: Option<usize>,
    pub(crate) max_new_tokens: usize,
    pub(crate) max_body_bytes: usize,
    pub(crate) max_connections: usize,
    pub(crate) request_timeout: Duration,
    /// For a client that takes none of its answer.
    pub(crate) write_timeout: Duration,
    pub(crate) drain_timeout: Duration,
}

/// The variable that holds a key, where it does not show in a list of processes.
const KEY_VARIABLE: &str = "CHAMELEON_API_KEY";

/// A client that takes nothing for so long has gone, or means no good.
const WRITE_TIMEOUT: Duration = Duration::from_mins(1);

/// Longer than any server runs.
const MAX_SECONDS: f64 = 1e9;

pub(super) fn serve(args: ServeArgs) -> Result<ServeConfig, ConfigError> {
    let model = model(args.model)?;
    let name = args.name.unwrap_or_else(|| last_part(&model));
    if !is_name(&name) {
        return Err(ConfigError::ServedName { name });
    }
    let adapters: Vec<NamedAdapter> = args.adapter.iter().map(|text| named(text)).collect();
    for (idx, adapter) in adapters.iter().enumerate() {
        if adapters[..idx]
            .iter()
            .any(|other| other.name == adapter.name)
        {
            let value = adapter.name.clone();
            return Err(ConfigError::Twice {
                flag: "adapter",
                value,
            });
        }
    }
    let listen = args
        .listen
        .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080)));
    let mut api_keys = args.api_key;
    api_keys.extend(std::env::var(KEY_VARIABLE).ok());
    if api_keys.iter().any(String::is_empty) {
        return Err(ConfigError::EmptyEntry { flag: "api-key" });
    }
    if api_keys.is_empty() && !listen.ip().is_loopback() && !args.insecure_listen {
        return Err(ConfigError::OpenToOthers { listen });
    }
    Ok(ServeConfig {
        model,
        weights: weights(&args.weights),
        name,
        adapters,
        adapter_dir: args.adapter_dir,
        memory: memory_use(&args.memory),
        listen,
        api_keys,
        prompt_log: if args.log_prompts {
            PromptLog::Shown
        } else {
            PromptLog::Hidden
        },
        limits: limits(&args.limits)?,
    })
}

fn limits(args: &LimitArgs) -> Result<ServeLimits, ConfigError> {
    let count = |flag, value: Option<usize>, default| at_least_one(flag, value.unwrap_or(default));
    let seconds = |flag, value: Option<f64>, default| {
        let seconds = within(flag, value.unwrap_or(default), Expected::Positive)?;
        Ok(Duration::from_secs_f64(seconds.min(MAX_SECONDS)))
    };
    Ok(ServeLimits {
        max_batch: count("max-batch", args.max_batch, 32)?,
        max_queued: count("max-queued", args.max_queued, 256)?,
        max_cached_tokens: count("max-cached-tokens", args.max_cached_tokens, 65_536)?,
        max_prompt_tokens: args
            .max_prompt_tokens
            .map(|tokens| at_least_one("max-prompt-tokens", tokens))
            .transpose()?,
        max_new_tokens: count("max-new-tokens", args.max_new_tokens, 1024)?,
        max_body_bytes: count("max-body-bytes", args.max_body_bytes, 1 << 20)?,
        max_connections: count("max-connections", args.max_connections, 1024)?,
        request_timeout: seconds("request-timeout", args.request_timeout, 600.0)?,
        write_timeout: WRITE_TIMEOUT,
        drain_timeout: seconds("drain-timeout", args.drain_timeout, 30.0)?,
    })
}

/// `NAME=DIR`, or a folder that gives its own name.
fn named(text: &str) -> NamedAdapter {
    let (name, folder) = match text.split_once('=') {
        Some((name, folder)) => (name.to_owned(), folder),
        None => (last_part(text), text),
    };
    NamedAdapter {
        name,
        folder: folder.into(),
    }
}

/// The name of a file without `.gguf`, of a folder, or of a hub model without its owner.
fn last_part(path: &str) -> String {
    let path = path.trim_end_matches(['/', '\\']);
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    name.strip_suffix(".gguf").unwrap_or(name).to_owned()
}

/// Names stand in addresses and before a colon.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(is_plain) && name.bytes().any(|b| b != b'.')
}
