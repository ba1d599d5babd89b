//! From waiting requests to running ones: their groups, conditions and factors.

use std::collections::BTreeMap;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::{Tensor, TensorData};
use chameleon_hypernet::{Condition, PromptGroup};

use super::adapters::{LoadedAdapter, PromptGrouping};
use super::answer::Answer;
use super::handle::{Pending, Shared};
use super::head::{FactorCache, RowFactors};
use super::recall::RowMemory;
use super::request::{ConditionChoice, GivenCondition};
use super::running::Running;
use super::ticket::{EndReason, Event, RequestFailure, Started, StartedGroup, Usage};
use super::worker::{End, message_of, tell};
use crate::adapter::prompts::embed_prompts;
use crate::engine::lane::on_host;
use crate::engine::sampling::Sampler;

/// A request that was over before it ran.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) num_tokens: usize,
    pub(super) end: End,
}

/// A request with the group it falls in.
struct Grouped {
    pending: Pending,
    group: Option<Group>,
}

/// A request's group.
struct Group {
    adapter: Arc<LoadedAdapter>,
    condition: Condition,
    cluster_idx: usize,
    distance: f32,
    source: ConditionSource,
}

/// What the condition is made of.
enum ConditionSource {
    /// The embedding of the prompt, `[hidden]`, and those of the prompts that start with it.
    Embedding(Vec<f32>),
    /// A condition that was given, and how many prompts it sums up.
    Given(Arc<[f32]>, usize),
}

/// Starts requests; those with prompts to read come with them. Every one hears that it started.
pub(super) fn start_together(
    shared: &Shared,
    admitted: Vec<Pending>,
    factors: &mut FactorCache,
) -> Vec<Result<(Running, Vec<u32>), Over>> {
    let mut over = Vec::new();
    let mut grouped = Vec::new();
    for mut pending in admitted {
        let group = catch_unwind(AssertUnwindSafe(|| find_group(shared, &pending)))
            .unwrap_or_else(|panic| Err(message_of(panic.as_ref()).into()));
        match group {
            Ok(group) => grouped.push(Grouped { pending, group }),
            Err(error) => over.push(Err(refuse(&mut pending, error.as_ref()))),
        }
    }
    let conditions: Vec<Option<(Arc<[f32]>, usize)>> = grouped
        .iter()
        .map(|one| one.group.as_ref().map(|group| condition(group, &grouped)))
        .collect();
    let started = grouped
        .into_iter()
        .zip(conditions)
        .map(|(grouped, condition)| start(shared, grouped, condition, factors));
    over.extend(started);
    over
}

fn find_group(
    shared: &Shared,
    pending: &Pending,
) -> Result<Option<Group>, Box<dyn Error + Send + Sync>> {
    let Some(adapter) = &pending.adapter else {
        return Ok(None);
    };
    let request = &pending.request;
    let condition = match &request.condition {
        ConditionChoice::AsTrained => adapter.adapter.config.condition,
        ConditionChoice::Use(condition) => *condition,
        ConditionChoice::Given(given) => {
            return Ok(Some(Group {
                adapter: Arc::clone(adapter),
                condition: given.condition,
                cluster_idx: given.cluster_idx,
                distance: given.distance,
                source: ConditionSource::Given(Arc::clone(&given.values), given.group_size),
            }));
        }
    };
    let token_ids = match request.grouping_token_ids.as_slice() {
        [] => &request.prompt_token_ids,
        token_ids => token_ids,
    };
    let PromptGrouping { embedding, nearest } = group(shared, Some(adapter), token_ids)?;
    let nearest = nearest.ok_or("an adapter was given and no group was found")?;
    Ok(Some(Group {
        adapter: Arc::clone(adapter),
        condition,
        cluster_idx: nearest.cluster_idx,
        distance: nearest.distance,
        source: ConditionSource::Embedding(embedding),
    }))
}

/// Embeds what a prompt is grouped by, and finds its group.
pub(super) fn group(
    shared: &Shared,
    adapter: Option<&LoadedAdapter>,
    token_ids: &[u32],
) -> Result<PromptGrouping, Box<dyn Error + Send + Sync>> {
    let prefix = adapter.map_or(usize::MAX, LoadedAdapter::prefix);
    let counted = &token_ids[..prefix.min(token_ids.len())];
    // One prompt at a time, so that an embedding does not depend on which others are embedded.
    let model = &shared.loaded.model;
    let embedding = match adapter {
        Some(adapter) => adapter.adapter.embed_prompts(model, &[counted]),
        None => embed_prompts(model, &[counted]),
    }; // [1, hidden]
    let nearest = adapter
        .map(|adapter| (adapter.grouping)(&embedding))
        .transpose()?;
    Ok(PromptGrouping {
        embedding: on_host(embedding),
        nearest,
    })
}

/// The condition of a group, `[hidden]`, and how many prompts it sums up.
fn condition(group: &Group, started: &[Grouped]) -> (Arc<[f32]>, usize) {
    let own = match &group.source {
        ConditionSource::Given(values, group_size) => return (Arc::clone(values), *group_size),
        ConditionSource::Embedding(own) => own,
    };
    let members: Vec<&[f32]> = if sums_up_prompts(group.condition) {
        let others = started.iter().filter_map(|other| other.group.as_ref());
        others
            .filter(|other| {
                other.adapter.id == group.adapter.id
                    && other.cluster_idx == group.cluster_idx
                    && other.condition == group.condition
            })
            .filter_map(|other| match &other.source {
                ConditionSource::Embedding(embedding) => Some(embedding.as_slice()),
                ConditionSource::Given(..) => None,
            })
            .collect()
    } else {
        vec![own]
    };
    let condition = sum_up(&group.adapter, group.condition, group.cluster_idx, &members);
    (condition.into(), members.len())
}

/// Whether a condition depends on which prompts are together.
fn sums_up_prompts(condition: Condition) -> bool {
    matches!(condition, Condition::Batch | Condition::Blend { .. })
}

/// The condition, `[hidden]`, of prompts of one group with these embeddings.
fn sum_up(
    adapter: &LoadedAdapter,
    condition: Condition,
    cluster_idx: usize,
    embeddings: &[&[f32]],
) -> Vec<f32> {
    let centroids = &adapter.adapter.centroids;
    let [_, hidden_size] = centroids.dims();
    let data = TensorData::new(embeddings.concat(), [embeddings.len(), hidden_size]);
    on_host(condition.conditions(PromptGroup {
        prompt_embeddings: Tensor::from_data(data, &centroids.device()),
        centroids: centroids.clone(),
        cluster_idx,
    }))
}

/// The conditions of prompts that are all known: each group is summed up over all of them.
pub(super) fn group_all(
    shared: &Shared,
    adapter: &LoadedAdapter,
    prompts: &[&[u32]],
) -> Result<Vec<Arc<GivenCondition>>, Box<dyn Error + Send + Sync>> {
    let condition = adapter.adapter.config.condition;
    let mut found = Vec::with_capacity(prompts.len());
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (prompt_idx, prompt) in prompts.iter().enumerate() {
        let PromptGrouping { embedding, nearest } = group(shared, Some(adapter), prompt)?;
        let nearest = nearest.ok_or("no group was found")?;
        members
            .entry(nearest.cluster_idx)
            .or_default()
            .push(prompt_idx);
        found.push((embedding, nearest));
    }
    let mut given: Vec<Option<Arc<GivenCondition>>> = vec![None; prompts.len()];
    for (cluster_idx, members) in members {
        let group_size = if sums_up_prompts(condition) {
            members.len()
        } else {
            1
        };
        for together in members.chunks(group_size) {
            let embeddings: Vec<&[f32]> = together
                .iter()
                .map(|&idx| found[idx].0.as_slice())
                .collect();
            let values: Arc<[f32]> = sum_up(adapter, condition, cluster_idx, &embeddings).into();
            for &prompt_idx in together {
                given[prompt_idx] = Some(Arc::new(GivenCondition {
                    cluster_idx,
                    distance: found[prompt_idx].1.distance,
                    condition,
                    values: Arc::clone(&values),
                    group_size,
                }));
            }
        }
    }
    Ok(given.into_iter().flatten().collect())
}

fn start(
    shared: &Shared,
    grouped: Grouped,
    condition: Option<(Arc<[f32]>, usize)>,
    factors: &mut FactorCache,
) -> Result<(Running, Vec<u32>), Over> {
    let Grouped { mut pending, group } = grouped;
    let mut row_factors = None;
    let mut started_group = None;
    if let (Some(group), Some((condition, group_size))) = (&group, condition) {
        let scale = pending.request.scale;
        let needed = scale != 0.0;
        if needed {
            let found = catch_unwind(AssertUnwindSafe(|| {
                factors
                    .get(&group.adapter, group.cluster_idx, &condition)
                    .map_err(Into::into)
            }))
            .unwrap_or_else(|panic| Err(message_of(panic.as_ref()).into()));
            let found: Result<_, Box<dyn Error + Send + Sync>> = found;
            match found {
                Ok(factors) => row_factors = Some(RowFactors { factors, scale }),
                Err(error) => return Err(refuse(&mut pending, error.as_ref())),
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
            group_size,
        });
    }
    let request = pending.request;
    let mut running = Running {
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
    running.tell(Event::Started(Started {
        group: started_group,
        waited: pending.submitted.elapsed(),
    }));
    if request.max_new_tokens > 0 {
        return Ok((running, request.prompt_token_ids));
    }
    let end = match running.finish(EndReason::MaxNewTokens, &shared.loaded.tokenizer) {
        Ok(()) => End::Finished,
        Err(message) => {
            let failure = RequestFailure::Text { message };
            running.tell(Event::Failed(failure.clone()));
            End::Failed(failure)
        }
    };
    running.leave_group();
    Err(Over {
        num_tokens: running.num_tokens,
        end,
    })
}

fn refuse(pending: &mut Pending, error: &(dyn Error + Send + Sync)) -> Over {
    let failure = RequestFailure::Grouping {
        message: error.to_string(),
    };
    tell(&mut pending.sink, Event::Failed(failure.clone()));
    Over {
        num_tokens: pending.num_tokens,
        end: End::Failed(failure),
    }
}
