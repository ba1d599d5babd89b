//! Token batches and the plan of which rows form them.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use rand::{Rng, seq::SliceRandom as _};

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

/// Rows of a data set that are processed together; all belong to one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedBatch {
    /// The cluster of every row.
    pub cluster_idx: usize,
    /// Row indices into the data set.
    pub rows: Vec<usize>,
}

/// Which rows of a data set form which batch: all that clustering and models have in common.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BatchPlan {
    /// In processing order.
    pub batches: Vec<PlannedBatch>,
}

impl BatchPlan {
    /// The same batches in a random order, for one epoch.
    #[must_use]
    pub fn shuffled(&self, rng: &mut impl Rng) -> Self {
        let mut batches = self.batches.clone();
        batches.shuffle(rng);
        Self { batches }
    }

    /// Number of rows over all batches.
    pub fn num_rows(&self) -> usize {
        self.batches.iter().map(|batch| batch.rows.len()).sum()
    }

    /// Whether each of `num_rows` rows is in exactly one batch.
    pub fn is_partition_of(&self, num_rows: usize) -> bool {
        let mut seen = vec![false; num_rows];
        self.batches
            .iter()
            .flat_map(|batch| &batch.rows)
            .all(|&row| {
                seen.get_mut(row)
                    .is_some_and(|seen| !std::mem::replace(seen, true))
            })
            && seen.into_iter().all(|seen| seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::RunSeed;

    #[test]
    fn shorter_rows_are_padded_and_masked() {
        let batch = TokenBatch::from_rows(&[&[1, 2, 3], &[4]], 9, &Device::flex());
        let ids: Vec<i64> = batch.token_ids.into_data().iter::<i64>().collect();
        let mask: Vec<bool> = batch.pad_mask.into_data().iter::<bool>().collect();
        assert_eq!(ids, [1, 2, 3, 4, 9, 9]);
        assert_eq!(mask, [false, false, false, false, true, true]);
    }

    #[test]
    fn shuffling_keeps_the_batches() {
        let plan = BatchPlan {
            batches: (0..20)
                .map(|idx| PlannedBatch {
                    cluster_idx: idx % 3,
                    rows: vec![2 * idx, 2 * idx + 1],
                })
                .collect(),
        };
        let shuffled = plan.shuffled(&mut RunSeed(3).stream("epoch"));
        assert_ne!(shuffled, plan);
        assert!(shuffled.is_partition_of(40));
        assert_eq!(shuffled.num_rows(), 40);
    }

    #[test]
    fn a_repeated_or_missing_row_is_no_partition() {
        let plan = |rows: &[usize]| BatchPlan {
            batches: vec![PlannedBatch {
                cluster_idx: 0,
                rows: rows.to_vec(),
            }],
        };
        assert!(plan(&[1, 0]).is_partition_of(2));
        assert!(!plan(&[0, 0]).is_partition_of(2));
        assert!(!plan(&[0]).is_partition_of(2));
        assert!(!plan(&[0, 2]).is_partition_of(2));
    }
}
