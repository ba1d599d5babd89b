//! The handle of an engine, which any thread may use.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::adapters::{AdapterInfo, ClusterInfo, LoadedAdapter};
use super::error::EngineError;
use super::event::Event;
use super::group_jobs::GroupJobs;
use super::group_worker;
use super::grouping::{self, PromptGrouping};
use super::groups::KeyedGroups;
use super::isolation::lock;
use super::options::EngineOptions;
use super::request::{ConditionChoice, GivenCondition, Request};
use super::shared::{Pending, Phase, Queue, Shared};
use super::stats::EngineStats;
use super::ticket::{Cancellation, Ticket};
use super::worker;
use crate::adapter::{Adapter, MAX_KEY_BYTES};
use crate::families::causal_lm::CausalLm;
use crate::families::load::LoadedModel;

/// A running engine. Clones are handles of the same one; when the last is dropped, it stops.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(super) shared: Arc<Shared>,
    _threads: Arc<WorkerThreads>,
}

#[derive(Debug)]
struct WorkerThreads {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

impl Engine {
    /// Starts an engine with threads of its own.
    ///
    /// # Errors
    ///
    /// When a bound is zero, or the system has no thread left.
    pub fn start(model: LoadedModel, options: EngineOptions) -> Result<Self, EngineError> {
        options.check()?;
        let shared = Arc::new(Shared {
            loaded: model,
            options,
            queue: Mutex::default(),
            has_cancelled: AtomicBool::new(false),
            changed: Condvar::new(),
            stats: Mutex::default(),
            adapters: Mutex::default(),
            group_jobs: GroupJobs::default(),
        });
        let spawn = |name: &str, run: fn(&Shared)| {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || run(&shared))
                .map_err(|source| EngineError::Thread { source })
        };
        let mut threads = WorkerThreads {
            shared: Arc::clone(&shared),
            handles: Vec::new(),
        };
        threads
            .handles
            .push(spawn("chameleon-engine", worker::run)?);
        threads
            .handles
            .push(spawn("chameleon-groups", group_worker::run)?);
        Ok(Self {
            _threads: Arc::new(threads),
            shared,
        })
    }

    /// The model, with its tokenizer, its chat template and its identity.
    pub fn model(&self) -> &LoadedModel {
        &self.shared.loaded
    }

    /// The bounds it was started with.
    pub fn options(&self) -> &EngineOptions {
        &self.shared.options
    }

    /// Queues a request; its events are read from the ticket. Never waits.
    ///
    /// # Errors
    ///
    /// [`EngineError`] says why the request is not accepted.
    pub fn submit(&self, request: Request) -> Result<Ticket, EngineError> {
        let (sender, events) = mpsc::channel();
        let cancellation = self.submit_with(request, move |event| {
            // Sending fails when the ticket was dropped, which cancels the request as well.
            let _ = sender.send(event);
        })?;
        Ok(Ticket {
            events,
            cancellation,
        })
    }

    /// Queues a request whose events are passed to `on_event` on the engine's thread, so the callback must not block.
    /// Never waits.
    ///
    /// # Errors
    ///
    /// [`EngineError`] says why the request is not accepted.
    pub fn submit_with(
        &self,
        request: Request,
        on_event: impl FnMut(Event) + Send + 'static,
    ) -> Result<Cancellation, EngineError> {
        let checked = self.check(&request);
        let (adapter, num_tokens) = match checked {
            Ok(checked) => checked,
            Err(refusal) => {
                lock(&self.shared.stats).num_refused += 1;
                return Err(refusal);
            }
        };
        let is_cancelled = Arc::new(AtomicBool::new(false));
        let mut queue = lock(&self.shared.queue);
        let refusal = if queue.phase != Phase::Open {
            Some(EngineError::Draining)
        } else if queue.waiting.len() >= self.shared.options.max_queued_requests
            || queue.num_tokens + num_tokens > self.shared.options.max_queued_tokens
        {
            Some(EngineError::QueueFull {
                num_requests: queue.waiting.len(),
                num_tokens: queue.num_tokens,
                retry_after: self.retry_after(queue.num_tokens),
            })
        } else {
            None
        };
        if let Some(refusal) = refusal {
            drop(queue);
            lock(&self.shared.stats).num_refused += 1;
            return Err(refusal);
        }
        let request_id = queue.next_request_id;
        queue.next_request_id += 1;
        queue.num_tokens += num_tokens;
        let pending = Pending {
            request_id,
            request,
            adapter,
            num_tokens,
            is_cancelled: Arc::clone(&is_cancelled),
            submitted: Instant::now(),
            sink: Box::new(on_event),
        };
        if let (Some(adapter), Some(key)) = (&pending.adapter, &pending.request.group)
            && pending.waits_for_group()
        {
            self.shared.group_jobs.add_first(adapter, key);
        }
        queue.waiting.push_back(pending);
        drop(queue);
        lock(&self.shared.stats).num_submitted += 1;
        self.shared.changed.notify_all();
        Ok(Cancellation {
            request_id,
            is_cancelled,
            shared: Arc::downgrade(&self.shared),
        })
    }

    /// Makes an adapter available under a name, immediately and in addition to others.
    ///
    /// # Errors
    ///
    /// When the name is taken or not a valid one, when the adapter was trained on another model, or when its centroids
    /// are not finite.
    pub fn load_adapter(&self, name: &str, adapter: Adapter) -> Result<AdapterInfo, EngineError> {
        self.add_adapter(name, adapter, None)
    }

    pub(super) fn add_adapter(
        &self,
        name: &str,
        adapter: Adapter,
        groups: Option<KeyedGroups>,
    ) -> Result<AdapterInfo, EngineError> {
        if !is_adapter_name(name) {
            return Err(EngineError::AdapterName {
                name: name.to_owned(),
            });
        }
        if adapter.config.base != self.shared.loaded.identity {
            return Err(EngineError::WrongBase {
                expected: adapter.config.base.to_string(),
                found: self.shared.loaded.identity.to_string(),
            });
        }
        let mut adapters = lock(&self.shared.adapters);
        if adapters.by_name.contains_key(name) {
            return Err(EngineError::NameTaken {
                name: name.to_owned(),
            });
        }
        let id = adapters.next_id;
        let loaded = LoadedAdapter::new(id, name.to_owned(), adapter, groups)
            .map_err(|source| EngineError::Centroids { source })?;
        let loaded = Arc::new(loaded);
        adapters.next_id += 1;
        let info = loaded.info();
        adapters.by_name.insert(name.to_owned(), loaded);
        Ok(info)
    }

    /// Unloads an adapter. Requests that were accepted with it are finished with it.
    ///
    /// # Errors
    ///
    /// When no adapter has this name.
    pub fn unload_adapter(&self, name: &str) -> Result<(), EngineError> {
        let mut adapters = lock(&self.shared.adapters);
        match adapters.by_name.remove(name) {
            Some(adapter) => {
                self.shared.group_jobs.remove_adapter(adapter.id);
                Ok(())
            }
            None => Err(adapters.unknown(name)),
        }
    }

    /// The loaded adapters, by name.
    pub fn adapters(&self) -> Vec<AdapterInfo> {
        let adapters = lock(&self.shared.adapters);
        adapters
            .by_name
            .values()
            .map(|adapter| adapter.info())
            .collect()
    }

    /// Counts of each group of an adapter.
    ///
    /// # Errors
    ///
    /// When no adapter has this name.
    pub fn clusters(&self, adapter: &str) -> Result<Vec<ClusterInfo>, EngineError> {
        Ok(lock(&self.shared.adapters).get(adapter)?.clusters())
    }

    pub(super) fn adapter(&self, name: &str) -> Result<Arc<LoadedAdapter>, EngineError> {
        lock(&self.shared.adapters).get(name).map(Arc::clone)
    }

    /// The prompt embedding of a text, and with an adapter its group. Does not wait in the queue.
    ///
    /// With an adapter, only the tokens of its recipe's prefix count.
    ///
    /// # Errors
    ///
    /// When there is no token or an unknown one, or when no adapter has this name.
    pub fn embed(
        &self,
        token_ids: &[u32],
        adapter: Option<&str>,
    ) -> Result<PromptGrouping, EngineError> {
        self.check_tokens(token_ids)?;
        let adapter = self.find_adapter(adapter)?;
        grouping::group(&self.shared, adapter.as_deref(), token_ids)
            .map_err(|source| EngineError::Grouping { source })
    }

    /// Groups and conditions of prompts that are all known beforehand, for runs over whole files. Where the adapter's
    /// condition is a mean over the prompts of a group, it is the mean over all of them, in whichever portions they
    /// are submitted.
    ///
    /// # Errors
    ///
    /// When a prompt has no token or an unknown one, or when no adapter has this name.
    pub fn conditions_of_all(
        &self,
        adapter: &str,
        prompts: &[&[u32]],
    ) -> Result<Vec<Arc<GivenCondition>>, EngineError> {
        for prompt in prompts {
            self.check_tokens(prompt)?;
        }
        let adapter = Arc::clone(lock(&self.shared.adapters).get(adapter)?);
        grouping::group_all(&self.shared, &adapter, prompts)
            .map_err(|source| EngineError::Grouping { source })
    }

    /// Counts since the start, and the present load.
    pub fn stats(&self) -> EngineStats {
        let (num_queued, num_queued_tokens, num_running) = {
            let queue = lock(&self.shared.queue);
            (queue.waiting.len(), queue.num_tokens, queue.num_running)
        };
        EngineStats {
            num_running,
            num_queued,
            num_queued_tokens,
            ..*lock(&self.shared.stats)
        }
    }

    /// Finishes what was accepted and refuses everything else. Returns at once; [`wait_idle`](Self::wait_idle) waits
    /// for the end.
    pub fn drain(&self) {
        let mut queue = lock(&self.shared.queue);
        if queue.phase == Phase::Open {
            queue.phase = Phase::Draining;
        }
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// Waits until no request runs or waits; returns whether that happened in time.
    pub fn wait_idle(&self, timeout: Duration) -> bool {
        let queue = lock(&self.shared.queue);
        let is_busy = |queue: &mut Queue| queue.num_running > 0 || !queue.waiting.is_empty();
        let (queue, _) = self
            .shared
            .changed
            .wait_timeout_while(queue, timeout, is_busy)
            .unwrap_or_else(PoisonError::into_inner);
        queue.num_running == 0 && queue.waiting.is_empty()
    }

    /// The adapter of a request, and the tokens it may need.
    fn check(&self, request: &Request) -> Result<(Option<Arc<LoadedAdapter>>, usize), EngineError> {
        self.check_tokens(&request.prompt_token_ids)?;
        if !request.grouping_token_ids.is_empty() {
            self.check_tokens(&request.grouping_token_ids)?;
        }
        if !(request.scale.is_finite() && request.scale.abs() <= MAX_SCALE) {
            return Err(EngineError::Value {
                name: "scale",
                found: request.scale,
                expected: "a number between -1000 and 1000",
            });
        }
        if request.stop.iter().any(String::is_empty) {
            return Err(EngineError::EmptyStop);
        }
        let adapter = self.find_adapter(request.adapter.as_deref())?;
        if let Some(key) = &request.group
            && !(1..=MAX_KEY_BYTES).contains(&key.len())
        {
            return Err(EngineError::GroupKey { found: key.len() });
        }
        if let Some(adapter) = &adapter {
            let sizes = adapter.adapter.centroids.dims();
            if let ConditionChoice::Given(given) = &request.condition {
                check_given(given, sizes)?;
            }
        }
        let max_seq_len = self.shared.loaded.model.sizes().max_seq_len;
        let prompt_len = request.prompt_token_ids.len();
        if prompt_len > max_seq_len {
            return Err(EngineError::PromptTooLong {
                found: prompt_len,
                max_seq_len,
            });
        }
        let num_tokens = prompt_len
            .saturating_add(request.max_new_tokens)
            .min(max_seq_len);
        let max_cached_tokens = self.shared.options.max_cached_tokens;
        if num_tokens > max_cached_tokens {
            return Err(EngineError::TooManyTokens {
                found: num_tokens,
                max_cached_tokens,
            });
        }
        Ok((adapter, num_tokens))
    }

    fn check_tokens(&self, token_ids: &[u32]) -> Result<(), EngineError> {
        if token_ids.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        let vocab_size = self.shared.loaded.model.sizes().vocab_size;
        match token_ids
            .iter()
            .find(|&&token_id| token_id as usize >= vocab_size)
        {
            Some(&token_id) => Err(EngineError::UnknownToken {
                token_id,
                vocab_size,
            }),
            None => Ok(()),
        }
    }

    fn find_adapter(&self, name: Option<&str>) -> Result<Option<Arc<LoadedAdapter>>, EngineError> {
        let adapters = lock(&self.shared.adapters);
        name.map(|name| adapters.get(name).map(Arc::clone))
            .transpose()
    }

    /// The estimated time of the queue at the speed of the latest steps.
    fn retry_after(&self, num_queued_tokens: usize) -> Duration {
        let stats = lock(&self.shared.stats);
        let seconds_per_token =
            stats.last_step_time.as_secs_f64() / stats.last_step_rows.max(1) as f64;
        let seconds = (seconds_per_token * num_queued_tokens as f64).clamp(1.0, 60.0);
        Duration::from_secs_f64(seconds.ceil())
    }
}

/// Bounds what logits are multiplied by, so that they stay finite.
const MAX_SCALE: f64 = 1000.0;

impl Drop for WorkerThreads {
    fn drop(&mut self) {
        lock(&self.shared.queue).phase = Phase::Closed;
        self.shared.changed.notify_all();
        self.shared.group_jobs.close();
        for handle in self.handles.drain(..) {
            // The last handle may be dropped by a callback, on the worker itself.
            if handle.thread().id() != thread::current().id() {
                let _ = handle.join();
            }
        }
    }
}

fn check_given(given: &GivenCondition, sizes: [usize; 2]) -> Result<(), EngineError> {
    let [num_clusters, hidden_size] = sizes;
    let is_finite = given.values.iter().all(|value| value.is_finite());
    if given.values.len() == hidden_size && given.cluster_idx < num_clusters && is_finite {
        return Ok(());
    }
    Err(EngineError::GivenCondition {
        found: given.values.len(),
        cluster_idx: given.cluster_idx,
        expected: hidden_size,
        num_clusters,
    })
}

fn is_adapter_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
