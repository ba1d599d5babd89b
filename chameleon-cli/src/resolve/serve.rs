//! The checked config of `chameleon serve`.

use std::{net::SocketAddr, path::PathBuf};

use super::data::{MemoryUse, memory_use};
use crate::{
    args::{ServeArgs, ServeLimits},
    errors::FlagError,
};

/// `chameleon serve`
#[derive(Debug)]
pub(crate) struct ServeConfig {
    pub(crate) model: String,
    /// What clients call the model.
    pub(crate) name: String,
    pub(crate) adapters: Vec<NamedAdapter>,
    pub(crate) adapter_dir: Option<PathBuf>,
    pub(crate) memory: MemoryUse,
    pub(crate) listen: SocketAddr,
    /// Without any, every client that reaches the address has access.
    pub(crate) api_keys: Vec<String>,
    /// Whether recent answers are kept for feedback.
    pub(crate) remembers_answers: bool,
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

/// The variable that holds a key, where it does not show in a list of processes.
const KEY_VARIABLE: &str = "CHAMELEON_API_KEY";

pub(super) fn serve(args: ServeArgs) -> Result<ServeConfig, FlagError> {
    let model = args.model.model;
    let name = args.name.unwrap_or_else(|| last_part(&model));
    if !is_name(&name) {
        return Err(FlagError::ServedName { name });
    }
    let adapters: Vec<NamedAdapter> = args.adapter.iter().map(|text| named(text)).collect();
    for (idx, adapter) in adapters.iter().enumerate() {
        if adapters[..idx]
            .iter()
            .any(|other| other.name == adapter.name)
        {
            let value = adapter.name.clone();
            return Err(FlagError::Twice {
                flag: "adapter",
                value,
            });
        }
    }
    let listen = args.listen;
    let mut api_keys = args.api_key;
    api_keys.extend(std::env::var(KEY_VARIABLE).ok());
    if api_keys.iter().any(String::is_empty) {
        return Err(FlagError::EmptyKey {
            variable: KEY_VARIABLE,
        });
    }
    if api_keys.is_empty() && !listen.ip().is_loopback() && !args.insecure_listen {
        return Err(FlagError::OpenToOthers { listen });
    }
    Ok(ServeConfig {
        model,
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
        remembers_answers: args.remember_answers,
        limits: args.limits,
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
