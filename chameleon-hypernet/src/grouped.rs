//! Rows of many groups through one layer at once, each with the factors of its own group.
//!
//! This is what decoding needs: one step of every sequence, whatever groups they fell in.

use burn::tensor::{Bool, Int, Tensor, assert_shape};
use chameleon_core::LoraFactors;

/// The factors of several groups side by side.
///
/// Instead of gathering a pair of factors for every row, all rows go through all `a` (narrow), what
/// belongs to other groups is set to zero, and all rows go through all `b`: two matrix products, as
/// long as `groups * rank` stays well below the layer's width.
#[derive(Debug, Clone)]
pub struct GroupedFactors {
    /// `[in, groups * rank]`, scales included.
    a: Tensor<2>,
    /// `[groups * rank, out]`
    b: Tensor<2>,
    num_groups: usize,
}

impl GroupedFactors {
    /// Lays factors side by side. They may be kept and reused for every decoding step.
    ///
    /// # Panics
    ///
    /// When there is no group, or the groups differ in shape.
    pub fn join(factors: Vec<LoraFactors>) -> Self {
        let num_groups = factors.len();
        let shape = factors
            .first()
            .map(|first| (first.a.dims(), first.b.dims()));
        let (a_shape, b_shape) = shape.expect("at least one group");
        let (a, b) = factors
            .into_iter()
            .map(|factors| {
                assert_shape!(factors.a, [a_shape[0], a_shape[1]]);
                assert_shape!(factors.b, [b_shape[0], b_shape[1]]);
                (factors.a * factors.scale, factors.b)
            })
            .unzip();
        Self {
            a: Tensor::cat(a, 1),
            b: Tensor::cat(b, 0),
            num_groups,
        }
    }

    /// How many groups there are.
    pub fn num_groups(&self) -> usize {
        self.num_groups
    }

    /// What is added to the frozen layer's output, row by row from the row's own group.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[rows, in]`
    /// - `group_idx`: `[rows]`, each below the number of groups
    /// - output: `[rows, out]`
    ///
    /// # Panics
    ///
    /// When the shapes do not fit each other.
    pub fn apply(&self, hidden: Tensor<2>, group_idx: Tensor<1, Int>) -> Tensor<2> {
        let [num_rows, _] = hidden.dims();
        assert_shape!(group_idx, [num_rows]);
        let narrow = hidden.matmul(self.a.clone()); // [rows, groups * rank]
        let foreign = self.foreign(group_idx);
        narrow.mask_fill(foreign, 0.0).matmul(self.b.clone())
    }

    /// `[rows, groups * rank]`: true where a column belongs to another group than the row.
    fn foreign(&self, group_idx: Tensor<1, Int>) -> Tensor<2, Bool> {
        let [num_columns, _] = self.b.dims();
        let [num_rows] = group_idx.dims();
        let rank = num_columns / self.num_groups;
        let num_groups = i64::try_from(self.num_groups).expect("groups are few");
        let owners = Tensor::<1, Int>::arange(0..num_groups, &group_idx.device())
            .unsqueeze_dim::<2>(1)
            .repeat_dim(1, rank) // [groups, rank]
            .reshape([1, num_columns]);
        let rows = group_idx
            .unsqueeze_dim::<2>(1)
            .expand([num_rows, num_columns]);
        rows.not_equal(owners.expand([num_rows, num_columns]))
    }
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
            groups in prop::collection::vec(0usize..5, 1..12),
        ) {
            let factors = factors(5, rank);
            let hidden = normal([groups.len(), 6], 7);
            let indices: Vec<i64> = groups.iter().map(|&idx| i64::try_from(idx).unwrap()).collect();
            let group_idx = Tensor::from_data(indices.as_slice(), &Device::flex());
            let together = GroupedFactors::join(factors.clone()).apply(hidden.clone(), group_idx);
            for (row_idx, &group_idx) in groups.iter().enumerate() {
                let row = hidden.clone().slice([row_idx..=row_idx]);
                let alone = factors[group_idx].apply(row);
                assert_close(&together.clone().slice([row_idx..=row_idx]), &alone);
            }
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
