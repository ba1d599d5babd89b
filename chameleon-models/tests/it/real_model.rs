//! SmolLM2 against Hugging Face: `cargo xtask real-model MODEL GREEDY`.
//!
//! `CHAMELEON_TEST_GGUF` names the model, `CHAMELEON_TEST_GREEDY` a JSON file with `prompts` and
//! `continuations` as token ids, decoded greedily by transformers from the same dequantised weights.

use std::path::PathBuf;

use burn::tensor::Device;
use chameleon_models::engine::{EndOfText, Engine, EngineOptions, Request};
use chameleon_models::{HubOptions, ModelSource, load};
use serde_json::Value;

#[test]
#[ignore = "needs a model: cargo xtask real-model MODEL GREEDY"]
fn greedy_texts_of_a_real_model_are_those_of_transformers() {
    let file = |variable: &str| std::env::var_os(variable).expect("cargo xtask real-model sets it");
    let model = file("CHAMELEON_TEST_GGUF");
    let json = std::fs::read_to_string(file("CHAMELEON_TEST_GREEDY")).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    let lists = |key: &str| -> Vec<Vec<u32>> { serde_json::from_value(json[key].clone()).unwrap() };
    let (prompts, expected) = (lists("prompts"), lists("continuations"));

    let source = ModelSource::Gguf(PathBuf::from(model));
    let loaded = load(&source, &HubOptions::from_env(), &Device::flex()).unwrap();
    assert!(loaded.report.is_complete(), "{:?}", loaded.report);
    assert!(loaded.report.unused.is_empty(), "{:?}", loaded.report);
    let engine = Engine::start(loaded, EngineOptions::default()).unwrap();
    for (prompt, expected) in prompts.into_iter().zip(&expected) {
        let mut request = Request::new(prompt, expected.len());
        request.end_of_text = EndOfText::Ignored;
        let answer = engine.submit(request).unwrap().wait().unwrap();
        assert_eq!(&answer.token_ids, expected);
    }
}
