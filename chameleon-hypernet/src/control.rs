//! Controls: conditions without information about the group.
//!
//! An adapter that scores as well under a control as with the right conditions does not use the clusters. This module
//! defines which condition a group receives; `condition.rs` defines how a condition is computed from prompts.

use std::fmt;

use burn::tensor::Tensor;
use chameleon_core::RunSeed;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use crate::condition::{Condition, PromptGroup, centroid};
use crate::error::HypernetError;

/// Which condition a group receives, in training and in scoring.
///
/// [`Redrawn`](Self::Redrawn) and [`Constant`](Self::Constant) are the same network without the information about the
/// cluster. A *fixed* permutation of the clusters' conditions is not a control: it still identifies every cluster, so a
/// network trained with it can learn as much as with the right conditions. The methods `core-redrawn` and
/// `dense-redrawn` of the program run [`Redrawn`](Self::Redrawn).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ConditionControl {
    /// Its own: no control.
    #[default]
    None,
    /// The centroid of another cluster, drawn anew for every batch.
    Redrawn,
    /// The mean of all centroids, the same for every group.
    Constant,
}

impl ConditionControl {
    /// The control for a number of clusters and a seed.
    ///
    /// # Errors
    ///
    /// When the control draws another cluster and there are fewer than two.
    pub fn plan(self, num_clusters: usize, seed: RunSeed) -> Result<ControlPlan, HypernetError> {
        if self == Self::Redrawn && num_clusters < 2 {
            return Err(HypernetError::NoOtherCluster { num_clusters });
        }
        Ok(ControlPlan {
            control: self,
            seed,
            num_clusters,
        })
    }
}

impl fmt::Display for ConditionControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Redrawn => "redrawn",
            Self::Constant => "constant",
        })
    }
}

/// A control for a number of clusters and a seed.
#[derive(Debug, Clone)]
pub struct ControlPlan {
    control: ConditionControl,
    seed: RunSeed,
    num_clusters: usize,
}

/// The source of a group's condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionSource {
    /// The group itself.
    Own,
    /// The centroid of this cluster.
    Centroid(usize),
    /// The mean of all centroids.
    MeanCentroid,
}

impl ControlPlan {
    /// The source of the condition of cluster `cluster_idx` in batch `batch_idx`.
    ///
    /// # Panics
    ///
    /// When there is no such cluster.
    pub fn source(&self, cluster_idx: usize, batch_idx: usize) -> ConditionSource {
        assert!(
            cluster_idx < self.num_clusters,
            "cluster {cluster_idx} of {}",
            self.num_clusters
        );
        match self.control {
            ConditionControl::None => ConditionSource::Own,
            ConditionControl::Redrawn => {
                ConditionSource::Centroid(self.another_cluster(cluster_idx, batch_idx))
            }
            ConditionControl::Constant => ConditionSource::MeanCentroid,
        }
    }

    /// The conditions of a group: [`Condition::conditions`] unless there is a control.
    ///
    /// # Shapes
    ///
    /// - as [`Condition::conditions`]; the output has the same number of rows under every control
    ///
    /// # Panics
    ///
    /// As [`Condition::conditions`].
    pub fn conditions(
        &self,
        condition: Condition,
        group: PromptGroup,
        batch_idx: usize,
    ) -> Tensor<2> {
        let [num_prompts, _] = group.prompt_embeddings.dims();
        let row = match self.source(group.cluster_idx, batch_idx) {
            ConditionSource::Own => return condition.conditions(group),
            ConditionSource::Centroid(cluster_idx) => centroid(&group.centroids, cluster_idx),
            ConditionSource::MeanCentroid => group.centroids.mean_dim(0),
        };
        let num_conditions = condition.condition_idx(num_prompts - 1) + 1;
        row.repeat_dim(0, num_conditions)
    }

    /// A pure function of seed, batch and cluster, so that a resumed run draws the same.
    fn another_cluster(&self, cluster_idx: usize, batch_idx: usize) -> usize {
        let mut rng = self
            .seed
            .stream(&format!("redrawn-{batch_idx}-{cluster_idx}"));
        (cluster_idx + rng.random_range(1..self.num_clusters)) % self.num_clusters
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, normal};

    fn group(cluster_idx: usize) -> PromptGroup {
        PromptGroup {
            prompt_embeddings: normal([4, 6], 1),
            centroids: normal([3, 6], 2),
            cluster_idx,
        }
    }

    proptest! {
        #[test]
        fn redrawn_never_picks_the_cluster_itself(
            num_clusters in 2usize..20,
            seed in any::<u64>(),
            batch_idx in 0usize..1000,
        ) {
            let plan = ConditionControl::Redrawn.plan(num_clusters, RunSeed(seed)).unwrap();
            for cluster_idx in 0..num_clusters {
                let other = plan.another_cluster(cluster_idx, batch_idx);
                prop_assert!(other != cluster_idx && other < num_clusters);
            }
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_and_another_batch_or_seed_differs() {
        let sources = |seed: u64, batch_idx: usize| -> Vec<ConditionSource> {
            let plan = ConditionControl::Redrawn.plan(30, RunSeed(seed)).unwrap();
            (0..30)
                .map(|cluster_idx| plan.source(cluster_idx, batch_idx))
                .collect()
        };
        assert_eq!(sources(1, 5), sources(1, 5));
        assert_ne!(sources(1, 5), sources(2, 5));
        assert_ne!(sources(1, 5), sources(1, 6));
    }

    #[test]
    fn drawing_another_of_one_cluster_is_refused() {
        let error = ConditionControl::Redrawn.plan(1, RunSeed(0)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the `redrawn` control needs at least 2 clusters, found 1"
        );
        assert!(ConditionControl::Constant.plan(1, RunSeed(0)).is_ok());
    }

    #[test]
    fn controlled_conditions_carry_nothing_of_the_group() {
        let conditions = |control: ConditionControl, condition, cluster_idx| {
            let plan = control.plan(3, RunSeed(4)).unwrap();
            plan.conditions(condition, group(cluster_idx), 0)
        };
        let own = conditions(ConditionControl::None, Condition::Batch, 1);
        assert_close(&own, &Condition::Batch.conditions(group(1)));

        let mean = normal([3, 6], 2).mean_dim(0);
        for cluster_idx in 0..3 {
            let constant = conditions(ConditionControl::Constant, Condition::Batch, cluster_idx);
            assert_close(&constant, &mean);
        }
        let redrawn = conditions(ConditionControl::Redrawn, Condition::Prompt, 1);
        assert_eq!(redrawn.dims(), [4, 6]);
        let ConditionSource::Centroid(other) = ConditionControl::Redrawn
            .plan(3, RunSeed(4))
            .unwrap()
            .source(1, 0)
        else {
            panic!("redrawn gives a centroid");
        };
        assert_close(
            &redrawn.slice([3..=3]),
            &Condition::Centroid.conditions(group(other)),
        );
    }

    #[test]
    fn a_control_is_written_as_it_is_shown() {
        for control in [
            ConditionControl::None,
            ConditionControl::Redrawn,
            ConditionControl::Constant,
        ] {
            let json = serde_json::to_string(&control).unwrap();
            assert_eq!(json, format!("\"{control}\""));
        }
    }
}
