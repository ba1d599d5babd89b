//! The Llama family against Hugging Face transformers, on tiny seeded models.

use burn::tensor::{Device, Tensor};
use chameleon_models::{CausalLm, LanguageModel};

use crate::fixture::{Fixture, adapted_logits, next_token_loss, untrained};

const CASES: [&str; 3] = ["tied", "untied", "llama3_rope"];

fn logits(model: &LanguageModel, hidden: Tensor<3>) -> Tensor<3> {
    hidden.matmul(model.head_weight().to_dense().unsqueeze())
}

#[test]
fn hidden_states_logits_and_loss_are_those_of_transformers() {
    let device = Device::flex();
    for case in CASES {
        let fixture = Fixture::read("llama", case);
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
        let fixture = Fixture::read("llama", case);
        // The frozen model stays off the autodiff device; the factors are on it.
        let model = fixture.model(&Device::flex());
        let layers = fixture.adapted_layers(&model, &["q_proj", "v_proj"], "layers", &device);
        let token_ids = fixture.token_ids(&Device::flex());
        let factors = layers.shared().for_all_groups().for_batch();
        let logits = adapted_logits(&model, token_ids.clone(), &factors);
        fixture.assert_close("lora.logits", logits.clone());
        let loss = next_token_loss(logits, token_ids);
        fixture.assert_close("lora.loss", loss.clone());
        assert_eq!(layers.factors.len(), 2 * model.sizes().num_layers);
        fixture.check_factor_gradients(&layers, "layers", &loss.backward());
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let mut fixture = Fixture::read("llama", "tied");
    let weights = &mut fixture.weights;
    weights.remove("model.layers.1.mlp.up_proj.weight");
    let misshapen = "model.layers.0.mlp.down_proj.weight";
    weights.get_mut(misshapen).unwrap().shape = vec![32, 16];
    for name in [
        "model.layers.0.self_attn.q_proj.bias",
        "model.layers.0.extra",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
    ] {
        weights.insert(name.to_owned(), weights["model.norm.weight"].clone());
    }
    let embedding = weights["model.embed_tokens.weight"].clone();
    weights.insert("lm_head.weight".to_owned(), embedding);

    let checkpoint = fixture.checkpoint();
    let report = untrained(&checkpoint, &Device::flex()).import(&checkpoint);
    assert!(!report.is_complete());
    assert_eq!(report.missing, ["model.layers.1.mlp.up_proj.weight"]);
    assert_eq!(
        report.unused,
        [
            "model.layers.0.extra",
            "model.layers.0.self_attn.q_proj.bias"
        ]
    );
    assert_eq!(
        report.ignored,
        [
            "model.layers.0.self_attn.rotary_emb.inv_freq",
            "lm_head.weight"
        ]
    );
    assert_eq!(report.misshapen.len(), 1);
    assert_eq!(report.misshapen[0].name, misshapen);
    let misshapen = &report.misshapen[0];
    assert_eq!(misshapen.found, [32, 16]);
    assert_eq!(misshapen.expected, [16, 32]);
}

#[test]
fn names_may_lack_the_prefix() {
    let mut fixture = Fixture::read("llama", "tied");
    fixture.rename(|name| name.trim_start_matches("model.").to_owned());
    let checkpoint = fixture.checkpoint();
    let report = untrained(&checkpoint, &Device::flex()).import(&checkpoint);
    assert!(report.is_complete() && report.unused.is_empty());
}

#[test]
fn padding_on_the_right_changes_no_real_token() {
    let device = Device::flex();
    let fixture = Fixture::read("llama", "llama3_rope");
    let model = fixture.model(&device);
    let token_ids = fixture.token_ids(&device);
    let short = model.hidden_states(token_ids.clone().narrow(1, 0, 9));
    let long = model.hidden_states(token_ids).narrow(1, 0, 9);
    crate::fixture::assert_all_close(
        "padded",
        &long.into_data().try_to_vec().unwrap(),
        &short.into_data().try_to_vec().unwrap(),
    );
}
