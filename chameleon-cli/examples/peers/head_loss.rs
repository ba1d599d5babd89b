//! Loss at the head, and its gradient for the hidden states.

use std::error::Error;

use burn::tensor::{Device, Int, Tensor, TensorData};
use chameleon_core::{HeadInput, linear_cross_entropy};
use serde_json::json;

use crate::{inputs, rounds};

const NUM_ROWS: usize = 1024;
const HIDDEN: usize = 576;
/// Tokens of the workload `head-loss`.
pub(crate) const VOCAB: usize = 49_152;

/// Returns the sum of the mean loss and the norm of the gradient.
pub(crate) fn run(vocab_size: usize) -> Result<(), Box<dyn Error>> {
    let device = Device::flex();
    let hidden = noise([NUM_ROWS, HIDDEN], 4.0, &device);
    let embedding = noise([vocab_size, HIDDEN], 0.2, &device);
    let targets: Vec<i64> = (0..NUM_ROWS)
        .map(|row| (row * 37 % vocab_size) as i64)
        .collect();
    let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [NUM_ROWS]), &device);
    rounds::serve(&json!({ "rows": NUM_ROWS, "vocab": vocab_size }), || {
        let hidden = hidden.clone().autodiff().require_grad();
        let input = HeadInput {
            hidden: hidden.clone(),
            weight: embedding.clone().transpose().into(),
            factors: None,
        };
        let loss = linear_cross_entropy(input, targets.clone());
        let grads = loss.mean_loss.backward();
        let gradient = hidden.grad(&grads).ok_or("no gradient")?;
        let norm: f32 = gradient.square().sum().sqrt().into_scalar();
        let mean: f32 = loss.row_losses.mean().into_scalar();
        Ok(f64::from(mean) + f64::from(norm))
    })
}

fn noise(shape: [usize; 2], width: f64, device: &Device) -> Tensor<2> {
    let values = inputs::noise(shape.iter().product(), width);
    Tensor::from_data(TensorData::new(values, shape), device)
}
