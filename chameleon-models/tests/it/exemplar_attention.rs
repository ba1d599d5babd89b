//! Attention to exemplars: PyTorch's loss and gradients, and the same context however many exemplars are read together.

use burn::tensor::Device;
use chameleon_models::adapter::{AttentionConfig, ExemplarUse};

use crate::exemplar_case::ExemplarCase;
use crate::fixture::Fixture;

const HOW: ExemplarUse = ExemplarUse::Attention(AttentionConfig { num_exemplars: 3 });

fn case(device: &Device) -> ExemplarCase {
    let expected = Fixture::of_attention("llama", "tied");
    ExemplarCase::read(expected, &["k_proj", "v_proj", "down_proj"], device)
}

#[test]
fn loss_and_gradients_through_requests_and_exemplars_are_those_of_pytorch() {
    let case = case(&Device::flex().autodiff());
    let layers = case
        .module
        .trained_group_layers(&case.model, &case.exemplars(), HOW);
    case.check_loss_and_gradients(&layers);
}

#[test]
fn layers_for_inference_hold_the_tokens_of_every_exemplar() {
    let case = case(&Device::flex());
    let layers = case
        .module
        .group_layers(&case.model, &case.exemplars(), HOW);
    let context = layers.context().unwrap();
    assert_eq!(context.num_tokens(), 7 + 13 + 6);
    assert!(layers.is_finite());
    assert!(layers.clone().with_strength(0.0).context().is_none());
}
