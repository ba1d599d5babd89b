//! The fused loss of a language-model head beside the plain one: the same value and the same gradients, with one
//! chunk of logits in memory instead of all of them.
//!
//! `cargo run -p chameleon-core --example fused_loss`
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Device, Distribution, Int, Tensor};
use chameleon_core::{HeadInput, LoraFactors, linear_cross_entropy, perplexity};

const NUM_ROWS: usize = 384;
const HIDDEN: usize = 64;
const VOCAB: usize = 8192;
const RANK: usize = 4;

fn main() {
    let device = Device::flex().autodiff();
    device.seed(1);
    let random = |shape: [usize; 2], std: f64| {
        Tensor::<2>::random(shape, Distribution::Normal(0.0, std), &device)
    };
    let hidden = random([NUM_ROWS, HIDDEN], 1.0);
    // A frozen head with trainable factors on top.
    let weight = random([HIDDEN, VOCAB], 0.1);
    let factors = LoraFactors {
        a: random([HIDDEN, RANK], 0.1).require_grad(),
        b: random([RANK, VOCAB], 0.1).require_grad(),
        scale: 1.0,
    };
    let targets = Tensor::<1, Int>::arange(0..384, &device);

    let logits = hidden.clone().matmul(weight.clone()) + factors.apply(hidden.clone());
    let plain = CrossEntropyLossConfig::new()
        .init(&device)
        .forward(logits, targets.clone());
    let plain_grads = plain.backward();

    let input = HeadInput {
        hidden,
        weight: weight.into(),
        factors: Some(factors.clone()),
    };
    let fused = linear_cross_entropy(input, targets);
    let fused_grads = fused.mean_loss.backward();

    let (plain, fused): (f32, f32) = (plain.into_scalar(), fused.mean_loss.into_scalar());
    println!("mean loss, plain: {plain:.4} nats");
    println!(
        "mean loss, fused: {fused:.4} nats, perplexity {:.1}",
        perplexity(f64::from(fused))
    );
    for (name, factor) in [("a", &factors.a), ("b", &factors.b)] {
        let gradient = |grads| factor.grad(grads).expect("factors are tracked");
        let difference = gradient(&fused_grads) - gradient(&plain_grads);
        let largest: f32 = difference.abs().max().into_scalar();
        println!("largest difference of the gradients of {name}: {largest:.1e}");
        assert!(largest < 1e-5);
    }
    assert!((plain - fused).abs() < 1e-3);
}
