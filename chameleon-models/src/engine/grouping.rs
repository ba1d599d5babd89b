//! The group of a prompt, and the condition of the prompts of a group.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use chameleon_hypernet::{Condition, PromptGroup};

use super::adapters::{LoadedAdapter, NearestGroup};
use super::decode_batch::on_host;
use super::request::{ConditionChoice, GivenCondition};
use super::shared::{Pending, Shared};
use crate::adapter::prompts::embed_prompts;

/// The embedding of a prompt, and its group.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptGrouping {
    /// The prompt embedding, `[hidden]`.
    pub embedding: Vec<f32>,
    /// Its group; `None` without an adapter.
    pub nearest: Option<NearestGroup>,
}

/// The group of a request.
pub(super) struct Group {
    pub(super) adapter: Arc<LoadedAdapter>,
    pub(super) condition: Condition,
    pub(super) cluster_idx: usize,
    pub(super) distance: f32,
    source: ConditionSource,
}

/// The condition of a group.
pub(super) struct GroupCondition {
    /// `[hidden]`
    pub(super) values: Arc<[f32]>,
    /// The number of prompts in it.
    pub(super) group_size: usize,
}

/// The source of the condition.
enum ConditionSource {
    /// The embedding of the prompt, `[hidden]`, and those of the prompts that start with it.
    Embedding(Vec<f32>),
    /// A condition that was computed beforehand.
    Given(Arc<GivenCondition>),
}

/// The group of a request; `None` without an adapter.
pub(super) fn find_group(
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
                source: ConditionSource::Given(Arc::clone(given)),
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

/// Embeds the tokens by which a prompt is grouped, and finds its group.
pub(super) fn group(
    shared: &Shared,
    adapter: Option<&LoadedAdapter>,
    token_ids: &[u32],
) -> Result<PromptGrouping, Box<dyn Error + Send + Sync>> {
    let prefix = adapter.map_or(usize::MAX, LoadedAdapter::prefix);
    let counted = &token_ids[..prefix.min(token_ids.len())];
    // One prompt at a time, so that an embedding does not depend on which others are embedded with it.
    let model = &shared.loaded.model;
    let embedding = match adapter {
        Some(adapter) => adapter.adapter.embed_prompts(model, &[counted]),
        None => embed_prompts(model, &[counted]),
    }; // [1, hidden]
    let nearest = adapter
        .map(|adapter| adapter.nearest(&embedding))
        .transpose()?;
    Ok(PromptGrouping {
        embedding: on_host(embedding),
        nearest,
    })
}

/// The condition of a group among those of the requests that start together.
pub(super) fn condition<'a>(
    group: &Group,
    together: impl Iterator<Item = &'a Group>,
) -> GroupCondition {
    let own = match &group.source {
        ConditionSource::Given(given) => {
            return GroupCondition {
                values: Arc::clone(&given.values),
                group_size: given.group_size,
            };
        }
        ConditionSource::Embedding(own) => own,
    };
    let members: Vec<&[f32]> = if is_mean_of_prompts(group.condition) {
        together
            .filter(|other| {
                other.adapter.id == group.adapter.id
                    && other.cluster_idx == group.cluster_idx
                    && other.condition == group.condition
            })
            .filter_map(|other| match &other.source {
                ConditionSource::Embedding(embedding) => Some(embedding.as_slice()),
                ConditionSource::Given(_) => None,
            })
            .collect()
    } else {
        vec![own]
    };
    GroupCondition {
        values: condition_of(&group.adapter, group.condition, group.cluster_idx, &members).into(),
        group_size: members.len(),
    }
}

/// Whether a condition depends on which prompts start together.
fn is_mean_of_prompts(condition: Condition) -> bool {
    matches!(condition, Condition::Batch | Condition::Blend { .. })
}

/// The condition, `[hidden]`, of prompts of one group with these embeddings.
fn condition_of(
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

/// The conditions of prompts that are all known, each computed from all prompts of its group.
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
        let group_size = if is_mean_of_prompts(condition) {
            members.len()
        } else {
            1
        };
        for together in members.chunks(group_size) {
            let embeddings: Vec<&[f32]> = together
                .iter()
                .map(|&idx| found[idx].0.as_slice())
                .collect();
            let values: Arc<[f32]> =
                condition_of(adapter, condition, cluster_idx, &embeddings).into();
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
