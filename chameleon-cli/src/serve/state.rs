//! The state shared by all requests.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use axum::http::StatusCode;
use chameleon_core::RunSeed;
use chameleon_models::adapter::Adapter;
use chameleon_models::engine::{Engine, EngineError, GroupExemplarSource};
use chameleon_models::{CausalLm as _, ChatTemplate, ModelError, Tokenizer};
use tokio::sync::Semaphore;

use super::{
    adapter_folder::AdapterFolder, adapter_record::AdapterRecord, auth::Access, error::ApiError,
    metrics::Metrics, recent_answers::RecentAnswers,
};
use crate::resolve::{MemoryUse, PromptLog, ServeLimits};

/// Adapters loaded at most: loading cannot exhaust the memory.
const MAX_ADAPTERS: usize = 64;

/// The parts of a server.
#[derive(Debug)]
pub(crate) struct ServerParts {
    pub(crate) engine: Engine,
    /// The name of the model for clients.
    pub(crate) name: String,
    pub(crate) adapter_dir: Option<PathBuf>,
    /// Whether the memories of adapters are used.
    pub(crate) memory: MemoryUse,
    pub(crate) access: Access,
    pub(crate) limits: ServeLimits,
    pub(crate) seed: RunSeed,
    pub(crate) prompt_log: PromptLog,
    /// Whether recent answers are kept, so that feedback can make them examples.
    pub(crate) remembers_answers: bool,
}

/// A server: one engine and everything around it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) engine: Engine,
    pub(crate) name: String,
    pub(crate) access: Access,
    pub(crate) limits: ServeLimits,
    pub(crate) prompt_log: PromptLog,
    /// Answers that feedback can make examples, if they are kept.
    pub(crate) recent_answers: Option<RecentAnswers>,
    pub(crate) adapter_folder: Option<AdapterFolder>,
    pub(crate) memory: MemoryUse,
    pub(crate) chat: Option<Chat>,
    pub(crate) metrics: Metrics,
    /// Permits for work that keeps a core busy: tokenising, embedding, loading.
    pub(crate) cores: std::sync::Arc<Semaphore>,
    /// Seconds since 1970 at the start.
    pub(crate) created: u64,
    pub(crate) started: Instant,
    seed: RunSeed,
    next_id: AtomicU64,
    is_draining: AtomicBool,
    adapters: Mutex<BTreeMap<String, AdapterRecord>>,
}

/// How conversations become text.
#[derive(Debug)]
pub(crate) struct Chat {
    pub(crate) template: ChatTemplate,
    pub(crate) bos_token: String,
    pub(crate) eos_token: String,
}

/// The model that answers: the base model, or one with an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelChoice {
    /// The name that the client sent.
    pub(crate) id: String,
    pub(crate) adapter: Option<String>,
}

/// The id of an answer, and its default seed.
#[derive(Debug, Clone)]
pub(crate) struct AnswerId {
    pub(crate) text: String,
    /// For requests without a seed.
    pub(crate) seed: RunSeed,
}

impl Server {
    /// Puts a server together.
    ///
    /// # Errors
    ///
    /// If the model's chat template is not valid, or the folder of adapters is missing.
    pub(crate) fn new(parts: ServerParts) -> Result<Self, crate::errors::CliError> {
        let loaded = parts.engine.model();
        let chat = loaded
            .chat_template
            .as_deref()
            .map(|template| Chat::new(template, &loaded.tokenizer))
            .transpose()?;
        let adapter_folder = parts
            .adapter_dir
            .as_deref()
            .map(AdapterFolder::open)
            .transpose()?;
        let num_cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            engine: parts.engine,
            name: parts.name,
            access: parts.access,
            limits: parts.limits,
            prompt_log: parts.prompt_log,
            recent_answers: parts.remembers_answers.then(RecentAnswers::default),
            adapter_folder,
            memory: parts.memory,
            chat,
            metrics: Metrics::default(),
            cores: std::sync::Arc::new(Semaphore::new(num_cores)),
            created: unix_seconds(),
            started: Instant::now(),
            seed: parts.seed,
            next_id: AtomicU64::new(0),
            is_draining: AtomicBool::new(false),
            adapters: Mutex::default(),
        })
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.engine.model().tokenizer
    }

    /// The longest prompt: one position has to be left for the answer.
    pub(crate) fn max_prompt_tokens(&self) -> usize {
        let of_model = self
            .engine
            .model()
            .model
            .sizes()
            .max_seq_len
            .saturating_sub(1);
        self.limits
            .max_prompt_tokens
            .map_or(of_model, |limit| limit.min(of_model))
    }

    /// Finds the model a client names: `NAME`, or `NAME:ADAPTER`.
    pub(crate) fn choose_model(&self, id: &str) -> Result<ModelChoice, ApiError> {
        let adapter = match id.strip_prefix(self.name.as_str()) {
            Some("") => Some(None),
            Some(rest) => rest
                .strip_prefix(':')
                .filter(|adapter| self.adapters().contains_key(*adapter))
                .map(|adapter| Some(adapter.to_owned())),
            None => None,
        };
        match adapter {
            Some(adapter) => Ok(ModelChoice {
                id: id.to_owned(),
                adapter,
            }),
            None => Err(ApiError::new(
                StatusCode::NOT_FOUND,
                "model_not_found",
                format!(
                    "there is no model `{}`; `GET /v1/models` lists those that are served",
                    id.escape_debug()
                ),
            )
            .about("model")),
        }
    }

    /// Makes an adapter available.
    pub(crate) fn add_adapter(
        &self,
        name: &str,
        adapter: Adapter,
        folder: &std::path::Path,
        path: Option<String>,
    ) -> Result<(), ApiError> {
        let record = AdapterRecord::new(&adapter, path, unix_seconds());
        let mut records = self.adapters();
        if records.len() >= MAX_ADAPTERS {
            let message = format!("{MAX_ADAPTERS} adapters are loaded, which is the maximum");
            return Err(ApiError::new(
                StatusCode::CONFLICT,
                "too_many_adapters",
                message,
            ));
        }
        if adapter.config.exemplars.is_some() {
            let groups = GroupExemplarSource::open(folder).map_err(EngineError::from)?;
            self.engine
                .load_adapter_with_groups(name, adapter, groups)?;
        } else {
            self.engine.load_adapter(name, adapter)?;
        }
        records.insert(name.to_owned(), record);
        Ok(())
    }

    /// Removes an adapter; answers that have started are finished with it.
    pub(crate) fn remove_adapter(&self, name: &str) -> Result<(), ApiError> {
        let mut records = self.adapters();
        self.engine.unload_adapter(name)?;
        records.remove(name);
        Ok(())
    }

    /// The records of the loaded adapters.
    pub(crate) fn adapters(&self) -> MutexGuard<'_, BTreeMap<String, AdapterRecord>> {
        self.adapters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An id that no other answer has, of this run or another.
    pub(crate) fn next_answer(&self, kind: &str) -> AnswerId {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        AnswerId {
            text: format!("{kind}-{:x}-{number}", self.created),
            seed: self.seed.derive(&format!("serve/{number}")),
        }
    }

    /// Accepts no new requests; those that run are finished.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::SeqCst);
        self.engine.drain();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::SeqCst)
    }
}

impl Chat {
    fn new(template: &str, tokenizer: &Tokenizer) -> Result<Self, ModelError> {
        let special = tokenizer.special_token_ids();
        let spelled = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).unwrap_or_default();
        Ok(Self {
            template: ChatTemplate::new(template)?,
            bos_token: spelled(special.bos),
            eos_token: spelled(special.eos.first().copied()),
        })
    }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
