//! The GPT-2 family against Hugging Face transformers, on tiny seeded models.

use burn::tensor::{Device, Tensor};
use chameleon_models::families::{DecoderConfig, KvCache, Segment};
use chameleon_models::{CausalLm, LanguageModel};

use crate::fixture::{Fixture, adapted_logits, next_token_loss, untrained};

const CASES: [&str; 2] = ["tied", "untied"];

fn logits(model: &LanguageModel, hidden: Tensor<3>) -> Tensor<3> {
    hidden.matmul(model.head_weight().to_dense().unsqueeze())
}

#[test]
fn hidden_states_logits_and_loss_are_those_of_transformers() {
    let device = Device::flex();
    for case in CASES {
        let fixture = Fixture::read("gpt2", case);
        let model = fixture.model(&device);
        let token_ids = fixture.token_ids(&device);
        let hidden = model.hidden_states(token_ids.clone());
        fixture.assert_close("hidden", hidden.clone());
        let logits = logits(&model, hidden);
        fixture.assert_close("logits", logits.clone());
        fixture.assert_close("loss", next_token_loss(logits, token_ids));
    }
}

#[test]
fn lora_logits_and_gradients_are_those_of_transformers() {
    let device = Device::flex().autodiff();
    for case in CASES {
        let fixture = Fixture::read("gpt2", case);
        // The frozen model stays off the autodiff device; the factors are on it.
        let model = fixture.model(&Device::flex());
        let layers = fixture.adapted_layers(&model, &["c_attn"], "h", &device);
        let token_ids = fixture.token_ids(&Device::flex());
        let factors = layers.shared().for_all_groups().for_batch();
        let logits = adapted_logits(&model, token_ids.clone(), &factors);
        fixture.assert_close("lora.logits", logits.clone());
        let loss = next_token_loss(logits, token_ids);
        fixture.assert_close("lora.loss", loss.clone());
        assert_eq!(layers.factors.len(), model.sizes().num_layers);
        fixture.check_factor_gradients(&layers, "h", &loss.backward());
    }
}

#[test]
fn names_of_a_base_model_with_old_buffers_are_understood() {
    let mut fixture = Fixture::read("gpt2", "tied");
    let buffer = fixture.weights["transformer.ln_f.bias"].clone();
    let embedding = fixture.weights["transformer.wte.weight"].clone();
    fixture.rename(|name| name.trim_start_matches("transformer.").to_owned());
    let copies = [("h.0.attn.bias", buffer), ("lm_head.weight", embedding)];
    fixture
        .weights
        .extend(copies.map(|(name, array)| (name.to_owned(), array)));
    let checkpoint = fixture.checkpoint();
    let report = untrained(&checkpoint, &Device::flex()).import(&checkpoint);
    assert!(report.is_complete() && report.unused.is_empty());
    assert_eq!(report.ignored, ["h.0.attn.bias", "lm_head.weight"]);
}

#[test]
#[should_panic(expected = "position 64 is past the 64 the model has")]
fn a_position_past_the_table_is_a_bug_of_the_caller() {
    let device = Device::flex();
    let model = DecoderConfig::tiny_gpt2().init(&device).unwrap();
    let mut cache = KvCache::new(model.sizes(), &device);
    let row = cache.add_row();
    for token_ids in [&[0; 64][..], &[0]] {
        let segment = Segment {
            row,
            token_ids,
            layers: None,
        };
        model.hidden_states_with_cache(&[segment], &mut cache);
    }
}
