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

#[cfg(test)]
mod tests {
    use chameleon_core::{ModuleChange, RunSeed};

    use super::super::{AdaptedLayersConfig, LayerCores, LayerModule};
    use super::*;
    use crate::testing::{assert_close, normal, perturbed, values};

    fn module(layer_idx: usize, path: &str, [in_size, out_size]: [usize; 2]) -> LayerModule {
        LayerModule {
            layer_idx,
            path: path.to_owned(),
            in_size,
            out_size,
        }
    }

    fn modules() -> Vec<LayerModule> {
        vec![
            module(0, "up", [70, 90]),
            module(0, "down", [90, 70]),
            module(2, "up", [70, 90]),
        ]
    }

    fn layers(
        modules: Vec<LayerModule>,
        rank: usize,
        cores: LayerCores,
        seed: u64,
    ) -> SharedLayers {
        let config = AdaptedLayersConfig {
            modules,
            rank,
            scale: 0.5,
            cores,
        };
        let device = burn::tensor::Device::flex();
        perturbed(config.init(RunSeed(seed), &device), seed).shared()
    }

    fn changed(factors: &LayerFactors, module: &LayerModule, x: &Tensor<3>) -> Tensor<3> {
        let [batch, seq_len, _] = x.dims();
        let frozen = normal([1, 1, module.out_size], 9).expand([batch, seq_len, module.out_size]);
        factors
            .changes(module.layer_idx, &module.path)
            .iter()
            .fold(frozen, |output, change| change.add_to(output, x.clone()))
    }

    /// Of an adapter with cores, of one without, and two with factors of their own for the modules of the latter.
    fn groups() -> Vec<GroupLayers> {
        let cored = layers(modules(), 3, LayerCores::Generated { num_features: 4 }, 1)
            .groups(normal([2, 4], 2));
        let plain = layers(modules(), 2, LayerCores::None, 3);
        let own = [4, 5].map(|seed| {
            let factors = layers(modules(), 2, LayerCores::None, seed)
                .factors()
                .to_vec();
            plain.with_factors(factors).for_all_groups()
        });
        let [first, second] = own;
        let upper = layers(modules()[1..].to_vec(), 8, LayerCores::None, 6).for_all_groups();
        cored
            .into_iter()
            .chain([
                plain.for_all_groups(),
                first,
                second.with_strength(0.3),
                upper,
            ])
            .collect()
    }

    const ROWS: [usize; 12] = [3, 0, 2, 4, 4, 1, 9, 3, 5, 2, 0, 5];

    #[test]
    fn groups_with_cores_and_with_factors_of_their_own_are_changed_as_each_alone() {
        let groups = groups();
        let rows: Vec<_> = ROWS.iter().map(|&idx| groups.get(idx)).collect();
        let together = LayerFactors::for_rows(&rows);
        for module in modules() {
            let x = normal([rows.len(), 2, module.in_size], 3);
            let found = changed(&together, &module, &x);
            for (row_idx, row) in rows.iter().enumerate() {
                let of_row = |x: &Tensor<3>| x.clone().slice([row_idx..=row_idx]);
                let alone = row.map_or_else(LayerFactors::none, GroupLayers::for_batch);
                assert_close(&of_row(&found), &changed(&alone, &module, &of_row(&x)));
            }
        }
    }

    #[test]
    fn the_last_bits_of_a_row_do_not_depend_on_the_other_groups() {
        let groups = groups();
        let rows: Vec<_> = ROWS.iter().map(|&idx| groups.get(idx)).collect();
        let together = LayerFactors::for_rows(&rows);
        for module in modules() {
            // Tokens lie one after the other, as in a decode step.
            let x: Tensor<3> = normal([1, rows.len(), module.in_size], 3);
            let found = changed(&together, &module, &x);
            for (row_idx, &row) in rows.iter().enumerate() {
                let of_row = |x: &Tensor<3>| x.clone().narrow(1, row_idx, 1);
                // No pass has a single row.
                let twice = of_row(&x).repeat_dim(1, 2);
                let alone = changed(&LayerFactors::for_rows(&[row, row]), &module, &twice);
                let alone = alone.narrow(1, 0, 1);
                assert_eq!(values(of_row(&found)), values(alone), "row {row_idx}");
            }
        }
    }

    #[test]
    fn all_factors_of_a_module_that_are_not_shared_are_one_change() {
        let groups = groups();
        let rows: Vec<_> = groups.iter().map(Some).collect();
        let factors = LayerFactors::for_rows(&rows);
        for (module, num_groups) in modules().iter().zip([3, 4, 4]) {
            match factors.changes(module.layer_idx, &module.path) {
                [ModuleChange::LowRank(_), ModuleChange::Grouped(change)] => {
                    assert_eq!(change.groups().len(), num_groups);
                }
                changes => panic!("{} changes", changes.len()),
            }
        }
        assert_eq!(LayerFactors::for_rows(&[None, None]).first_layer(), None);
    }

    #[test]
    fn a_strength_of_zero_changes_nothing() {
        let off = groups().swap_remove(3).with_strength(0.0);
        let factors = LayerFactors::for_rows(&[Some(&off), Some(&off)]);
        let module = &modules()[0];
        let x = normal([2, 1, module.in_size], 3);
        let found = changed(&factors, module, &x);
        assert_eq!(
            values(found),
            values(changed(&LayerFactors::none(), module, &x))
        );
    }

    #[test]
    fn factors_of_their_own_are_the_same_only_as_their_clones() {
        let groups = groups();
        let clone = groups[3].clone();
        assert!(clone.is_same(&groups[3]));
        assert!(!clone.clone().with_strength(0.5).is_same(&groups[3]));
        assert!(!groups[3].is_same(&groups[4]) && !groups[3].is_same(&groups[2]));
    }
}
