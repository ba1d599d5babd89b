//! The loaded adapters of an engine, with counts of their groups.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;

use burn::tensor::Tensor;
use chameleon_cluster::{CentroidIndex, ClusterError};
use chameleon_hypernet::Condition;

use super::groups::KeyedGroups;
use super::isolation::lock;
use crate::adapter::adaptation::{FactorProducer, HeadAdaptation};
use crate::adapter::{Adapter, ExemplarUse, MemoryDescription, Recipe};

/// The group of a prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NearestGroup {
    /// The trained centroid nearest to the prompt.
    pub cluster_idx: usize,
    /// The Euclidean distance to it.
    pub distance: f32,
}

/// A loaded adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterInfo {
    /// Its name.
    pub name: String,
    /// How the head is adapted.
    pub head: HeadAdaptation,
    /// Names of the adapted modules inside the layers.
    pub targets: Vec<String>,
    /// The condition it was trained with.
    pub condition: Condition,
    /// Its groups.
    pub num_clusters: usize,
    /// Tokens of a prompt by which it is grouped.
    pub prefix: usize,
    /// The memory of its groups, if it has one.
    pub memory: Option<MemoryDescription>,
    /// Its groups by key that have exemplars.
    pub num_groups: usize,
    /// What it does with the exemplars of a group, if anything.
    pub exemplars: Option<ExemplarUse>,
    /// Requests started with it.
    pub num_requests: u64,
}

/// One group of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterInfo {
    /// The group.
    pub cluster_idx: usize,
    /// Requests in it.
    pub num_requests: u64,
    /// Those that are running now.
    pub num_running: usize,
    /// The Frobenius norm of `scale * a·b`, if factors were generated: how much the head is changed.
    pub delta_norm: Option<f32>,
    /// The latest requests, the latest last.
    pub recent_request_ids: Vec<u64>,
}

/// An adapter with its name and its counts. Requests keep it alive after it was unloaded.
pub(super) struct LoadedAdapter {
    /// Distinguishes two adapters that had the same name one after the other.
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) adapter: Adapter,
    /// Produces the factors of its groups.
    pub(super) producer: FactorProducer,
    /// Its groups by key, if it was loaded with exemplars.
    pub(super) groups: Option<KeyedGroups>,
    centroids: CentroidIndex,
    clusters: Mutex<Vec<ClusterHistory>>,
}

#[derive(Debug, Clone, Default)]
struct ClusterHistory {
    num_requests: u64,
    num_running: usize,
    delta_norm: Option<f32>,
    recent: VecDeque<u64>,
}

impl LoadedAdapter {
    pub(super) fn new(
        id: u64,
        name: String,
        adapter: Adapter,
        groups: Option<KeyedGroups>,
    ) -> Result<Self, ClusterError> {
        let centroids = CentroidIndex::new(&adapter.centroids)?;
        let clusters = vec![ClusterHistory::default(); adapter.config.num_clusters];
        let producer = adapter.module.factor_producer();
        Ok(Self {
            id,
            name,
            adapter,
            producer,
            groups,
            centroids,
            clusters: Mutex::new(clusters),
        })
    }

    /// The trained centroid nearest to a prompt embedding, `[1, hidden]`.
    pub(super) fn nearest(&self, embedding: &Tensor<2>) -> Result<NearestGroup, ClusterError> {
        let nearest = self.centroids.nearest(embedding)?;
        Ok(NearestGroup {
            cluster_idx: nearest.assignments[0],
            distance: nearest.distances[0],
        })
    }

    /// Tokens of a prompt by which it is grouped.
    pub(super) fn prefix(&self) -> usize {
        let Recipe::Causal { prefix, .. } = self.adapter.config.recipe;
        prefix
    }

    pub(super) fn info(&self) -> AdapterInfo {
        let config = &self.adapter.config;
        AdapterInfo {
            name: self.name.clone(),
            head: config.head.clone(),
            targets: config
                .layers
                .as_ref()
                .map_or_else(Vec::new, |layers| layers.targets.clone()),
            condition: config.condition,
            num_clusters: config.num_clusters,
            prefix: self.prefix(),
            memory: self
                .adapter
                .memory
                .as_ref()
                .map(|memory| memory.description.clone()),
            num_groups: self.groups.as_ref().map_or(0, KeyedGroups::count),
            exemplars: config.exemplars,
            num_requests: lock(&self.clusters)
                .iter()
                .map(|cluster| cluster.num_requests)
                .sum(),
        }
    }

    pub(super) fn clusters(&self) -> Vec<ClusterInfo> {
        lock(&self.clusters)
            .iter()
            .enumerate()
            .map(|(cluster_idx, history)| ClusterInfo {
                cluster_idx,
                num_requests: history.num_requests,
                num_running: history.num_running,
                delta_norm: history.delta_norm,
                recent_request_ids: history.recent.iter().copied().collect(),
            })
            .collect()
    }

    /// Counts a request of this group that has started.
    pub(super) fn record_start(&self, cluster_idx: usize, request_id: u64, num_recent: usize) {
        let history = &mut lock(&self.clusters)[cluster_idx];
        history.num_requests += 1;
        history.num_running += 1;
        history.recent.push_back(request_id);
        while history.recent.len() > num_recent {
            history.recent.pop_front();
        }
    }

    /// Counts a request of this group that has ended.
    pub(super) fn record_end(&self, cluster_idx: usize) {
        lock(&self.clusters)[cluster_idx].num_running -= 1;
    }

    /// Stores the norm of a group's change of the head.
    pub(super) fn record_norm(&self, cluster_idx: usize, delta_norm: f32) {
        lock(&self.clusters)[cluster_idx].delta_norm = Some(delta_norm);
    }
}

impl fmt::Debug for LoadedAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedAdapter")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
