//! Adapters for the commands that use one: read for a model, and turned into factors for the prompts at hand.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::{Tensor, TensorData};
use chameleon_cluster::assign;
use chameleon_hypernet::{GroupedFactors, PromptGroup};
use chameleon_models::{Adapter, CausalLm, LanguageModel, LoadedModel, prompts::embed_prompts};

use crate::errors::CliError;

/// Reads an adapter for a model, on the model's device.
pub(crate) fn load(folder: &Path, loaded: &LoadedModel) -> Result<Adapter, CliError> {
    let device = loaded.model.head_weight().device();
    Ok(Adapter::load(
        folder,
        &loaded.model,
        &loaded.identity,
        &device,
    )?)
}

/// The transformer that runs: the adapter's own if it adapts layers, else the model's.
pub(crate) fn trunk<'a>(adapter: &'a Adapter, loaded: &'a LoadedModel) -> &'a LanguageModel {
    adapter.trainee.trunk.as_ref().unwrap_or(&loaded.model)
}

/// Prompts with the group each falls in, and the factors of the groups.
#[derive(Debug)]
pub(crate) struct AdaptedPrompts {
    /// The trained cluster nearest to each prompt.
    pub(crate) assignments: Vec<usize>,
    /// How far each prompt is from its centroid.
    pub(crate) distances: Vec<f32>,
    /// One pair for each group, or for each prompt.
    pub(crate) factors: GroupedFactors,
    /// Which of `factors` belongs to each prompt.
    pub(crate) factors_of_prompt: Vec<usize>,
}

/// Groups prompts by the nearest trained centroid and lets the adapter write the factors of every group.
///
/// All prompts of a run are grouped together, so that the size of the decoded batches changes nothing.
pub(crate) fn adapt(
    adapter: &Adapter,
    loaded: &LoadedModel,
    prompts: &[&[u32]],
) -> Result<AdaptedPrompts, CliError> {
    let embeddings = embed_prompts(&loaded.model, prompts);
    let nearest = assign(&embeddings, &adapter.centroids)?;
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (prompt_idx, &cluster_idx) in nearest.assignments.iter().enumerate() {
        members.entry(cluster_idx).or_default().push(prompt_idx);
    }
    let mut factors = Vec::new();
    let mut factors_of_prompt = vec![0; prompts.len()];
    for (cluster_idx, members) in members {
        let conditions = adapter.config.condition.conditions(PromptGroup {
            prompt_embeddings: rows(&embeddings, &members),
            centroids: adapter.centroids.clone(),
            cluster_idx,
        });
        let group = adapter.trainee.head.factors(cluster_idx, conditions);
        let first = factors.len();
        for (member_idx, prompt_idx) in members.into_iter().enumerate() {
            // One pair serves the whole group, or there is one for each member.
            factors_of_prompt[prompt_idx] = first + member_idx.min(group.len() - 1);
        }
        factors.extend(group);
    }
    Ok(AdaptedPrompts {
        assignments: nearest.assignments,
        distances: nearest.distances,
        factors: GroupedFactors::join(factors),
        factors_of_prompt,
    })
}

#[expect(clippy::cast_possible_wrap, reason = "no run has that many prompts")]
fn rows(embeddings: &Tensor<2>, indices: &[usize]) -> Tensor<2> {
    let shape = [indices.len()];
    let indices: Vec<i64> = indices.iter().map(|&idx| idx as i64).collect();
    let indices = Tensor::from_data(TensorData::new(indices, shape), &embeddings.device());
    embeddings.clone().select(0, indices)
}
