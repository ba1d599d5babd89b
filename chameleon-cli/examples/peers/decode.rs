//! Decoding one stream, greedily, from a short prompt. A round answers with the sum of the new token ids where every
//! side computes in f32, and with their number where each rounds in its own way.

use std::error::Error;
use std::ops::ControlFlow;

use burn::tensor::Device;
use chameleon_core::RunSeed;
use chameleon_models::{
    GenerateOptions, HubOptions, ModelSource, Sampling, WeightStorage, generate, load_as,
};
use serde_json::json;

use crate::rounds;

/// Tokens of the prompt, which every side reads in its round.
const PROMPT: std::ops::Range<u32> = 100..108;
/// Tokens that a round adds.
const NUM_TOKENS: usize = 64;

pub(crate) fn run(storage: WeightStorage, source: &ModelSource) -> Result<(), Box<dyn Error>> {
    let loaded = load_as(storage, source, &HubOptions::from_env(), &Device::flex())?;
    let prompt: Vec<u32> = PROMPT.collect();
    let options = GenerateOptions {
        max_new_tokens: NUM_TOKENS,
        sampling: Sampling::Greedy,
        stop_token_ids: Vec::new(),
        seed: RunSeed(1),
    };
    rounds::serve(&json!({ "tokens": NUM_TOKENS }), || {
        let output = generate(&loaded.model, &[&prompt], &options, |_| {
            ControlFlow::Continue(())
        })?;
        let token_ids = &output.generations[0].token_ids;
        Ok(match storage {
            WeightStorage::F32 => token_ids.iter().map(|&token_id| f64::from(token_id)).sum(),
            WeightStorage::Packed => token_ids.len() as f64,
        })
    })
}
