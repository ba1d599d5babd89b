//! What both sides read.

use std::error::Error;
use std::fs;
use std::path::Path;

use burn::tensor::Device;
use chameleon_cluster::{BatchPlan, PlannedBatch};
use chameleon_core::SplitSequence;
use chameleon_models::data::Example;
use chameleon_models::training::{GroupedExamples, embed_examples};
use chameleon_models::{HubOptions, LoadedModel, ModelSource, load};

pub(crate) fn model(folder: &Path, device: &Device) -> Result<LoadedModel, Box<dyn Error>> {
    let source = ModelSource::Folder(folder.to_owned());
    Ok(load(&source, &HubOptions::from_env(), device)?)
}

/// Rows of token ids.
pub(crate) fn tokens(folder: &Path, name: &str) -> Result<Vec<Vec<u32>>, Box<dyn Error>> {
    Ok(serde_json::from_slice(&fs::read(folder.join(name))?)?)
}

/// Rows as one group, a few at a time; all tokens but the first are scored.
pub(crate) fn grouped(
    loaded: &LoadedModel,
    rows: Vec<Vec<u32>>,
    batch_size: usize,
) -> Result<GroupedExamples, Box<dyn Error>> {
    let examples = rows
        .into_iter()
        .enumerate()
        .map(|(idx, token_ids)| {
            let sequence = SplitSequence::new(token_ids, 1)?;
            Ok(Example::of_prefix(sequence, idx, None, 1))
        })
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    let rows: Vec<usize> = (0..examples.len()).collect();
    Ok(GroupedExamples {
        prompt_embeddings: embed_examples(&loaded.model, &examples),
        assignments: vec![0; examples.len()],
        plan: BatchPlan {
            batches: rows
                .chunks(batch_size)
                .map(|rows| PlannedBatch {
                    cluster_idx: 0,
                    rows: rows.to_vec(),
                })
                .collect(),
        },
        examples,
    })
}

/// Numbers that Python computes alike: a hash of their place, spread evenly around zero.
pub(crate) fn noise(len: usize, width: f64) -> Vec<f32> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a hash keeps the lowest bits, and f32 is what both sides compute in"
    )]
    let values = (0..len)
        .map(|place| {
            let hash = (place as u32).wrapping_mul(2_654_435_761);
            ((f64::from(hash) / 4_294_967_296.0 - 0.5) * width) as f32
        })
        .collect();
    values
}
