//! The thread that decodes: takes requests from the queue, lets them run together, and hands out what they say.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::handle::{Pending, Phase, Shared, Sink};
use super::head::{FactorCache, JoinedFactors, RowFactors};
use super::lock;
use super::recall::RowMemory;
use super::running::{Chosen, Running, choose};
use super::start::start_together;
use super::ticket::{Event, RequestFailure};
use crate::engine::lane::{Lane, LaneStep, NewRow, enough_rows, on_host};
use crate::families::causal_lm::CausalLm;
use crate::families::language_model::LanguageModel;

/// Runs until the engine is closed.
pub(super) fn run(shared: &Shared) {
    let model = &shared.loaded.model;
    let mut worker = Worker {
        shared,
        lane: Lane::new(model.sizes(), &model.head_weight().device()),
        running: BTreeMap::new(),
        factors: FactorCache::new(shared.options.max_cached_factors),
        joined: JoinedFactors::default(),
        num_reserved: 0,
    };
    while let Some(admitted) = worker.admit() {
        worker.start(admitted);
        worker.drop_cancelled();
        worker.step();
        worker.publish();
    }
    worker.stop();
}

struct Worker<'a> {
    shared: &'a Shared,
    lane: Lane<u64>,
    running: BTreeMap<u64, Running>,
    factors: FactorCache,
    joined: JoinedFactors,
    /// Tokens set aside for what runs.
    num_reserved: usize,
}

impl Worker<'_> {
    /// The requests that may start now, possibly none if others run. Waits while there is nothing to do; nothing at
    /// all when the engine closes.
    fn admit(&mut self) -> Option<Vec<Pending>> {
        let options = &self.shared.options;
        let mut cancelled = Vec::new();
        let mut admitted = Vec::new();
        let mut queue = lock(&self.shared.queue);
        loop {
            if queue.phase == Phase::Closed {
                return None;
            }
            // Acquire pairs with the release in `Cancellation::drop`, so that the flag of the request is seen as well.
            if self.shared.has_cancelled.swap(false, Ordering::AcqRel) {
                let waiting = std::mem::take(&mut queue.waiting);
                let (gone, waiting) = waiting
                    .into_iter()
                    .partition(|pending| pending.is_cancelled.load(Ordering::Acquire));
                cancelled.extend::<Vec<Pending>>(gone);
                queue.waiting = VecDeque::from(waiting);
            }
            // In order: a large request is not overtaken for ever by small ones.
            while let Some(next) = queue.waiting.front() {
                let num_rows = self.running.len() + admitted.len();
                let num_reserved = self.num_reserved + next.num_tokens;
                if num_rows == options.max_batch_rows || num_reserved > options.max_cached_tokens {
                    break;
                }
                self.num_reserved = num_reserved;
                admitted.extend(queue.waiting.pop_front());
            }
            let num_taken: usize = cancelled
                .iter()
                .chain(&admitted)
                .map(|pending: &Pending| pending.num_tokens)
                .sum();
            if num_taken > 0 || !self.running.is_empty() {
                queue.num_tokens -= num_taken;
                queue.num_running += admitted.len();
                drop(queue);
                self.shared.changed.notify_all();
                lock(&self.shared.stats).num_cancelled += cancelled.len() as u64;
                return Some(admitted);
            }
            queue = self
                .shared
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Groups what starts, and lets every request run.
    fn start(&mut self, admitted: Vec<Pending>) {
        for started in start_together(self.shared, admitted, &mut self.factors) {
            match started {
                Ok((running, prompt)) => {
                    let request_id = running.request_id;
                    let row = NewRow {
                        prompt,
                        layers: running.factors.as_ref().and_then(RowFactors::layers),
                        tapped_layer: running.memory.as_ref().map(RowMemory::layer_idx),
                    };
                    self.lane.add(request_id, row);
                    self.running.insert(request_id, running);
                }
                Err(over) => {
                    self.num_reserved -= over.num_tokens;
                    self.count_end(&over.end);
                }
            }
        }
    }

    fn drop_cancelled(&mut self) {
        let cancelled: Vec<u64> = self
            .running
            .values()
            .filter(|running| running.is_cancelled())
            .map(|running| running.request_id)
            .collect();
        for request_id in cancelled {
            self.end(request_id, &End::Cancelled);
        }
    }

    /// One pass, and a token for every row that is ready for one.
    fn step(&mut self) {
        if self.lane.is_empty() {
            return;
        }
        let start = Instant::now();
        let (lane, running, joined) = (&mut self.lane, &mut self.running, &mut self.joined);
        let shared = self.shared;
        let model = &shared.loaded.model;
        let pass = catch_unwind(AssertUnwindSafe(|| {
            let step = lane.step(model, shared.options.prefill_chunk);
            let chosen = step
                .hidden
                .clone()
                .map(|hidden| choose_tokens(model, hidden, &step, running, joined));
            (step, chosen.unwrap_or_default())
        }));
        match pass {
            Ok((step, chosen)) => {
                self.count_step(&step, start);
                for (request_id, chosen) in step.keys.into_iter().zip(chosen) {
                    self.hand_out(request_id, chosen);
                }
            }
            Err(panic) => self.lose(panic.as_ref()),
        }
    }

    /// Tells a request about its token, and ends it or lets it go on.
    fn hand_out(&mut self, request_id: u64, chosen: Result<Chosen, String>) {
        let running = self.running.get_mut(&request_id);
        let running = running.expect("rows of a lane are running");
        let tokenizer = &self.shared.loaded.tokenizer;
        let max_seq_len = self.shared.loaded.model.sizes().max_seq_len;
        // What the caller does with an event may panic, and so may a tokenizer: that ends this request alone.
        let next = catch_unwind(AssertUnwindSafe(|| {
            chosen.and_then(|chosen| running.advance(chosen, tokenizer, max_seq_len))
        }))
        .unwrap_or_else(|panic| Err(message_of(panic.as_ref())));
        match next {
            Ok(Some(token_id)) => self.lane.push(request_id, token_id),
            Ok(None) => self.end(request_id, &End::Finished),
            Err(message) => self.end(request_id, &End::Failed(RequestFailure::Step { message })),
        }
    }

    /// A pass broke: its rows are lost, and what it may have left half done is thrown away.
    fn lose(&mut self, panic: &(dyn Any + Send)) {
        let message = message_of(panic);
        tracing::error!(message, "a decoding step panicked; its requests are lost");
        let lost: Vec<u64> = self.lane.keys().collect();
        let model = &self.shared.loaded.model;
        self.lane = Lane::new(model.sizes(), &model.head_weight().device());
        self.joined = JoinedFactors::default();
        for request_id in lost {
            let message = message.clone();
            self.end(request_id, &End::Failed(RequestFailure::Step { message }));
        }
    }

    fn end(&mut self, request_id: u64, end: &End) {
        let Some(mut running) = self.running.remove(&request_id) else {
            return;
        };
        self.lane.remove(request_id);
        self.num_reserved -= running.num_tokens;
        running.leave_group();
        if let End::Failed(failure) = end {
            running.tell(Event::Failed(failure.clone()));
        }
        self.count_end(end);
    }

    fn count_end(&self, end: &End) {
        {
            let mut stats = lock(&self.shared.stats);
            match end {
                End::Finished => stats.num_finished += 1,
                End::Cancelled => stats.num_cancelled += 1,
                End::Failed(_) => stats.num_failed += 1,
            }
        }
        // Whoever waits for the engine to be idle finds the books in order.
        self.publish();
        lock(&self.shared.queue).num_running -= 1;
        self.shared.changed.notify_all();
    }

    fn count_step(&self, step: &LaneStep<u64>, start: Instant) {
        let mut stats = lock(&self.shared.stats);
        stats.num_prompt_tokens += step.num_prompt_tokens as u64;
        stats.num_generated_tokens += step.keys.len() as u64;
        let elapsed = start.elapsed();
        if step.num_prompt_tokens > 0 {
            stats.prefill_time += elapsed;
        } else {
            stats.step_time += elapsed;
            stats.num_steps += 1;
            stats.num_step_rows += step.num_writing as u64;
            stats.last_step_time = elapsed;
            stats.last_step_rows = step.num_writing;
        }
    }

    fn publish(&self) {
        let mut stats = lock(&self.shared.stats);
        stats.num_reserved_tokens = self.num_reserved;
        stats.num_cached_tokens = self.lane.num_tokens();
        stats.num_factor_hits = self.factors.num_hits();
        stats.num_factor_misses = self.factors.num_misses();
        stats.num_cached_factors = self.factors.len();
    }

    /// Everybody who still waits for something is told that nothing will come.
    fn stop(&mut self) {
        let running: Vec<u64> = self.running.keys().copied().collect();
        for request_id in running {
            self.end(request_id, &End::Failed(RequestFailure::Stopped));
        }
        let waiting = {
            let mut queue = lock(&self.shared.queue);
            queue.num_tokens = 0;
            std::mem::take(&mut queue.waiting)
        };
        for mut pending in waiting {
            lock(&self.shared.stats).num_failed += 1;
            tell(&mut pending.sink, Event::Failed(RequestFailure::Stopped));
        }
        self.shared.changed.notify_all();
    }
}

/// How a request ended.
#[derive(Debug)]
pub(super) enum End {
    Finished,
    Cancelled,
    Failed(RequestFailure),
}

/// Hands an event to whoever asked. A callback that panics has stopped listening.
pub(super) fn tell(sink: &mut Sink, event: Event) {
    if catch_unwind(AssertUnwindSafe(|| sink(event))).is_err() {
        tracing::error!("a callback for the events of a request panicked");
    }
}

/// The next token of every row, from their last hidden states, `[rows, hidden]`.
fn choose_tokens(
    model: &LanguageModel,
    hidden: Tensor<2>,
    step: &LaneStep<u64>,
    running: &mut BTreeMap<u64, Running>,
    joined: &mut JoinedFactors,
) -> Vec<Result<Chosen, String>> {
    let hidden = enough_rows(hidden);
    let factors: Vec<_> = step
        .keys
        .iter()
        .map(|key| running[key].factors.clone())
        .collect();
    let logits = model.logits(hidden.clone());
    let logits = match joined.delta(&hidden, &factors) {
        Some(delta) => logits + delta,
        None => logits,
    };
    let mut logits = on_host(logits);
    let vocab_size = model.sizes().vocab_size;
    let mut rows: BTreeMap<u64, &mut Running> = running
        .iter_mut()
        .map(|(&request_id, running)| (request_id, running))
        .collect();
    let rows: Vec<(&mut Running, &mut [f32])> = step
        .keys
        .iter()
        .zip(logits.chunks_exact_mut(vocab_size))
        .map(|(key, logits)| (rows.remove(key).expect("a row is named once"), logits))
        .collect();
    rows.into_par_iter()
        .enumerate()
        .map(|(row_idx, (running, logits))| {
            catch_unwind(AssertUnwindSafe(|| {
                if let Some(memory) = &running.memory {
                    memory.change(&step.entering, row_idx, logits);
                }
                choose(&mut running.sampler, running.logprobs, logits)
            }))
            .map_err(|panic| message_of(panic.as_ref()))
        })
        .collect()
}

/// What a panic said.
pub(super) fn message_of(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
        .unwrap_or_else(|| "no message".to_owned())
}
