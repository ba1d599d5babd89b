//! A memory recalls which token followed a state, and a gate learns how far to trust it.
//!
//! `cargo run -p chameleon-hypernet --example group_memory`
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use burn::tensor::{Device, Distribution, Int, Tensor};
use chameleon_hypernet::memory::{GateObservations, GroupMemory, MemoryGate};

const NUM_ENTRIES: usize = 64;
const KEY_SIZE: usize = 16;
const TEMPERATURE: f64 = 20.0;

fn main() {
    let device = Device::flex();
    device.seed(1);
    let random = |num_rows| {
        Tensor::<2>::random(
            [num_rows, KEY_SIZE],
            Distribution::Normal(0.0, 1.0),
            &device,
        )
    };
    // The keys of a real memory come from hidden states, by a `KeyProjection`.
    let keys = of_length_one(random(NUM_ENTRIES));
    let next_tokens = Tensor::<1, Int>::arange(0..64, &device);
    let memory = GroupMemory::new(keys.clone(), next_tokens.clone());

    // Half of the queries are near an entry, half are near none.
    let near = of_length_one(keys + random(NUM_ENTRIES) * 0.05);
    let queries = Tensor::cat(vec![near, of_length_one(random(NUM_ENTRIES))], 0);
    let targets = Tensor::cat(vec![next_tokens.clone(), next_tokens], 0);
    let attention = memory.similarities(queries).attention(TEMPERATURE);
    let memory_probs = attention.prob_of(targets);
    let features = attention.gate_features();

    // A model that gives every target a probability of 5 %.
    let num_rows = 2 * NUM_ENTRIES;
    let groups = Tensor::<1, Int>::zeros([num_rows], &device);
    let observations = GateObservations {
        features: &features,
        groups: groups.clone(),
        model_log_probs: Tensor::full([num_rows], 0.05_f64.ln(), &device),
        memory_probs,
    };
    let fit = MemoryGate::fit(&observations, 1, TEMPERATURE);
    let weights = burn::tensor::activation::sigmoid(fit.gate.logits(&features, groups));
    let mean = |first| -> f32 {
        weights
            .clone()
            .narrow(0, first, NUM_ENTRIES)
            .mean()
            .into_scalar()
    };
    println!("loss of the model alone: {:.3} nats", -0.05_f64.ln());
    println!("loss with the memory:    {:.3} nats", fit.mean_loss);
    println!("weight of the memory near an entry: {:.2}", mean(0));
    println!(
        "weight of the memory elsewhere:     {:.2}",
        mean(NUM_ENTRIES)
    );
}

fn of_length_one(rows: Tensor<2>) -> Tensor<2> {
    let lengths = rows.clone().square().sum_dim(1).sqrt();
    rows / lengths
}
