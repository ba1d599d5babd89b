//! What a `config.json` describes, and what is refused by its name.

use chameleon_models::Architecture;
use chameleon_models::families::{
    Activation, DecoderConfig, Llama3Scaling, NormPlace, QueryKeyNorm, RopeScaling,
};
use serde_json::{Value, json};

/// Sizes that every family but GPT-2 takes.
fn sizes() -> Value {
    json!({"vocab_size": 96, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 64,
        "use_cache": true, "torch_dtype": "float32"})
}

fn gpt2_sizes() -> Value {
    json!({"vocab_size": 96, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 4})
}

fn changed(mut config: Value, changes: &Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

fn config(family: &str, changes: &Value) -> DecoderConfig {
    let family = Architecture::from_name(family).unwrap();
    family.config(&changed(sizes(), changes)).unwrap()
}

fn windows(config: &DecoderConfig) -> Vec<Option<usize>> {
    config
        .layers
        .iter()
        .map(|layer| layer.scores.window)
        .collect()
}

#[test]
fn rope_is_read_from_old_and_new_files() {
    let values = json!({"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32, "rope_type": "llama3", "rope_theta": 500_000.0});
    let old = config(
        "llama",
        &json!({"rope_theta": 500_000.0, "rope_scaling": values}),
    );
    let new = config(
        "llama",
        &json!({"rope_theta": null, "rope_parameters": values}),
    );
    assert_eq!(old, new);
    assert_eq!(
        old.rotary[0].scaling,
        RopeScaling::Llama3(Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_seq_len: 32
        })
    );
    // Some releases of transformers wrote both spellings of the kind.
    let both = json!({"rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 2}});
    let linear = config("llama", &both);
    assert_eq!(
        linear.rotary[0].scaling,
        RopeScaling::Linear { factor: 2.0 }
    );
}

#[test]
fn positions_that_depend_on_the_length_end_where_they_change() {
    let dynamic = json!({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}});
    assert!(config("llama", &dynamic).has_last_position());
    let long = json!({"rope_scaling": {"type": "longrope", "short_factor": [1, 1], "long_factor": [2, 2]},
        "original_max_position_embeddings": 32});
    let long = config("phi3", &long);
    assert!(long.has_last_position());
    assert_eq!(long.sizes.max_seq_len, 32);
    let early = json!({"rope_scaling": {"type": "yarn", "short_factor": [1, 1], "long_factor": [2, 2]},
        "original_max_position_embeddings": 32});
    assert_eq!(config("phi3", &early), long);
    let yarn = json!({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}});
    assert!(!config("llama", &yarn).has_last_position());
}

#[test]
fn windows_belong_to_the_layers_that_a_family_gives_them() {
    let mistral = |changes| windows(&config("mistral", &changes));
    assert_eq!(mistral(json!({})), [Some(4096); 4]);
    assert_eq!(mistral(json!({"sliding_window": null})), [None; 4]);
    let qwen = json!({"use_sliding_window": true, "sliding_window": 8, "max_window_layers": 3});
    for family in ["qwen2", "qwen3"] {
        assert_eq!(windows(&config(family, &qwen)), [None, None, None, Some(8)]);
        assert_eq!(
            windows(&config(family, &json!({"sliding_window": 8}))),
            [None; 4]
        );
    }
    let gemma = json!({"sliding_window": 8});
    let gemma2 = config("gemma2", &gemma);
    assert_eq!(windows(&gemma2), [Some(8), None, Some(8), None]);
    assert_eq!(gemma2.scales.logit_soft_cap, Some(30.0));
    assert_eq!(gemma2.norm_place, NormPlace::Both);
    let types = json!({"sliding_window": 8, "final_logit_softcapping": null,
        "layer_types": ["full_attention", "full_attention", "sliding_attention", "full_attention"]});
    let typed = config("gemma2", &types);
    assert_eq!(windows(&typed), [None, None, Some(8), None]);
    assert_eq!(typed.scales.logit_soft_cap, None);
}

#[test]
fn gemma_3_has_two_rotary_embeddings() {
    let old = config(
        "gemma3_text",
        &json!({"sliding_window_pattern": 2, "rope_theta": 500_000.0, "rope_local_base_freq": 5_000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
    );
    let new = config(
        "gemma3_text",
        &json!({"sliding_window_pattern": 2, "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 5_000.0}}}),
    );
    assert_eq!(old, new);
    assert_eq!(old.query_key_norm, Some(QueryKeyNorm::Head));
    assert_eq!(old.activation, Activation::GeluTanh);
    let rotary: Vec<_> = old.layers.iter().map(|layer| layer.rotary).collect();
    assert_eq!(rotary, [Some(1), Some(0), Some(1), Some(0)]);
}

#[test]
fn some_layers_of_smollm3_have_no_positions() {
    let rotary = |changes| -> Vec<_> {
        let config = config("smollm3", &changes);
        config.layers.iter().map(|layer| layer.rotary).collect()
    };
    assert_eq!(rotary(json!({})), [Some(0), Some(0), Some(0), None]);
    let listed = json!({"no_rope_layers": [0, 1, 1, 0]});
    assert_eq!(rotary(listed), [None, Some(0), Some(0), None]);
}

/// Changes of a family's configuration, and why each is refused.
fn assert_refused(cases: &[(&str, Value, &str)]) {
    for (family, changes, message) in cases {
        let family = Architecture::from_name(family).unwrap();
        let error = family.config(&changed(sizes(), changes)).unwrap_err();
        assert_eq!(error.to_string(), *message);
    }
}

#[test]
fn impossible_sizes_and_factors_are_named() {
    assert_refused(&[
        (
            "llama",
            json!({"vocab_size": 0}),
            "`vocab_size` is 0, expected at least 1",
        ),
        (
            "llama",
            json!({"vocab_size": null}),
            "`vocab_size` is missing, `config.json` needs it",
        ),
        (
            "llama",
            json!({"hidden_size": "x"}),
            "`hidden_size` is \"x\", expected a count",
        ),
        (
            "llama",
            json!({"num_hidden_layers": 10_001}),
            "`num_hidden_layers` is `10001`, supported: at most 10,000",
        ),
        (
            "llama",
            json!({"num_attention_heads": 0}),
            "`num_attention_heads` is 0, expected at least 1",
        ),
        (
            "llama",
            json!({"num_attention_heads": 3, "head_dim": null}),
            "`hidden_size` is 16, expected a multiple of `num_attention_heads`, which is 3",
        ),
        (
            "llama",
            json!({"num_key_value_heads": 3}),
            "`num_attention_heads` is 4, expected a multiple of `num_key_value_heads`, which is 3",
        ),
        (
            "llama",
            json!({"head_dim": 3}),
            "`values of a head that rotate` is 3, expected a multiple of `a pair`, which is 2",
        ),
        (
            "llama",
            json!({"rms_norm_eps": 0.0}),
            "`norm_eps` is 0, expected a positive number",
        ),
        (
            "llama",
            json!({"rms_norm_eps": "NaN"}),
            "`rms_norm_eps` is \"NaN\", expected a number",
        ),
        (
            "granite",
            json!({"logits_scaling": 0}),
            "`logits_scaling` is 0, expected a positive number",
        ),
        (
            "gemma2",
            json!({"final_logit_softcapping": -1}),
            "`final_logit_softcapping` is -1, expected a positive number",
        ),
    ]);
}

#[test]
fn impossible_rotary_embeddings_are_named() {
    assert_refused(&[
        (
            "llama",
            json!({"rope_scaling": {"rope_type": "axial", "factor": 2}}),
            "`rope_type` is `axial`, supported: default, linear, dynamic, yarn, llama3, longrope",
        ),
        (
            "llama",
            json!({"rope_scaling": {"rope_type": "llama3", "factor": 2}}),
            "`low_freq_factor` is missing, `rope_type llama3` needs it",
        ),
        (
            "llama",
            json!({"rope_scaling": {"rope_type": "linear", "factor": -1}}),
            "`factor` is -1, expected a positive number",
        ),
        (
            "phi3",
            json!({"rope_scaling": {"type": "longrope", "short_factor": [1], "long_factor": [1, 2]}}),
            "`short_factor` has 1 values, expected 2",
        ),
    ]);
}

#[test]
fn parts_that_are_not_implemented_are_named() {
    assert_refused(&[
        (
            "llama",
            json!({"hidden_act": "xielu"}),
            "`hidden_act` is `xielu`, supported: silu, gelu, gelu_new, gelu_pytorch_tanh, relu",
        ),
        (
            "llama",
            json!({"sliding_window": 8}),
            "`sliding_window` is `8`, supported: null, or no less than max_position_embeddings; `model_type` mistral has \
             one",
        ),
        (
            "mistral",
            json!({"sliding_window": 0}),
            "`sliding_window` is 0, expected at least 1",
        ),
        (
            "qwen3",
            json!({"layer_types": ["linear_attention", "full_attention", "full_attention", "full_attention"]}),
            "`layer_types` is `linear_attention`, supported: sliding_attention, full_attention",
        ),
        (
            "qwen3",
            json!({"layer_types": []}),
            "`layer_types` has 0 values, expected 4",
        ),
        (
            "granite",
            json!({"num_local_experts": 8}),
            "`num_local_experts` is `mixture of experts`, supported: models without experts",
        ),
        (
            "llama",
            json!({"quantization_config": {"quant_method": "gptq", "bits": 4}}),
            "`quantization_config` is `gptq`, supported: f32, f16 and bf16 weights, or a GGUF file",
        ),
        (
            "gemma3_text",
            json!({"use_bidirectional_attention": true}),
            "`use_bidirectional_attention` is `true`, supported: false",
        ),
    ]);
}

#[test]
fn impossible_values_of_gpt2_are_named() {
    for (changes, message) in [
        (
            json!({"n_head": 3}),
            "`n_embd` is 16, expected a multiple of `n_head`, which is 3",
        ),
        (
            json!({"n_positions": null}),
            "`n_positions` is missing, `config.json` needs it",
        ),
        (
            json!({"activation_function": "tanh"}),
            "`activation_function` is `tanh`, supported: silu, gelu, gelu_new, gelu_pytorch_tanh, relu",
        ),
        (
            json!({"add_cross_attention": true}),
            "`add_cross_attention` is `true`, supported: false",
        ),
    ] {
        let error = Architecture::Gpt2
            .config(&changed(gpt2_sizes(), &changes))
            .unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}
