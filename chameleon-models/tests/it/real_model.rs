//! SmolLM2 against Hugging Face: `cargo xtask real-model MODEL GREEDY`.
//!
//! `CHAMELEON_TEST_GGUF` names the model, `CHAMELEON_TEST_GREEDY` a JSON file with `prompts` and
//! `continuations` as token ids, decoded greedily by transformers from the same dequantised weights.

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::Device;
use chameleon_core::RunSeed;
use chameleon_models::{
    Checkpoint, GenerateOptions, LanguageModel, LlamaConfig, Sampling, generate,
};
use serde_json::Value;

fn load(path: &Path) -> LanguageModel {
    let checkpoint = Checkpoint::open(path).unwrap();
    let config: LlamaConfig = serde_json::from_value(checkpoint.config().clone()).unwrap();
    let mut model = LanguageModel::Llama(config.init(&Device::flex()).unwrap());
    let report = model.import(&checkpoint);
    assert!(report.is_complete(), "{report:?}");
    assert!(report.unused.is_empty(), "{report:?}");
    model
}

#[test]
#[ignore = "needs a model: cargo xtask real-model MODEL GREEDY"]
fn greedy_texts_of_a_real_model_are_those_of_transformers() {
    let file = |variable: &str| std::env::var_os(variable).expect("cargo xtask real-model sets it");
    let model = file("CHAMELEON_TEST_GGUF");
    let json = std::fs::read_to_string(file("CHAMELEON_TEST_GREEDY")).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    let lists = |key: &str| -> Vec<Vec<u32>> { serde_json::from_value(json[key].clone()).unwrap() };
    let (prompts, expected) = (lists("prompts"), lists("continuations"));

    let model = load(Path::new(&model));
    let options = GenerateOptions {
        max_new_tokens: expected[0].len(),
        sampling: Sampling::Greedy,
        stop_token_ids: vec![],
        seed: RunSeed(0),
    };
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let output = generate(&model, &prompts, &options, |_| ControlFlow::Continue(())).unwrap();
    for (generation, expected) in output.generations.iter().zip(&expected) {
        assert_eq!(&generation.token_ids, expected);
    }
}
