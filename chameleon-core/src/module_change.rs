//! What is added to the output of one linear module inside a layer: one low-rank change for all rows of a batch, or
//! the change of each row's own group.

use std::sync::Arc;

use burn::tensor::{Tensor, assert_shape};

use crate::factors::LoraFactors;
use crate::fused::{self, GroupedRows};
use crate::low_rank::LowRankChange;

/// A change of a linear module, for the rows of one batch.
#[derive(Debug, Clone)]
pub enum ModuleChange {
    /// All rows share the factors.
    LowRank(Box<LowRankChange>),
    /// Each group has factors of its own.
    Grouped(GroupedChange),
}

/// Changes of a linear module by groups that share nothing: `scale * (x·a)·b` with the factors of a row's own group.
///
/// The time grows with the rows and with the groups among them, not with their product. On flex, a row's result does
/// not depend, not even in its last bit, on which other rows and groups there are.
#[derive(Debug, Clone)]
pub struct GroupedChange {
    groups: Vec<LoraFactors>,
    row_groups: Arc<[Option<usize>]>,
}

impl ModuleChange {
    /// What is added to the frozen module's output.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, seq, in]`
    /// - output: `[batch, seq, out]`
    ///
    /// # Panics
    ///
    /// When the shapes do not fit each other.
    pub fn apply(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::LowRank(change) => change.apply(x),
            Self::Grouped(change) => change.apply(x),
        }
    }

    /// The output of the frozen module with the change.
    ///
    /// # Shapes
    ///
    /// - `frozen`, output: `[batch, seq, out]`
    /// - `x`: `[batch, seq, in]`
    ///
    /// # Panics
    ///
    /// When the shapes do not fit each other.
    pub fn add_to(&self, frozen: Tensor<3>, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::LowRank(change) => frozen + change.apply(x),
            Self::Grouped(change) => change.add_to(frozen, x),
        }
    }
}

impl From<LowRankChange> for ModuleChange {
    fn from(change: LowRankChange) -> Self {
        Self::LowRank(Box::new(change))
    }
}

impl From<GroupedChange> for ModuleChange {
    fn from(change: GroupedChange) -> Self {
        Self::Grouped(change)
    }
}

impl GroupedChange {
    /// The factors of the groups, whose ranks may differ, and the group of each row of the batch, or of each token where
    /// sequences lie one after the other in one row. Rows without a group are not changed.
    ///
    /// # Panics
    ///
    /// When there is no group, the groups differ in the widths of the module, or a row has a group that does not exist.
    pub fn new(groups: Vec<LoraFactors>, row_groups: impl Into<Arc<[Option<usize>]>>) -> Self {
        let row_groups = row_groups.into();
        let first = groups.first().expect("at least one group");
        let ([in_size, _], [_, out_size]) = (first.a.dims(), first.b.dims());
        for LoraFactors { a, b, .. } in &groups {
            let [_, rank] = a.dims();
            assert_shape!(a, [in_size, rank]);
            assert_shape!(b, [rank, out_size]);
        }
        for &group_idx in row_groups.iter().flatten() {
            assert!(
                group_idx < groups.len(),
                "group {group_idx} of {}",
                groups.len()
            );
        }
        Self { groups, row_groups }
    }

    /// The factors of the groups.
    pub fn groups(&self) -> &[LoraFactors] {
        &self.groups
    }

    /// The group of each row.
    pub fn row_groups(&self) -> &[Option<usize>] {
        &self.row_groups
    }

    /// What is added to the frozen module's output: zeros for rows without a group.
    ///
    /// # Shapes
    ///
    /// - `x`: `[batch, seq, in]`
    /// - output: `[batch, seq, out]`
    ///
    /// # Panics
    ///
    /// When the shapes do not fit each other.
    pub fn apply(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, seq_len, _] = x.dims();
        let [_, out_size] = self.groups[0].b.dims();
        let zeros = Tensor::zeros([batch, seq_len, out_size], (&x.device(), x.dtype()));
        self.add_to(zeros, x)
    }

    /// The output of the frozen module with the change; rows without a group are not touched.
    ///
    /// # Shapes
    ///
    /// - `frozen`, output: `[batch, seq, out]`
    /// - `x`: `[batch, seq, in]`
    ///
    /// # Panics
    ///
    /// When the shapes do not fit each other.
    pub fn add_to(&self, frozen: Tensor<3>, x: Tensor<3>) -> Tensor<3> {
        let [batch, seq_len, in_size] = x.dims();
        let [_, _, out_size] = frozen.dims();
        assert_shape!(frozen, [batch, seq_len, out_size]);
        let num_rows = batch * seq_len;
        let tokens_of_row = num_rows / self.row_groups.len().max(1);
        let repeated: Vec<Option<usize>>;
        let row_groups = if tokens_of_row == 1 {
            &*self.row_groups
        } else {
            repeated = self
                .row_groups
                .iter()
                .flat_map(|&group_idx| std::iter::repeat_n(group_idx, tokens_of_row))
                .collect();
            &repeated
        };
        let rows = GroupedRows {
            x: x.reshape([num_rows, in_size]),
            groups: &self.groups,
            row_groups,
        };
        fused::add_grouped(frozen.reshape([num_rows, out_size]), &rows)
            .reshape([batch, seq_len, out_size])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.into_data().iter().collect()
    }

    fn assert_close<const D: usize>(left: Tensor<D>, right: Tensor<D>) {
        left.into_data()
            .assert_approx_eq::<f32>(&right.into_data(), Tolerance::absolute(1e-3));
    }

    fn factors<const N: usize>(
        in_size: usize,
        out_size: usize,
        ranks: [usize; N],
    ) -> Vec<LoraFactors> {
        let of_rank = |rank| LoraFactors {
            a: random([in_size, rank]),
            b: random([rank, out_size]),
            scale: 1.0 / rank as f64,
        };
        ranks.map(of_rank).to_vec()
    }

    #[test]
    fn the_last_bits_of_a_row_do_not_depend_on_the_other_rows() {
        let (in_size, out_size) = (577, 131);
        let groups = factors(in_size, out_size, [8, 3, 1, 16, 8]);
        let owners: Vec<Option<usize>> = (0..137)
            .map(|row_idx| match row_idx {
                0..23 => Some(row_idx % 5),
                23..90 => Some(0),
                _ => (row_idx % 7 < 5).then_some(row_idx % 7),
            })
            .collect();
        let x: Tensor<3> = random([1, owners.len(), in_size]);
        let frozen = random([1, owners.len(), out_size]);
        // The rows with these indices, in this order and without others.
        let changed = |rows: &[usize]| -> Vec<Vec<u32>> {
            let of_rows = |x: &Tensor<3>| {
                let rows = rows.iter().map(|&row| x.clone().narrow(1, row, 1));
                Tensor::cat(rows.collect(), 1)
            };
            let row_groups: Vec<_> = rows.iter().map(|&row| owners[row]).collect();
            let change = GroupedChange::new(groups.clone(), row_groups);
            values(change.add_to(of_rows(&frozen), of_rows(&x)))
                .chunks(out_size)
                .map(|row| row.iter().map(|value| value.to_bits()).collect())
                .collect()
        };
        let all = changed(&(0..owners.len()).collect::<Vec<_>>());
        let splits: [&[usize]; 6] = [
            &[0, 0],
            &[90, 3, 91, 17],
            &[24, 25, 26],
            &[24, 25, 26, 27, 28],
            &[24, 2, 25, 0, 26, 27],
            &[92],
        ];
        let backwards: Vec<usize> = (0..owners.len()).rev().collect();
        for rows in splits.into_iter().chain([backwards.as_slice()]) {
            for (found, &row) in changed(rows).iter().zip(rows) {
                assert!(*found == all[row], "row {row} among {rows:?}");
            }
        }
        for (row, expected) in all.iter().enumerate() {
            assert!(changed(&[row])[0] == *expected, "row {row} alone");
        }
    }

    #[test]
    fn each_row_is_changed_by_its_own_group_and_others_not_at_all() {
        let groups = factors(6, 5, [2, 3]);
        let x = random([3, 4, 6]);
        let change = ModuleChange::from(GroupedChange::new(
            groups.clone(),
            [Some(1), None, Some(0)].to_vec(),
        ));
        let frozen: Tensor<3> = random([3, 4, 5]);
        let before = frozen.to_data();
        let found = change.add_to(frozen.clone(), x.clone());
        frozen.to_data().assert_eq(&before, true);
        let row = |x: &Tensor<3>, row: usize| x.clone().slice([row..=row]).squeeze_dim::<2>(0);
        for (row_idx, group_idx) in [(0, 1), (2, 0)] {
            let expected = row(&frozen, row_idx) + groups[group_idx].apply(row(&x, row_idx));
            assert_close(row(&found, row_idx), expected);
        }
        assert_eq!(values(row(&found, 1)), values(row(&frozen, 1)));
        assert_close(change.apply(x), found - frozen);
    }

    #[test]
    fn a_scale_of_zero_adds_zeros() {
        let mut groups = factors(6, 5, [2]);
        groups[0].scale = 0.0;
        let change = GroupedChange::new(groups, [Some(0), Some(0)].to_vec());
        assert_eq!(values(change.apply(random([2, 1, 6]))), [0.0; 10]);
    }

    #[test]
    fn gradients_reach_the_factors_of_a_rows_own_group() {
        let groups = factors(6, 5, [2, 3]);
        let tracked: Vec<LoraFactors> = groups
            .iter()
            .map(|group| LoraFactors {
                a: group.a.clone().autodiff().require_grad(),
                b: group.b.clone().autodiff().require_grad(),
                scale: group.scale,
            })
            .collect();
        let x: Tensor<3> = random([1, 4, 6]);
        let row_groups = [Some(1), None, Some(0), Some(0)].to_vec();
        let change = GroupedChange::new(tracked.clone(), row_groups.clone());
        let found = change.apply(x.clone().autodiff());
        assert_close(
            found.clone().inner(),
            GroupedChange::new(groups, row_groups).apply(x.clone()),
        );
        let grads = found.sum().backward();
        for (group, rows) in tracked.iter().zip([2..4, 0..1]) {
            let own = x.clone().slice([0..1, rows]).squeeze_dim(0).autodiff();
            let expected = group.apply(own).sum().backward();
            for factor in [&group.a, &group.b] {
                assert_close(
                    factor.grad(&grads).unwrap(),
                    factor.grad(&expected).unwrap(),
                );
            }
        }
    }

    #[test]
    #[should_panic(expected = "group 1 of 1")]
    fn a_group_that_does_not_exist_is_refused() {
        let _ = GroupedChange::new(factors(6, 5, [2]), [Some(1)].to_vec());
    }
}
