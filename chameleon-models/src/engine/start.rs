//! From waiting requests to running ones: their groups, conditions and factors.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use chameleon_hypernet::GroupLayers;

use super::active::ActiveRequest;
use super::answer::Answer;
use super::event::{EndReason, Event, RequestFailure, Started, StartedGroup, Usage};
use super::grouping::{self, Group, GroupCondition};
use super::groups::KeyedLayers;
use super::head::{FactorCache, RowFactors};
use super::isolation::message_of;
use super::memory::RowMemory;
use super::sampling::Sampler;
use super::shared::{Pending, Shared, report};

/// How a request ended.
#[derive(Debug)]
pub(super) enum End {
    Finished,
    Cancelled,
    Failed(RequestFailure),
}

/// A request that ended before it ran.
#[derive(Debug)]
pub(super) struct Finished {
    /// Tokens that were reserved for it.
    pub(super) num_tokens: usize,
    pub(super) end: End,
}

/// A request with the group it falls in.
struct Grouped {
    pending: Pending,
    group: Option<Group>,
}

/// What a request uses of its adapter.
struct Keyed {
    /// The layers of its key; `None` without exemplars.
    layers: Option<GroupLayers>,
    num_exemplars: usize,
    /// Whether the factors of the adapter apply: always, but for learned steps that have no exemplars to go by.
    uses_factors: bool,
}

impl Group {
    /// What a request with this key uses.
    ///
    /// # Errors
    ///
    /// When the layers of its key cannot be computed.
    fn keyed_layers(&self, key: Option<&str>) -> Result<Keyed, Box<dyn Error + Send + Sync>> {
        let found = match (key, &self.adapter.groups) {
            (Some(key), Some(groups)) => groups.layers(key),
            _ => KeyedLayers::None,
        };
        match found {
            KeyedLayers::Ready(layers, num_exemplars) => {
                if let (Some(key), Some(groups)) = (key, &self.adapter.groups) {
                    groups.record_use(key);
                }
                Ok(Keyed {
                    layers: Some(layers),
                    num_exemplars,
                    uses_factors: true,
                })
            }
            KeyedLayers::Failed(message) => Err(message.into()),
            KeyedLayers::Waiting => {
                Err("the exemplars of its group changed while it started; send it again".into())
            }
            KeyedLayers::None => Ok(Keyed {
                layers: None,
                num_exemplars: 0,
                uses_factors: self.adapter.adapter.config.exemplars.is_none(),
            }),
        }
    }
}

/// Starts requests, with the prompts of those that run. Reports `Started` to each of them.
pub(super) fn start_together(
    shared: &Shared,
    admitted: Vec<Pending>,
    factors: &mut FactorCache,
) -> Vec<Result<(ActiveRequest, Vec<u32>), Finished>> {
    let mut all = Vec::new();
    let mut grouped = Vec::new();
    for mut pending in admitted {
        let group = catch_unwind(AssertUnwindSafe(|| grouping::find_group(shared, &pending)))
            .unwrap_or_else(|panic| Err(message_of(panic.as_ref()).into()));
        match group {
            Ok(group) => grouped.push(Grouped { pending, group }),
            Err(error) => all.push(Err(fail(&mut pending, error.as_ref()))),
        }
    }
    let groups = || grouped.iter().filter_map(|one| one.group.as_ref());
    let conditions: Vec<Option<GroupCondition>> = grouped
        .iter()
        .map(|one| Some(grouping::condition(one.group.as_ref()?, groups())))
        .collect();
    let started = grouped
        .into_iter()
        .zip(conditions)
        .map(|(grouped, condition)| start(shared, grouped, condition, factors));
    all.extend(started);
    all
}

fn start(
    shared: &Shared,
    grouped: Grouped,
    condition: Option<GroupCondition>,
    factors: &mut FactorCache,
) -> Result<(ActiveRequest, Vec<u32>), Finished> {
    let Grouped { mut pending, group } = grouped;
    let mut row_factors = None;
    let mut started_group = None;
    if let (Some(group), Some(condition)) = (&group, condition) {
        let scale = pending.request.scale;
        let keyed = match group.keyed_layers(pending.request.group.as_deref()) {
            Ok(keyed) => keyed,
            Err(message) => return Err(fail(&mut pending, message.as_ref())),
        };
        if scale != 0.0 && keyed.uses_factors {
            let found = catch_unwind(AssertUnwindSafe(|| {
                factors
                    .get(&group.adapter, group.cluster_idx, &condition.values)
                    .map_err(Into::into)
            }))
            .unwrap_or_else(|panic| Err(message_of(panic.as_ref()).into()));
            let found: Result<_, Box<dyn Error + Send + Sync>> = found;
            match found {
                Ok(factors) => {
                    row_factors = Some(RowFactors {
                        factors,
                        keyed_layers: keyed.layers,
                        scale,
                    });
                }
                Err(error) => return Err(fail(&mut pending, error.as_ref())),
            }
        }
        group.adapter.record_start(
            group.cluster_idx,
            pending.request_id,
            shared.options.num_recent_requests,
        );
        started_group = Some(StartedGroup {
            cluster_idx: group.cluster_idx,
            distance: group.distance,
            condition: group.condition,
            group_size: condition.group_size,
            num_exemplars: keyed.num_exemplars,
        });
    }
    let request = pending.request;
    let mut active = ActiveRequest {
        request_id: pending.request_id,
        sampler: Sampler::new(request.sampling, request.seed.stream("tokens")),
        logprobs: request.logprobs,
        factors: row_factors,
        memory: group
            .as_ref()
            .and_then(|group| RowMemory::of(&group.adapter, group.cluster_idx, request.scale)),
        group: group.map(|group| (group.adapter, group.cluster_idx)),
        num_tokens: pending.num_tokens,
        end_of_text: request.end_of_text,
        max_new_tokens: request.max_new_tokens,
        answer: Answer::new(request.stop),
        sink: pending.sink,
        is_cancelled: pending.is_cancelled,
        started: Instant::now(),
        usage: Usage::of_prompt(request.prompt_token_ids.len()),
    };
    active.report(Event::Started(Started {
        group: started_group,
        waited: pending.submitted.elapsed(),
    }));
    if request.max_new_tokens > 0 {
        return Ok((active, request.prompt_token_ids));
    }
    let end = match active.finish(EndReason::MaxNewTokens, &shared.loaded.tokenizer) {
        Ok(()) => End::Finished,
        Err(message) => {
            let failure = RequestFailure::Text { message };
            active.report(Event::Failed(failure.clone()));
            End::Failed(failure)
        }
    };
    active.leave_group();
    Err(Finished {
        num_tokens: active.num_tokens,
        end,
    })
}

fn fail(pending: &mut Pending, error: &(dyn Error + Send + Sync)) -> Finished {
    let failure = RequestFailure::Grouping {
        message: error.to_string(),
    };
    report(&mut pending.sink, Event::Failed(failure.clone()));
    Finished {
        num_tokens: pending.num_tokens,
        end: End::Failed(failure),
    }
}
