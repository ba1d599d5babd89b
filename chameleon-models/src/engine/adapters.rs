//! The adapters an engine has loaded, and what happened to their groups.

use std::error::Error;
use std::fmt;

use std::collections::VecDeque;
use std::sync::Mutex;

use burn::tensor::Tensor;
use chameleon_hypernet::Condition;

use super::lock;
use crate::adapter::adaptation::{Adaptation, FactorWriter};
use crate::adapter::{Adapter, MemoryDescription, Recipe};

/// The trained centroid a prompt belongs to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NearestCentroid {
    /// Its index.
    pub cluster_idx: usize,
    /// The Euclidean distance to it.
    pub distance: f32,
}

/// Finds the trained centroid nearest to a prompt embedding `[1, hidden]`.
///
/// The search is another crate's; the program joins both, as it does for training.
pub type Grouping =
    dyn Fn(&Tensor<2>) -> Result<NearestCentroid, Box<dyn Error + Send + Sync>> + Send + Sync;

/// What a prompt looks like to an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptGrouping {
    /// The prompt embedding, `[hidden]`.
    pub embedding: Vec<f32>,
    /// The group it falls in; nothing without an adapter.
    pub nearest: Option<NearestCentroid>,
}

/// A loaded adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterInfo {
    /// Its name.
    pub name: String,
    /// How the head is adapted.
    pub head: Adaptation,
    /// Names of the adapted modules inside the layers.
    pub targets: Vec<String>,
    /// What it was trained with.
    pub condition: Condition,
    /// Its groups.
    pub num_clusters: usize,
    /// Tokens of a prompt that decide its group.
    pub prefix: usize,
    /// What its groups remember, if it answers with a memory.
    pub memory: Option<MemoryDescription>,
    /// Requests answered with it.
    pub num_requests: u64,
}

/// One group of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterInfo {
    /// The group.
    pub cluster_idx: usize,
    /// Requests that fell in it.
    pub num_requests: u64,
    /// Those that are running now.
    pub num_running: usize,
    /// The Frobenius norm of `scale * a·b`, if factors were generated: how much the head is changed.
    pub delta_norm: Option<f32>,
    /// The latest requests, the latest last.
    pub recent_request_ids: Vec<u64>,
}

impl fmt::Display for NearestCentroid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "group {}, {:.3} from its centre",
            self.cluster_idx, self.distance
        )
    }
}

/// An adapter with its name and its history. Requests keep it alive after it was unloaded.
pub(super) struct LoadedAdapter {
    /// Tells apart two adapters that had the same name one after the other.
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) adapter: Adapter,
    /// Writes the factors of its groups.
    pub(super) writer: FactorWriter,
    pub(super) grouping: Box<Grouping>,
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
    pub(super) fn new(id: u64, name: String, adapter: Adapter, grouping: Box<Grouping>) -> Self {
        let clusters = vec![ClusterHistory::default(); adapter.config.num_clusters];
        let writer = adapter.trainee.factor_writer();
        Self {
            id,
            name,
            adapter,
            writer,
            grouping,
            clusters: Mutex::new(clusters),
        }
    }

    /// Tokens of a prompt that decide its group.
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

    /// Remembers that a request of this group has started.
    pub(super) fn record_start(&self, cluster_idx: usize, request_id: u64, num_recent: usize) {
        let history = &mut lock(&self.clusters)[cluster_idx];
        history.num_requests += 1;
        history.num_running += 1;
        history.recent.push_back(request_id);
        while history.recent.len() > num_recent {
            history.recent.pop_front();
        }
    }

    /// Remembers that a request of this group is over.
    pub(super) fn record_end(&self, cluster_idx: usize) {
        lock(&self.clusters)[cluster_idx].num_running -= 1;
    }

    /// Remembers how much a group's factors change the head.
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
