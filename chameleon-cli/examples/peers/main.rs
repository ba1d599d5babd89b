//! Our side of `cargo xtask bench peers`: one workload, one round for every line on standard input.
//!
//! ```text
//! cargo run -p chameleon-cli --example peers -- WORKLOAD INPUTS
//! ```
//!
//! Weights and data come from the folder that `xtask/python/bench_inputs.py` wrote, so that both sides compute the
//! same thing. Here and not in a library because only the program's allocator, features and settings count.

#![expect(
    clippy::print_stdout,
    reason = "rounds are answered on standard output"
)]

#[path = "../../src/allocator.rs"]
mod allocator;
mod decode;
mod eval_forward;
mod head_loss;
mod inputs;
mod kmeans;
mod published;
mod rounds;
mod train_step;

use std::error::Error;
use std::path::PathBuf;

use chameleon_models::{ModelSource, WeightStorage};

fn main() -> Result<(), Box<dyn Error>> {
    allocator::keep_freed_memory();
    let mut arguments = std::env::args().skip(1);
    let workload = arguments.next().ok_or("name a workload")?;
    let inputs = PathBuf::from(arguments.next().ok_or("name the folder of inputs")?);
    match workload.as_str() {
        "train-step-smollm2" => train_step::run(&inputs.join("smollm2"), &train_step::LLAMA),
        "train-step-gpt2" => train_step::run(&inputs.join("gpt2"), &train_step::GPT2),
        "head-loss" => head_loss::run(),
        "eval-forward" => eval_forward::run(&inputs.join("smollm2")),
        "published-recipe" => published::run(&inputs.join("gpt2")),
        "kmeans" => kmeans::lloyd(&inputs.join("kmeans")),
        "kmeans-seeding" => kmeans::seeding(&inputs.join("kmeans")),
        "decode-f32" => decode::run(
            WeightStorage::Numbers,
            &ModelSource::Folder(inputs.join("smollm2")),
        ),
        "decode-q4" => decode::run(
            WeightStorage::Packed,
            &ModelSource::Gguf(inputs.join("smollm2/packed.gguf")),
        ),
        other => Err(format!("there is no workload `{other}`").into()),
    }
}
