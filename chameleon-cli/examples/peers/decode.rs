//! Decoding one stream, greedily, from a short prompt. A round returns the sum of the new token ids where every
//! side computes in f32, and with their number where each rounds in its own way.

use std::error::Error;

use burn::tensor::Device;
use chameleon_models::engine::{EndOfText, Engine, EngineOptions, Request};
use chameleon_models::{HubOptions, ModelSource, WeightStorage, load_as};
use serde_json::json;

use crate::rounds;

/// Tokens of the prompt, which every side reads in its round.
const PROMPT: std::ops::Range<u32> = 100..108;
/// Tokens that a round adds.
const NUM_TOKENS: usize = 64;

pub(crate) fn run(storage: WeightStorage, source: &ModelSource) -> Result<(), Box<dyn Error>> {
    let loaded = load_as(storage, source, &HubOptions::from_env(), &Device::flex())?;
    let prompt: Vec<u32> = PROMPT.collect();
    let engine = Engine::start(loaded, EngineOptions::default())?;
    rounds::serve(&json!({ "tokens": NUM_TOKENS }), || {
        let request = Request {
            end_of_text: EndOfText::Ignored,
            ..Request::new(prompt.clone(), NUM_TOKENS)
        };
        let token_ids = engine.submit(request)?.wait()?.token_ids;
        Ok(match storage {
            WeightStorage::F32 => token_ids.iter().map(|&token_id| f64::from(token_id)).sum(),
            WeightStorage::Stored => token_ids.len() as f64,
        })
    })
}
