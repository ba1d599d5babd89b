//! The changes of the layers for the rows of one batch, which may belong to any groups of any adapters.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use chameleon_core::{GroupedChange, LoraFactors, RankMix};

use super::{GroupLayers, SharedLayers};
use crate::layer_factors::LayerFactors;

impl LayerFactors {
    /// The changes for rows of any groups, each row changed by its own group, or unchanged. The groups may belong to
    /// several adapters. The result is valid as long as the batch has these rows.
    ///
    /// The groups of an adapter with cores share its factors, so all rows are multiplied by these. Groups without
    /// cores have factors of their own.
    pub fn for_rows(rows: &[Option<&GroupLayers>]) -> Self {
        let mut changes = Self::none();
        changes.add_cores(rows);
        changes.add_own_factors(rows);
        changes
    }

    /// One change for each module and adapter with cores.
    fn add_cores(&mut self, rows: &[Option<&GroupLayers>]) {
        let mut adapters: Vec<&SharedLayers> = Vec::new();
        for group in rows.iter().flatten() {
            let has_cores = group.cores.is_some();
            if has_cores && !adapters.iter().any(|layers| layers.is(&group.layers)) {
                adapters.push(&group.layers);
            }
        }
        for layers in adapters {
            let rank = layers.rank();
            let num_modules = layers.0.modules.len();
            let mut off = None;
            let mixes: Vec<Tensor<3>> = rows
                .iter()
                .map(|row| {
                    let own = row.filter(|group| group.layers.is(layers));
                    // A row of another adapter is multiplied by zero.
                    own.and_then(GroupLayers::mixes).unwrap_or_else(|| {
                        off.get_or_insert_with(|| {
                            let device = layers.0.factors[0].a.device();
                            Tensor::zeros([num_modules, rank, rank], &device)
                        })
                        .clone()
                    })
                })
                .collect();
            let mixes = Tensor::stack::<4>(mixes, 0); // [batch, modules, rank, rank]
            layers.add_changes(self, |module_idx, _| {
                let own = mixes
                    .clone()
                    .slice([0..rows.len(), module_idx..module_idx + 1]);
                RankMix::PerRow(own.squeeze_dim(1))
            });
        }
    }

    /// One change for each module, by all groups without cores.
    fn add_own_factors(&mut self, rows: &[Option<&GroupLayers>]) {
        let mut groups: Vec<&GroupLayers> = Vec::new();
        let group_of_row: Vec<Option<usize>> = rows
            .iter()
            .map(|row| {
                let group = row.filter(|group| group.cores.is_none())?;
                let known = groups.iter().position(|known| known.is_same(group));
                Some(known.unwrap_or_else(|| {
                    groups.push(group);
                    groups.len() - 1
                }))
            })
            .collect();
        for ((layer_idx, path), members) in members_by_module(&groups) {
            // Not every adapter changes every module.
            let mut member_of_group = vec![None; groups.len()];
            for (member_idx, (group_idx, _)) in members.iter().enumerate() {
                member_of_group[*group_idx] = Some(member_idx);
            }
            let row_groups: Vec<Option<usize>> = group_of_row
                .iter()
                .map(|group_idx| group_idx.and_then(|group_idx| member_of_group[group_idx]))
                .collect();
            let factors = members.into_iter().map(|(_, factors)| factors).collect();
            self.push(layer_idx, path, GroupedChange::new(factors, row_groups));
        }
    }
}

/// The factors of each module, strengths included, with the index of their group.
fn members_by_module<'a>(
    groups: &[&'a GroupLayers],
) -> BTreeMap<(usize, &'a str), Vec<(usize, LoraFactors)>> {
    let mut members: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (group_idx, group) in groups.iter().enumerate() {
        for (module, factors) in group.module_factors() {
            let module = (module.layer_idx, module.path.as_str());
            members
                .entry(module)
                .or_default()
                .push((group_idx, factors));
        }
    }
    members
}
