//! From assignments to batches: pure in cluster, bounded, cut by length.

use std::cmp::Reverse;

use rand::{Rng, seq::SliceRandom as _};
use serde::{Deserialize, Serialize};

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

/// How much a batch may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchLimits {
    /// Rows of a batch, at least one.
    pub max_rows: usize,
    /// Tokens of a batch.
    pub tokens: TokenLimit,
}

/// A bound on the tokens of a batch, padding included: rows times the longest row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TokenLimit {
    /// Rows alone are bounded.
    Unlimited,
    /// No batch pads to more than this.
    AtMost(usize),
}

impl BatchLimits {
    /// At most `max_rows` rows, however long.
    pub fn rows(max_rows: usize) -> Self {
        Self {
            max_rows,
            tokens: TokenLimit::Unlimited,
        }
    }

    /// How many rows may be as long as `num_tokens`.
    fn rows_of(&self, num_tokens: usize) -> usize {
        match self.tokens {
            TokenLimit::Unlimited => self.max_rows,
            TokenLimit::AtMost(max_tokens) => max_tokens
                .checked_div(num_tokens)
                .map_or(self.max_rows, |num_rows| num_rows.min(self.max_rows)),
        }
    }
}

/// Cuts the rows of each cluster into batches of similar length.
///
/// Batches come in the order of their clusters, the longest rows of a cluster first. There are as
/// few as the limits allow; rows are then spread over them, so that 33 rows in batches of at most
/// 32 become 17 and 16: the mean of a batch of one is no condition for its cluster.
///
/// ```
/// use chameleon_cluster::{BatchLimits, plan};
///
/// let plan = plan(&[0, 1, 0, 0], &[5, 9, 3, 4], BatchLimits::rows(2))?;
/// let rows: Vec<_> = plan.batches.iter().map(|batch| batch.rows.as_slice()).collect();
/// assert_eq!(rows, [&[0, 3][..], &[2], &[1]]);
/// # Ok::<(), chameleon_cluster::ClusterError>(())
/// ```
///
/// # Errors
///
/// When the lists differ in length, `max_rows` is zero, or one row alone is over the token limit.
pub fn plan(
    assignments: &[usize],
    lengths: &[usize],
    limits: BatchLimits,
) -> Result<BatchPlan, ClusterError> {
    if lengths.len() != assignments.len() {
        return Err(ClusterError::LengthMismatch {
            name: "lengths",
            found: lengths.len(),
            expected: assignments.len(),
        });
    }
    if limits.max_rows == 0 {
        return Err(ClusterError::ZeroSetting { name: "max_rows" });
    }
    let mut rows: Vec<usize> = (0..assignments.len()).collect();
    if let TokenLimit::AtMost(max_tokens) = limits.tokens
        && let Some(&row_idx) = rows.iter().max_by_key(|&&row_idx| lengths[row_idx])
        && lengths[row_idx] > max_tokens
    {
        return Err(ClusterError::RowTooLong {
            row_idx,
            found: lengths[row_idx],
            max_tokens,
        });
    }
    rows.sort_by_key(|&row_idx| (assignments[row_idx], Reverse(lengths[row_idx]), row_idx));
    let batches = rows
        .chunk_by(|&left, &right| assignments[left] == assignments[right])
        .flat_map(|members| {
            cut(members, lengths, limits)
                .into_iter()
                .map(|rows| PlannedBatch {
                    cluster_idx: assignments[members[0]],
                    rows: rows.to_vec(),
                })
        })
        .collect();
    Ok(BatchPlan { batches })
}

/// As few runs of `members` as the limits allow, as even as that number allows.
fn cut<'a>(members: &'a [usize], lengths: &[usize], limits: BatchLimits) -> Vec<&'a [usize]> {
    let fewest = cut_greedily(members, lengths, limits).len();
    // A lower cap never gives fewer runs, so the lowest cap that still gives the fewest is found
    // by halving.
    let (mut too_low, mut enough) = (0, limits.max_rows.min(members.len()));
    while enough - too_low > 1 {
        let max_rows = too_low.midpoint(enough);
        if cut_greedily(members, lengths, BatchLimits { max_rows, ..limits }).len() == fewest {
            enough = max_rows;
        } else {
            too_low = max_rows;
        }
    }
    cut_greedily(
        members,
        lengths,
        BatchLimits {
            max_rows: enough,
            ..limits
        },
    )
}

/// Fills each run before the next begins. `members` are sorted, longest first.
fn cut_greedily<'a>(
    mut members: &'a [usize],
    lengths: &[usize],
    limits: BatchLimits,
) -> Vec<&'a [usize]> {
    let mut runs = Vec::new();
    while let Some(&longest) = members.first() {
        let num_rows = limits.rows_of(lengths[longest]).min(members.len());
        let (run, rest) = members.split_at(num_rows);
        runs.push(run);
        members = rest;
    }
    runs
}

#[cfg(test)]
mod tests {
    use chameleon_core::RunSeed;

    use super::*;

    #[test]
    fn remainders_are_spread_over_the_batches() {
        let plan = plan(&[0; 33], &[7; 33], BatchLimits::rows(32)).unwrap();
        let sizes: Vec<usize> = plan.batches.iter().map(|batch| batch.rows.len()).collect();
        assert_eq!(sizes, [17, 16]);
    }

    #[test]
    fn tokens_count_with_their_padding() {
        let limits = BatchLimits {
            max_rows: 10,
            tokens: TokenLimit::AtMost(12),
        };
        let plan = plan(&[0; 4], &[6, 3, 6, 1], limits).unwrap();
        let rows: Vec<_> = plan
            .batches
            .iter()
            .map(|batch| batch.rows.clone())
            .collect();
        assert_eq!(rows, [vec![0, 2], vec![1, 3]]);
    }

    #[test]
    fn a_row_longer_than_a_batch_is_named() {
        let limits = BatchLimits {
            max_rows: 4,
            tokens: TokenLimit::AtMost(8),
        };
        let error = plan(&[0, 0], &[3, 9], limits).unwrap_err();
        assert_eq!(
            error.to_string(),
            "row 1 has 9 tokens, a batch may hold at most 8"
        );
    }

    #[test]
    fn rows_without_tokens_are_planned_too() {
        let limits = BatchLimits {
            max_rows: 2,
            tokens: TokenLimit::AtMost(0),
        };
        let plan = plan(&[3, 3, 3], &[0, 0, 0], limits).unwrap();
        assert!(plan.is_partition_of(3));
        assert_eq!(plan.batches.len(), 2);
    }

    #[test]
    fn nothing_gives_no_batch() {
        assert_eq!(plan(&[], &[], BatchLimits::rows(1)).unwrap().batches, []);
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
