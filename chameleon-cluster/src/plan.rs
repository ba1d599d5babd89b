//! From assignments to batches: each of one cluster, bounded in rows, cut by length.

use std::cmp::Reverse;

use rand::{Rng, seq::SliceRandom as _};

use crate::error::ClusterError;

/// Rows of a data set that are processed together; all belong to one cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedBatch {
    /// The cluster of every row.
    pub cluster_idx: usize,
    /// Row indices into the data set.
    pub rows: Vec<usize>,
}

/// Which rows of a data set form which batch.
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

/// Cuts the rows of each cluster into batches of similar length, of at most `max_rows` rows.
///
/// Batches come in the order of their clusters, the longest rows of a cluster first. There are as
/// few as the limit allows; rows are then spread over them, so that 33 rows in batches of at most
/// 32 become 17 and 16: the mean of a batch of one is a poor condition for its cluster.
///
/// ```
/// use chameleon_cluster::plan;
///
/// let plan = plan(&[0, 1, 0, 0], &[5, 9, 3, 4], 2)?;
/// let rows: Vec<_> = plan.batches.iter().map(|batch| batch.rows.as_slice()).collect();
/// assert_eq!(rows, [&[0, 3][..], &[2], &[1]]);
/// # Ok::<(), chameleon_cluster::ClusterError>(())
/// ```
///
/// # Errors
///
/// When the lists differ in length or `max_rows` is zero.
pub fn plan(
    assignments: &[usize],
    lengths: &[usize],
    max_rows: usize,
) -> Result<BatchPlan, ClusterError> {
    if lengths.len() != assignments.len() {
        return Err(ClusterError::LengthMismatch {
            name: "lengths",
            found: lengths.len(),
            expected: assignments.len(),
        });
    }
    if max_rows == 0 {
        return Err(ClusterError::ZeroSetting { name: "max_rows" });
    }
    let mut rows: Vec<usize> = (0..assignments.len()).collect();
    rows.sort_by_key(|&row_idx| (assignments[row_idx], Reverse(lengths[row_idx]), row_idx));
    let batches = rows
        .chunk_by(|&left, &right| assignments[left] == assignments[right])
        .flat_map(|members| {
            let num_batches = members.len().div_ceil(max_rows);
            members
                .chunks(members.len().div_ceil(num_batches))
                .map(|rows| PlannedBatch {
                    cluster_idx: assignments[members[0]],
                    rows: rows.to_vec(),
                })
        })
        .collect();
    Ok(BatchPlan { batches })
}

#[cfg(test)]
mod tests {
    use chameleon_core::RunSeed;

    use super::*;

    #[test]
    fn remainders_are_spread_over_the_batches() {
        let plan = plan(&[0; 33], &[7; 33], 32).unwrap();
        let sizes: Vec<usize> = plan.batches.iter().map(|batch| batch.rows.len()).collect();
        assert_eq!(sizes, [17, 16]);
    }

    #[test]
    fn rows_without_tokens_are_planned_too() {
        let plan = plan(&[3, 3, 3], &[0, 0, 0], 2).unwrap();
        assert!(plan.is_partition_of(3));
        assert_eq!(plan.batches.len(), 2);
    }

    #[test]
    fn nothing_gives_no_batch() {
        assert_eq!(plan(&[], &[], 1).unwrap().batches, []);
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
    fn a_repeated_or_missing_row_is_not_a_partition() {
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
