//! The factors of groups: generated once, cached, and applied to the rows of a step.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use chameleon_core::LoraFactors;
use chameleon_hypernet::{GroupLayers, GroupedFactors, RowGroups};

use super::adapters::LoadedAdapter;
use crate::adapter::adaptation::{GroupFactors, HeadAdapter};
use crate::families::indices::index_tensor;

/// The factors of one group, in the cache and in the rows that use them.
#[derive(Debug)]
pub(super) struct CachedFactors {
    /// Unique among the factors of all groups of all adapters.
    id: u64,
    adapter: Arc<LoadedAdapter>,
    group: GroupFactors,
}

/// The cache key of factors.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct FactorKey {
    adapter_id: u64,
    cluster_idx: usize,
    /// The bits of the condition, if the head depends on one.
    condition: Vec<u32>,
}

/// The factors that were used last.
#[derive(Debug)]
pub(super) struct FactorCache {
    entries: BTreeMap<FactorKey, CacheEntry>,
    max_entries: usize,
    num_lookups: u64,
    num_generated: u64,
}

#[derive(Debug)]
struct CacheEntry {
    factors: Arc<CachedFactors>,
    /// The number of the last look-up.
    last_used: u64,
}

/// The hypernetwork produced non-finite factors.
#[derive(Debug, thiserror::Error)]
#[error("the adapter's factors for group {cluster_idx} are not finite")]
pub(super) struct NotFinite {
    cluster_idx: usize,
}

impl FactorCache {
    pub(super) fn new(max_entries: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            max_entries,
            num_lookups: 0,
            num_generated: 0,
        }
    }

    pub(super) fn num_hits(&self) -> u64 {
        self.num_lookups - self.num_generated
    }

    pub(super) fn num_misses(&self) -> u64 {
        self.num_generated
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The factors of a group under a condition, `[hidden]`.
    ///
    /// They are generated for one condition at a time, so that they do not depend on other requests.
    pub(super) fn get(
        &mut self,
        adapter: &Arc<LoadedAdapter>,
        cluster_idx: usize,
        condition: &[f32],
    ) -> Result<Arc<CachedFactors>, NotFinite> {
        let (cluster_idx, condition): (usize, &[f32]) = match &adapter.adapter.module.head {
            HeadAdapter::Hyper(_) => (cluster_idx, condition),
            HeadAdapter::Experts(_) => (cluster_idx, &[]),
            // The same for all groups, so that their rows are multiplied once.
            HeadAdapter::Lora(_) => (0, &[]),
        };
        let key = FactorKey {
            adapter_id: adapter.id,
            cluster_idx,
            condition: condition.iter().map(|value| value.to_bits()).collect(),
        };
        self.num_lookups += 1;
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.last_used = self.num_lookups;
            return Ok(Arc::clone(&entry.factors));
        }
        let data = TensorData::new(condition.to_vec(), [1, condition.len()]);
        let device = adapter.adapter.centroids.device();
        let condition = Tensor::from_data(data, &device);
        let mut groups = adapter.producer.groups(cluster_idx, condition);
        let group = groups.pop().expect("one condition makes one group");
        let norm = delta_norm(&group.head);
        let are_layers_finite = group.layers.as_ref().is_none_or(GroupLayers::is_finite);
        if !(norm.is_finite() && are_layers_finite) {
            return Err(NotFinite { cluster_idx });
        }
        adapter.record_norm(cluster_idx, norm);
        let factors = Arc::new(CachedFactors {
            id: self.num_generated,
            adapter: Arc::clone(adapter),
            group,
        });
        self.num_generated += 1;
        if self.entries.len() >= self.max_entries {
            self.evict_one();
        }
        let entry = CacheEntry {
            factors: Arc::clone(&factors),
            last_used: self.num_lookups,
        };
        self.entries.insert(key, entry);
        Ok(factors)
    }

    fn evict_one(&mut self) {
        let entries = self.entries.iter();
        let oldest = entries.min_by_key(|(_, entry)| entry.last_used);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.entries.remove(&key);
        }
    }
}

/// The Frobenius norm of `scale * a·b`, without building it.
fn delta_norm(factors: &LoraFactors) -> f32 {
    let (a, b) = (factors.a.clone(), factors.b.clone());
    let square = a.clone().transpose().matmul(a) * b.clone().matmul(b.transpose());
    let square: f32 = square.sum().into_scalar();
    #[expect(
        clippy::cast_possible_truncation,
        reason = "it is shown, not computed with"
    )]
    let scale = factors.scale.abs() as f32;
    // Rounding may leave a tiny negative number in place of zero.
    square.max(0.0).sqrt() * scale
}

/// The factors of one row, and their scale.
#[derive(Debug, Clone)]
pub(super) struct RowFactors {
    pub(super) factors: Arc<CachedFactors>,
    /// The layers of the row's group by key, in place of those of `factors`.
    pub(super) keyed_layers: Option<GroupLayers>,
    pub(super) scale: f64,
}

impl RowFactors {
    /// The changes inside the layers for the row.
    pub(super) fn layers(&self) -> Option<GroupLayers> {
        let layers = match &self.keyed_layers {
            Some(layers) => layers.clone(),
            None => self.factors.group.layers.clone()?,
        };
        Some(layers.with_strength(self.scale))
    }
}

/// Factors side by side, adapter by adapter, for the rows that run.
#[derive(Debug, Default)]
pub(super) struct JoinedFactors {
    by_adapter: BTreeMap<u64, Joined>,
}

#[derive(Debug)]
struct Joined {
    ids: Vec<u64>,
    factors: GroupedFactors,
}

impl JoinedFactors {
    /// The change of the logits of rows with these factors; `None` if no row has any.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[rows or more, hidden]`
    /// - output: `[rows or more, vocab]`
    pub(super) fn delta(
        &mut self,
        hidden: &Tensor<2>,
        rows: &[Option<RowFactors>],
    ) -> Option<Tensor<2>> {
        let mut by_adapter: BTreeMap<u64, Vec<&Arc<CachedFactors>>> = BTreeMap::new();
        for row in rows.iter().flatten() {
            let wanted = by_adapter.entry(row.factors.adapter.id).or_default();
            if wanted.iter().all(|other| other.id != row.factors.id) {
                wanted.push(&row.factors);
            }
        }
        self.by_adapter
            .retain(|adapter_id, _| by_adapter.contains_key(adapter_id));
        by_adapter
            .into_iter()
            .map(|(adapter_id, wanted)| {
                let joined = self.join(adapter_id, &wanted);
                joined.apply(adapter_id, hidden, rows)
            })
            .reduce(|sum, delta| sum + delta)
    }

    /// The factors side by side; those of the last step if they suffice.
    fn join(&mut self, adapter_id: u64, wanted: &[&Arc<CachedFactors>]) -> &Joined {
        let suffices = self.by_adapter.get(&adapter_id).is_some_and(|joined| {
            joined.ids.len() <= 2 * wanted.len() + 2
                && wanted
                    .iter()
                    .all(|factors| joined.ids.contains(&factors.id))
        });
        if !suffices {
            let head = &wanted[0].adapter.adapter.module.head;
            let factors = wanted
                .iter()
                .map(|cached| cached.group.head.clone())
                .collect();
            let joined = Joined {
                ids: wanted.iter().map(|cached| cached.id).collect(),
                factors: head.join(factors),
            };
            self.by_adapter.insert(adapter_id, joined);
        }
        &self.by_adapter[&adapter_id]
    }
}

impl Joined {
    fn apply(&self, adapter_id: u64, hidden: &Tensor<2>, rows: &[Option<RowFactors>]) -> Tensor<2> {
        let [num_rows, _] = hidden.dims();
        let device = hidden.device();
        let none = self.ids.len();
        let mut group_idx = vec![none; num_rows];
        let mut scale = vec![0.0_f32; num_rows];
        for (row_idx, row) in rows.iter().enumerate() {
            let Some(row) = row else { continue };
            if row.factors.adapter.id != adapter_id {
                continue;
            }
            let found = self.ids.iter().position(|&id| id == row.factors.id);
            group_idx[row_idx] = found.expect("wanted factors were joined");
            #[expect(clippy::cast_possible_truncation, reason = "a scale is a small number")]
            let narrowed = row.scale as f32;
            scale[row_idx] = narrowed;
        }
        let groups = RowGroups {
            group_idx: index_tensor(group_idx, &device),
            scale: Tensor::from_data(TensorData::new(scale, [num_rows]), &device),
        };
        self.factors.apply(hidden.clone(), groups)
    }
}
