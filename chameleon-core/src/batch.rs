//! Token batches.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

/// Token ids of several sequences, padded on the right to one length.
#[derive(Debug, Clone)]
pub struct TokenBatch {
    /// `[batch, seq]`
    pub token_ids: Tensor<2, Int>,
    /// `[batch, seq]`, `true` on padding; the only test for padding.
    pub pad_mask: Tensor<2, Bool>,
}

impl TokenBatch {
    /// Stacks rows, padding the shorter ones with `pad_id`.
    ///
    /// # Panics
    ///
    /// When there is no row or all rows are empty.
    pub fn from_rows(rows: &[&[u32]], pad_id: u32, device: &Device) -> Self {
        let seq_len = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        assert!(seq_len > 0, "a batch needs at least one token");
        let mut token_ids = Vec::with_capacity(rows.len() * seq_len);
        let mut pad_mask = Vec::with_capacity(rows.len() * seq_len);
        for row in rows {
            let padding = seq_len - row.len();
            token_ids.extend(row.iter().map(|&id| i64::from(id)));
            token_ids.extend(std::iter::repeat_n(i64::from(pad_id), padding));
            pad_mask.extend(std::iter::repeat_n(false, row.len()));
            pad_mask.extend(std::iter::repeat_n(true, padding));
        }
        let shape = [rows.len(), seq_len];
        Self {
            token_ids: Tensor::from_data(TensorData::new(token_ids, shape), device),
            pad_mask: Tensor::from_data(TensorData::new(pad_mask, shape), device),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shorter_rows_are_padded_and_masked() {
        let batch = TokenBatch::from_rows(&[&[1, 2, 3], &[4]], 9, &Device::flex());
        let ids: Vec<i64> = batch.token_ids.into_data().iter::<i64>().collect();
        let mask: Vec<bool> = batch.pad_mask.into_data().iter::<bool>().collect();
        assert_eq!(ids, [1, 2, 3, 4, 9, 9]);
        assert_eq!(mask, [false, false, false, false, true, true]);
    }
}
