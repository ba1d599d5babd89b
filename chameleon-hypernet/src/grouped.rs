//! Rows of many groups through one layer at once, each with the factors of its own group.
//!
//! Decoding needs this: one step of every sequence, whatever groups they belong to.

use burn::tensor::{Bool, Int, Tensor, assert_shape};
use chameleon_core::LoraFactors;

/// The narrow product has a multiple of this many columns. Matrix kernels choose the order of summation by the width of the
/// result: with few columns, a group that joins or leaves would change the last bits of the others.
const COLUMN_BLOCK: usize = 128;

/// The factors of several groups side by side.
///
/// Instead of gathering a pair of factors for every row, all rows are multiplied with all `a` (narrow), the
/// columns of other groups are set to zero, and the result is multiplied with all `b`: two matrix products, cheap
/// as long as `groups * rank` is well below the layer's width. Groups that share one `b` are summed before it.
///
/// On a backend whose products do not depend on the number of rows, the result of a row does not depend on which
/// other groups there are.
#[derive(Debug, Clone)]
pub struct GroupedFactors {
    /// `[in, groups * rank]` and zeros up to a multiple of [`COLUMN_BLOCK`], scales included.
    a: Tensor<2>,
    /// `[groups * rank, out]`, or `[rank, out]` for all groups.
    b: Tensor<2>,
    num_groups: usize,
    rank: usize,
}

/// Which factors apply to each row, and how strongly.
#[derive(Debug, Clone)]
pub struct RowGroups {
    /// `[rows]`; rows with an index of at least the number of groups are not adapted.
    pub group_idx: Tensor<1, Int>,
    /// `[rows]`, the multiplier of the delta.
    pub scale: Tensor<1>,
}

impl GroupedFactors {
    /// Concatenates factors along the rank. The result may be reused for every decode step.
    ///
    /// # Panics
    ///
    /// When there is no group, or the groups differ in shape.
    pub fn join(factors: Vec<LoraFactors>) -> Self {
        let (num_groups, rank) = check_shapes(&factors);
        let b = factors.iter().map(|factors| factors.b.clone()).collect();
        Self {
            a: join_a(factors),
            b: Tensor::cat(b, 0),
            num_groups,
            rank,
        }
    }

    /// Concatenates factors that all have the `b` of the first.
    ///
    /// # Panics
    ///
    /// When there is no group, or the groups differ in shape.
    pub fn join_sharing_b(factors: Vec<LoraFactors>) -> Self {
        let (num_groups, rank) = check_shapes(&factors);
        let b = factors[0].b.clone();
        Self {
            a: join_a(factors),
            b,
            num_groups,
            rank,
        }
    }

    /// The number of groups.
    pub fn num_groups(&self) -> usize {
        self.num_groups
    }

    /// The delta of the frozen layer's output, for each row by its own group.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[rows, in]`
    /// - output: `[rows, out]`
    ///
    /// # Panics
    ///
    /// When the shapes do not fit each other.
    pub fn apply(&self, hidden: Tensor<2>, rows: RowGroups) -> Tensor<2> {
        let [num_rows, _] = hidden.dims();
        assert_shape!(rows.group_idx, [num_rows]);
        assert_shape!(rows.scale, [num_rows]);
        let num_columns = self.num_groups * self.rank;
        let narrow = hidden.matmul(self.a.clone()).narrow(1, 0, num_columns); // [rows, groups * rank]
        let foreign = self.foreign(rows.group_idx);
        let narrow = narrow.mask_fill(foreign, 0.0) * rows.scale.unsqueeze_dim(1);
        let narrow = if self.b.dims()[0] < num_columns {
            narrow
                .reshape([num_rows, self.num_groups, self.rank])
                .sum_dim(1)
                .squeeze_dim(1) // [rows, rank]
        } else {
            narrow
        };
        narrow.matmul(self.b.clone())
    }

    /// `[rows, groups * rank]`: true where a column belongs to another group than the row.
    fn foreign(&self, group_idx: Tensor<1, Int>) -> Tensor<2, Bool> {
        let num_columns = self.num_groups * self.rank;
        let [num_rows] = group_idx.dims();
        let num_groups = i64::try_from(self.num_groups).expect("groups are few");
        let owners = Tensor::<1, Int>::arange(0..num_groups, &group_idx.device())
            .unsqueeze_dim::<2>(1)
            .repeat_dim(1, self.rank) // [groups, rank]
            .reshape([1, num_columns]);
        let rows = group_idx
            .unsqueeze_dim::<2>(1)
            .expand([num_rows, num_columns]);
        rows.not_equal(owners.expand([num_rows, num_columns]))
    }
}

/// Number of groups and rank.
fn check_shapes(factors: &[LoraFactors]) -> (usize, usize) {
    let first = factors.first().expect("at least one group");
    let ([in_size, rank], [_, out_size]) = (first.a.dims(), first.b.dims());
    for factors in factors {
        assert_shape!(factors.a, [in_size, rank]);
        assert_shape!(factors.b, [rank, out_size]);
    }
    (factors.len(), rank)
}

fn join_a(factors: Vec<LoraFactors>) -> Tensor<2> {
    let mut parts: Vec<Tensor<2>> = factors
        .into_iter()
        .map(|factors| factors.a * factors.scale)
        .collect();
    let [in_size, rank] = parts[0].dims();
    let num_columns = parts.len() * rank;
    let padding = num_columns.next_multiple_of(COLUMN_BLOCK) - num_columns;
    if padding > 0 {
        parts.push(Tensor::zeros([in_size, padding], &parts[0].device()));
    }
    Tensor::cat(parts, 1)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, normal};

    fn factors(num_groups: u64, rank: usize) -> Vec<LoraFactors> {
        (0..num_groups)
            .map(|seed| LoraFactors {
                a: normal([6, rank], seed),
                b: normal([rank, 9], seed + 100),
                scale: 0.5 + seed as f64,
            })
            .collect()
    }

    proptest! {
        #[test]
        fn rows_of_mixed_groups_equal_each_row_alone(
            rank in 1usize..4,
            groups in prop::collection::vec(0usize..6, 1..12),
        ) {
            let factors = factors(5, rank);
            let hidden = normal([groups.len(), 6], 7);
            let indices: Vec<i64> = groups.iter().map(|&idx| i64::try_from(idx).unwrap()).collect();
            let rows = RowGroups {
                group_idx: Tensor::from_data(indices.as_slice(), &Device::flex()),
                scale: Tensor::full([groups.len()], 0.5, &Device::flex()),
            };
            let together = GroupedFactors::join(factors.clone()).apply(hidden.clone(), rows);
            for (row_idx, &group_idx) in groups.iter().enumerate() {
                let row = hidden.clone().slice([row_idx..=row_idx]);
                let alone = match factors.get(group_idx) {
                    Some(factors) => factors.apply(row) * 0.5,
                    None => Tensor::zeros([1, 9], &Device::flex()),
                };
                assert_close(&together.clone().slice([row_idx..=row_idx]), &alone);
            }
        }

        #[test]
        fn sharing_b_changes_nothing(
            rank in 1usize..4,
            groups in prop::collection::vec(0usize..5, 1..12),
        ) {
            let mut factors = factors(4, rank);
            let b = factors[0].b.clone();
            for factors in &mut factors {
                factors.b = b.clone();
            }
            let hidden = normal([groups.len(), 6], 7);
            let indices: Vec<i64> = groups.iter().map(|&idx| i64::try_from(idx).unwrap()).collect();
            let rows = RowGroups {
                group_idx: Tensor::from_data(indices.as_slice(), &Device::flex()),
                scale: normal([groups.len(), 1], 8).squeeze_dim(1),
            };
            let shared = GroupedFactors::join_sharing_b(factors.clone());
            let apart = GroupedFactors::join(factors);
            assert_close(&shared.apply(hidden.clone(), rows.clone()), &apart.apply(hidden, rows));
        }
    }

    #[test]
    #[should_panic(expected = "assert_shape!")]
    fn groups_of_different_rank_do_not_join() {
        let mut factors = factors(2, 3);
        factors.push(self::factors(1, 2).remove(0));
        let _ = GroupedFactors::join(factors);
    }
}
