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
    LowRank(LowRankChange),
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
        Self::LowRank(change)
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
