//! The thread that decodes: takes requests from the queue, runs them together, and delivers their tokens.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

use burn::tensor::Tensor;
use rayon::prelude::*;

use super::active::ActiveRequest;
use super::decode_batch::{BatchStep, DecodeBatch, NewRow, enough_rows, on_host};
use super::event::{Event, RequestFailure};
use super::head::{FactorCache, JoinedFactors, RowFactors};
use super::isolation::{lock, message_of};
use super::logprobs::{self, SampledToken};
use super::memory::RowMemory;
use super::shared::{Pending, Phase, Shared, report};
use super::start::{End, start_together};
use crate::families::causal_lm::CausalLm;
use crate::families::language_model::LanguageModel;

/// Runs until the engine is closed.
pub(super) fn run(shared: &Shared) {
    let model = &shared.loaded.model;
    let mut worker = Worker {
        shared,
        batch: DecodeBatch::new(model.sizes(), &model.head_weight().device()),
        active: BTreeMap::new(),
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
    batch: DecodeBatch<u64>,
    active: BTreeMap<u64, ActiveRequest>,
    factors: FactorCache,
    joined: JoinedFactors,
    /// Tokens reserved for the active requests.
    num_reserved: usize,
}

impl Worker<'_> {
    /// The requests that may start now, possibly none if others run. Waits while there is nothing to do; `None` when the
    /// engine closes.
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
            // In order, so that small requests do not delay a large one for ever. Those whose group is being computed
            // let others pass.
            while let Some(next_idx) = queue
                .waiting
                .iter()
                .position(|next| !next.waits_for_group())
            {
                let next = &queue.waiting[next_idx];
                let num_rows = self.active.len() + admitted.len();
                let num_reserved = self.num_reserved + next.num_tokens;
                if num_rows == options.max_batch_rows || num_reserved > options.max_cached_tokens {
                    break;
                }
                self.num_reserved = num_reserved;
                admitted.extend(queue.waiting.remove(next_idx));
            }
            let num_taken: usize = cancelled
                .iter()
                .chain(&admitted)
                .map(|pending: &Pending| pending.num_tokens)
                .sum();
            if num_taken > 0 || !self.active.is_empty() {
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

    /// Groups the admitted requests and adds them to the batch.
    fn start(&mut self, admitted: Vec<Pending>) {
        for started in start_together(self.shared, admitted, &mut self.factors) {
            match started {
                Ok((active, prompt)) => {
                    let request_id = active.request_id;
                    let row = NewRow {
                        prompt,
                        layers: active.factors.as_ref().and_then(RowFactors::layers),
                        tapped_layer: active.memory.as_ref().map(RowMemory::layer_idx),
                    };
                    self.batch.add(request_id, row);
                    self.active.insert(request_id, active);
                }
                Err(finished) => {
                    self.num_reserved -= finished.num_tokens;
                    self.count_end(&finished.end);
                }
            }
        }
    }

    fn drop_cancelled(&mut self) {
        let cancelled: Vec<u64> = self
            .active
            .values()
            .filter(|active| active.is_cancelled())
            .map(|active| active.request_id)
            .collect();
        for request_id in cancelled {
            self.end(request_id, &End::Cancelled);
        }
    }

    /// One pass, and a token for every row that is ready for one.
    fn step(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let start = Instant::now();
        let (batch, active, joined) = (&mut self.batch, &mut self.active, &mut self.joined);
        let shared = self.shared;
        let model = &shared.loaded.model;
        let pass = catch_unwind(AssertUnwindSafe(|| {
            let step = batch.step(model, shared.options.prefill_chunk);
            let sampled = step
                .hidden
                .clone()
                .map(|hidden| sample_tokens(model, hidden, &step, active, joined));
            (step, sampled.unwrap_or_default())
        }));
        match pass {
            Ok((step, sampled)) => {
                self.count_step(&step, start);
                for (request_id, sampled) in step.keys.into_iter().zip(sampled) {
                    self.deliver(request_id, sampled);
                }
            }
            Err(panic) => self.fail_all(panic.as_ref()),
        }
    }

    /// Reports the token of a request, and ends or continues the request.
    fn deliver(&mut self, request_id: u64, sampled: Result<SampledToken, String>) {
        let active = self.active.get_mut(&request_id);
        let active = active.expect("rows of the batch are active");
        let tokenizer = &self.shared.loaded.tokenizer;
        let max_seq_len = self.shared.loaded.model.sizes().max_seq_len;
        // The caller's callback may panic, and so may a tokenizer: that ends this request alone.
        let next = catch_unwind(AssertUnwindSafe(|| {
            sampled.and_then(|sampled| active.advance(sampled, tokenizer, max_seq_len))
        }))
        .unwrap_or_else(|panic| Err(message_of(panic.as_ref())));
        match next {
            Ok(Some(token_id)) => self.batch.push(request_id, token_id),
            Ok(None) => self.end(request_id, &End::Finished),
            Err(message) => self.end(request_id, &End::Failed(RequestFailure::Step { message })),
        }
    }

    /// Fails all rows after a pass panicked, and drops the batch, which may be half done.
    fn fail_all(&mut self, panic: &(dyn Any + Send)) {
        let message = message_of(panic);
        tracing::error!(message, "a decode step panicked; its requests fail");
        let failed: Vec<u64> = self.batch.keys().collect();
        let model = &self.shared.loaded.model;
        self.batch = DecodeBatch::new(model.sizes(), &model.head_weight().device());
        self.joined = JoinedFactors::default();
        for request_id in failed {
            let message = message.clone();
            self.end(request_id, &End::Failed(RequestFailure::Step { message }));
        }
    }

    fn end(&mut self, request_id: u64, end: &End) {
        let Some(mut active) = self.active.remove(&request_id) else {
            return;
        };
        self.batch.remove(request_id);
        self.num_reserved -= active.num_tokens;
        active.leave_group();
        if let End::Failed(failure) = end {
            active.report(Event::Failed(failure.clone()));
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
        // Before the engine may count as idle, so that a thread waiting for that reads the final counts.
        self.publish();
        lock(&self.shared.queue).num_running -= 1;
        self.shared.changed.notify_all();
    }

    fn count_step(&self, step: &BatchStep<u64>, start: Instant) {
        let mut stats = lock(&self.shared.stats);
        stats.num_prompt_tokens += step.num_prompt_tokens as u64;
        stats.num_generated_tokens += step.keys.len() as u64;
        let elapsed = start.elapsed();
        if step.num_prompt_tokens > 0 {
            stats.prefill_time += elapsed;
        } else {
            stats.step_time += elapsed;
            stats.num_steps += 1;
            stats.num_step_rows += step.num_decoded as u64;
            stats.last_step_time = elapsed;
            stats.last_step_rows = step.num_decoded;
        }
    }

    fn publish(&self) {
        let mut stats = lock(&self.shared.stats);
        stats.num_reserved_tokens = self.num_reserved;
        stats.num_cached_tokens = self.batch.num_tokens();
        stats.num_factor_hits = self.factors.num_hits();
        stats.num_factor_misses = self.factors.num_misses();
        stats.num_cached_factors = self.factors.len();
    }

    /// Fails all requests that run or wait.
    fn stop(&mut self) {
        let active: Vec<u64> = self.active.keys().copied().collect();
        for request_id in active {
            self.end(request_id, &End::Failed(RequestFailure::Stopped));
        }
        let waiting = {
            let mut queue = lock(&self.shared.queue);
            queue.num_tokens = 0;
            std::mem::take(&mut queue.waiting)
        };
        for mut pending in waiting {
            lock(&self.shared.stats).num_failed += 1;
            report(&mut pending.sink, Event::Failed(RequestFailure::Stopped));
        }
        self.shared.changed.notify_all();
    }
}

/// The next token of every row, from their last hidden states, `[rows, hidden]`.
fn sample_tokens(
    model: &LanguageModel,
    hidden: Tensor<2>,
    step: &BatchStep<u64>,
    active: &mut BTreeMap<u64, ActiveRequest>,
    joined: &mut JoinedFactors,
) -> Vec<Result<SampledToken, String>> {
    let hidden = enough_rows(hidden);
    let factors: Vec<_> = step
        .keys
        .iter()
        .map(|key| active[key].factors.clone())
        .collect();
    let logits = model.logits(hidden.clone());
    let logits = match joined.delta(&hidden, &factors) {
        Some(delta) => logits + delta,
        None => logits,
    };
    let mut logits = on_host(model.head().cap(logits));
    let vocab_size = model.sizes().vocab_size;
    let mut rows: BTreeMap<u64, &mut ActiveRequest> = active
        .iter_mut()
        .map(|(&request_id, active)| (request_id, active))
        .collect();
    let rows: Vec<(&mut ActiveRequest, &mut [f32])> = step
        .keys
        .iter()
        .zip(logits.chunks_exact_mut(vocab_size))
        .map(|(key, logits)| (rows.remove(key).expect("a row is named once"), logits))
        .collect();
    rows.into_par_iter()
        .enumerate()
        .map(|(row_idx, (active, logits))| {
            catch_unwind(AssertUnwindSafe(|| {
                if let Some(memory) = &active.memory {
                    memory.mix_into(&step.entering, row_idx, logits);
                }
                logprobs::sample(&mut active.sampler, active.logprobs, logits)
            }))
            .map_err(|panic| message_of(panic.as_ref()))
        })
        .collect()
}
