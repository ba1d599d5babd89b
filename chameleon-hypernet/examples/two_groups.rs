//! Two groups of prompts want different next tokens after the same hidden states.
//!
//! A static head must settle on an average; a core head learns both. Run with
//! `cargo run -p chameleon-hypernet --example two_groups`.
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Int, Tensor};
use chameleon_core::{FactorShape, HeadInput, LoraFactors, RunSeed, linear_cross_entropy};
use chameleon_hypernet::{ConditionNorm, GeneratorKind, HyperLoraHeadConfig, LoraConfig};

const SHAPE: FactorShape = FactorShape {
    in_size: 16,
    out_size: 32,
    rank: 4,
};
const NUM_STEPS: usize = 200;
const LEARNING_RATE: f64 = 0.01;

/// What both heads are trained on.
struct Task {
    /// `[rows, hidden]`, shared by the groups.
    hidden: Tensor<2>,
    /// `[hidden, vocab]`, frozen.
    weight: Tensor<2>,
    /// `[groups, hidden]`
    conditions: Tensor<2>,
    /// `[rows]` per group.
    targets: [Tensor<1, Int>; 2],
}

impl Task {
    fn new(device: &Device) -> Self {
        device.seed(1);
        let random =
            |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), device);
        Self {
            hidden: random([8, SHAPE.in_size]),
            weight: random([SHAPE.in_size, SHAPE.out_size]) * 0.1,
            conditions: random([2, SHAPE.in_size]),
            targets: [
                Tensor::from_data([0, 1, 2, 3, 4, 5, 6, 7], device),
                Tensor::from_data([9, 8, 15, 14, 13, 12, 11, 10], device),
            ],
        }
    }

    /// The mean loss in nats.
    fn loss(&self, factors: Vec<LoraFactors>) -> Tensor<1> {
        let losses = factors
            .into_iter()
            .zip(&self.targets)
            .map(|(factors, targets)| {
                let input = HeadInput {
                    hidden: self.hidden.clone(),
                    weight: self.weight.clone().into(),
                    factors: Some(factors),
                };
                linear_cross_entropy(input, targets.clone()).mean_loss
            })
            .collect();
        Tensor::cat(losses, 0).mean()
    }
}

/// Losses at the start, at a few steps, and at the end.
fn train<M: Module>(
    mut module: M,
    task: &Task,
    factors: impl Fn(&M) -> Vec<LoraFactors>,
) -> Vec<f32> {
    let mut optimizer = AdamWConfig::new().with_weight_decay(0.0).init();
    let mut losses = Vec::new();
    for step_idx in 0..=NUM_STEPS {
        let loss = task.loss(factors(&module));
        if step_idx % 40 == 0 {
            losses.push(loss.clone().into_scalar());
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &module);
        module = optimizer.step(LEARNING_RATE, module, gradients);
    }
    losses
}

fn main() {
    let device = Device::flex().autodiff();
    let task = Task::new(&device);
    let config = HyperLoraHeadConfig::preset(GeneratorKind::Core, SHAPE.in_size, SHAPE);
    let core = config
        .init(RunSeed(1), &device)
        .with_condition_norm(ConditionNorm::fit(task.conditions.clone()));
    let core_losses = train(core, &task, |head| head.factors(task.conditions.clone()));

    let lora = LoraConfig::new(SHAPE).sized_to(config.num_trainable_params());
    let static_head = lora.init(RunSeed(1), &device);
    let static_losses = train(static_head, &task, |head| vec![head.factors(); 2]);

    println!("step   core head   static head   (nats per token)");
    for (row_idx, (core, fixed)) in core_losses.iter().zip(&static_losses).enumerate() {
        println!("{:>4}   {core:>9.4}   {fixed:>11.4}", row_idx * 40);
    }
    println!(
        "trainable parameters: {} in the core head, {} in the static head of rank {}",
        config.num_trainable_params(),
        lora.num_trainable_params(),
        lora.shape.rank
    );
}
