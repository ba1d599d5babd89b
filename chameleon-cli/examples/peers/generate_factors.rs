//! The factors of groups that were never seen before, generated one group after the other.

use std::error::Error;
use std::path::Path;

use burn::tensor::Device;
use chameleon_models::adapter::embed_prompts;
use serde_json::json;

use crate::{decode_groups, inputs, rounds};

/// As many groups as a round of decoding has steps.
const NUM_GROUPS: u32 = 64;

/// Returns the number of groups.
pub(crate) fn run(folder: &Path) -> Result<(), Box<dyn Error>> {
    let loaded = inputs::model(folder, &Device::flex())?;
    let prompts: Vec<Vec<u32>> = (100..100 + NUM_GROUPS)
        .map(|token_id| vec![token_id; 8])
        .collect();
    let adapter = decode_groups::adapter(&loaded, &prompts, 1, &[])?;
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let conditions = embed_prompts(&loaded.model, &prompts);
    let producer = adapter.module.factor_producer();
    rounds::serve(&json!({ "groups": NUM_GROUPS }), || {
        let mut num_groups = 0.0;
        for condition in conditions.clone().split(1, 0) {
            for group in producer.groups(0, condition) {
                // Laid out as decoding wants them, which is part of what a new group costs.
                num_groups += adapter.module.head.join(vec![group.head]).num_groups() as f64;
            }
        }
        Ok(num_groups)
    })
}
