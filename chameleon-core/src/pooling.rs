//! Prompt embeddings: masked mean of token embeddings, scaled to unit norm.

use burn::tensor::{Bool, Tensor, assert_shape};

/// Means the embeddings of the real tokens of each row and scales the result to unit L2 norm.
///
/// This is the vector that is clustered (`ChameleonLLM`, arXiv 2502.04315), except that padding
/// does not take part. A row without a real token yields zeros.
///
/// # Shapes
///
/// - `token_embeddings`: `[batch, seq, hidden]`
/// - `pad_mask`: `[batch, seq]`, `true` on padding
/// - output: `[batch, hidden]`
///
/// # Panics
///
/// If `pad_mask` has another batch or sequence length than `token_embeddings`.
pub fn prompt_embeddings(token_embeddings: Tensor<3>, pad_mask: Tensor<2, Bool>) -> Tensor<2> {
    // Unit norm makes the division by the token count of a mean redundant.
    unit_norm(masked_sum(token_embeddings, pad_mask))
}

/// Means the vectors of the real tokens of each row. A row without a real token yields zeros.
///
/// # Shapes
///
/// - `states`: `[batch, seq, hidden]`
/// - `pad_mask`: `[batch, seq]`, `true` on padding
/// - output: `[batch, hidden]`
///
/// # Panics
///
/// If `pad_mask` has another batch or sequence length than `states`.
pub fn masked_mean(states: Tensor<3>, pad_mask: Tensor<2, Bool>) -> Tensor<2> {
    let num_real = pad_mask.clone().bool_not().float().sum_dim(1); // [batch, 1]
    masked_sum(states, pad_mask) / num_real.clamp_min(1.0)
}

fn masked_sum(states: Tensor<3>, pad_mask: Tensor<2, Bool>) -> Tensor<2> {
    let [batch_size, seq_len, _] = states.dims();
    assert_shape!(pad_mask, [batch_size, seq_len]);
    let keep = pad_mask.unsqueeze_dim::<3>(2).bool_not().float(); // [batch, seq, 1]
    (states * keep).sum_dim(1).squeeze_dim(1) // [batch, hidden]
}

/// Scales each row to unit L2 norm; zero rows stay zero.
///
/// # Shapes
///
/// - `rows`: `[rows, hidden]`
/// - output: `[rows, hidden]`
fn unit_norm(rows: Tensor<2>) -> Tensor<2> {
    let norm = rows.clone().square().sum_dim(1).sqrt(); // [rows, 1]
    rows / norm.clamp_min(f32::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use proptest::prelude::*;

    use super::*;
    use crate::batch::TokenBatch;

    fn pooled(rows: &[&[u32]], pad_id: u32) -> Vec<f32> {
        let device = Device::flex();
        let batch = TokenBatch::from_rows(rows, pad_id, &device);
        // A token's embedding is a fixed function of its id, padding included.
        let ids = batch.token_ids.float().unsqueeze_dim::<3>(2);
        let embeddings = Tensor::cat(vec![ids.clone().sin(), ids.cos()], 2);
        prompt_embeddings(embeddings, batch.pad_mask)
            .into_data()
            .iter::<f32>()
            .collect()
    }

    proptest! {
        #[test]
        fn padding_changes_nothing(row in prop::collection::vec(1u32..50, 1..8), longer in 1usize..6) {
            let filler = vec![7; row.len() + longer];
            let alone = pooled(&[&row], 0);
            let padded = pooled(&[&row, &filler], 0);
            for (left, right) in alone.iter().zip(&padded) {
                prop_assert!((left - right).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn rows_have_unit_norm() {
        let values = pooled(&[&[3, 9, 4], &[8]], 0);
        for row in values.chunks(2) {
            let norm: f32 = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            assert!((norm - 1.0).abs() < 1e-6);
        }
    }
}
