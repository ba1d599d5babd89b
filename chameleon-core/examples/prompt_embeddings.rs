//! Prompts of different length become vectors of unit length; padding changes nothing.
//!
//! `cargo run -p chameleon-core --example prompt_embeddings`
#![expect(clippy::print_stdout, reason = "an example shows its result")]

use burn::nn::EmbeddingConfig;
use burn::tensor::{Device, Tensor};
use chameleon_core::{TokenBatch, prompt_embeddings};

fn main() {
    let device = Device::flex();
    device.seed(1);
    let embedding = EmbeddingConfig::new(100, 16).init(&device);
    let embed = |rows: &[&[u32]]| -> Tensor<2> {
        let batch = TokenBatch::from_rows(rows, 0, &device);
        prompt_embeddings(embedding.forward(batch.token_ids), batch.pad_mask)
    };

    // The first two share most of their tokens; the third shares none.
    let prompts: [&[u32]; 3] = [&[5, 6, 7, 8], &[5, 6, 7], &[50, 60, 70, 80, 90, 99]];
    let together = embed(&prompts);
    let cosines = together.clone().matmul(together.clone().transpose()); // [batch, batch]
    let cosines: Vec<f32> = cosines.into_data().iter().collect();
    println!("cosine similarity of the prompts:");
    for row in cosines.chunks(3) {
        println!("  {:6.3} {:6.3} {:6.3}", row[0], row[1], row[2]);
    }
    assert!(cosines[1] > cosines[2]);

    let alone = embed(&prompts[..1]);
    let difference: f32 = (together.slice([0..1]) - alone).abs().max().into_scalar();
    println!("the first prompt alone differs by {difference:.1e}");
    assert!(difference < 1e-6);
}
