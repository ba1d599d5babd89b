//! Our side of `cargo xtask bench peers` and `bench growth`: one workload, one round for every line on standard
//! input.
//!
//! ```text
//! cargo run -p chameleon-cli --example peers -- WORKLOAD INPUTS [SIZE]
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
mod decode_groups;
mod eval_forward;
mod generate_factors;
mod head_loss;
mod inputs;
mod kmeans;
mod published;
mod rounds;
mod train_step;

use std::error::Error;
use std::path::PathBuf;

use chameleon_cluster::Engine;
use chameleon_models::{ModelSource, WeightStorage};

use crate::decode_groups::{Answers, BATCH, Batch};

fn main() -> Result<(), Box<dyn Error>> {
    allocator::keep_freed_memory();
    let mut arguments = std::env::args().skip(1);
    let workload = arguments.next().ok_or("name a workload")?;
    let inputs = PathBuf::from(arguments.next().ok_or("name the folder of inputs")?);
    let mut size = || {
        let size = arguments.next().ok_or("give the size of the workload")?;
        size.parse::<usize>()
            .map_err(|_| format!("`{size}` is not a valid size"))
    };
    let (smollm2, gpt2, points) = (
        inputs.join("smollm2"),
        inputs.join("gpt2"),
        inputs.join("kmeans"),
    );
    match workload.as_str() {
        "train-step-smollm2" => train_step::run(&smollm2, &train_step::LLAMA),
        "train-step-gpt2" => train_step::run(&gpt2, &train_step::GPT2),
        "head-loss" => head_loss::run(head_loss::VOCAB),
        "growth-vocabulary" => head_loss::run(size()?),
        "eval-forward" => eval_forward::run(&smollm2, eval_forward::NUM_ROWS),
        "growth-tokens" => eval_forward::run(&smollm2, size()? / eval_forward::ROW_LEN),
        "published-recipe" => published::run(&gpt2),
        "kmeans" | "kmeans-against-linfa" => {
            kmeans::lloyd(&points, Engine::MatrixProducts, kmeans::NUM_CLUSTERS)
        }
        "kmeans-linfa" => kmeans::lloyd(&points, Engine::Linfa, kmeans::NUM_CLUSTERS),
        "growth-clusters" => kmeans::lloyd(&points, Engine::MatrixProducts, size()?),
        "kmeans-seeding" => kmeans::seeding(&points),
        "decode-f32" => decode::run(WeightStorage::F32, &ModelSource::Folder(smollm2)),
        "decode-q4" => {
            let file = smollm2.join("packed.gguf");
            decode::run(WeightStorage::Stored, &ModelSource::Gguf(file))
        }
        "decode-groups" => decode_groups::run(&smollm2, BATCH, Answers::Adapted),
        "decode-groups-throughout" => {
            decode_groups::run(&smollm2, BATCH, Answers::AdaptedThroughout)
        }
        "decode-groups-base" => decode_groups::run(&smollm2, BATCH, Answers::Base),
        "decode-memory" => decode_groups::run(&smollm2, BATCH, Answers::Remembering),
        "growth-groups" => {
            let batch = Batch {
                num_prompts: 64,
                num_groups: size()?,
                num_tokens: 16,
            };
            decode_groups::run(&smollm2, batch, Answers::Adapted)
        }
        "generate-factors" => generate_factors::run(&smollm2),
        other => Err(format!("there is no workload `{other}`").into()),
    }
}
