//! Wrong conditions, given on purpose.
//!
//! An adapter that scores as well with wrong conditions as with right ones has learned nothing from
//! the clusters. This module decides whose condition a group is given; how a condition is made from
//! prompts is [`condition`](crate::condition)'s business.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Tensor;
use chameleon_core::RunSeed;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use crate::condition::{Condition, PromptGroup, centroid};
use crate::error::HypernetError;

/// Whose condition a group is given.
///
/// What each control can show depends on when it acts:
///
/// - [`Shuffled`](Self::Shuffled) is for *scoring* an adapter that was trained with right
///   conditions: the loss must rise, or the conditions were not used. Training under it shows
///   little, because a fixed swap still names every cluster and can be learned like the truth.
/// - [`Redrawn`](Self::Redrawn) and [`Constant`](Self::Constant) are for *training* too: the same
///   network with the information about the cluster taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ConditionControl {
    /// Its own.
    #[default]
    None,
    /// The centroid of another cluster, always the same one: a seeded swap that leaves no cluster
    /// in its place.
    Shuffled,
    /// The centroid of another cluster, drawn anew for every batch.
    Redrawn,
    /// The mean of all centroids, for every group alike.
    Constant,
}

impl ConditionControl {
    /// Every control.
    pub const ALL: [Self; 4] = [Self::None, Self::Shuffled, Self::Redrawn, Self::Constant];

    /// Settles who is given whose condition.
    ///
    /// # Errors
    ///
    /// When clusters are to be swapped and there are fewer than two.
    pub fn plan(self, num_clusters: usize, seed: RunSeed) -> Result<ControlPlan, HypernetError> {
        let swaps = matches!(self, Self::Shuffled | Self::Redrawn);
        if swaps && num_clusters < 2 {
            return Err(HypernetError::NoOtherCluster {
                control: self,
                num_clusters,
            });
        }
        Ok(ControlPlan {
            control: self,
            seed,
            derangement: derangement(num_clusters, seed),
        })
    }
}

impl fmt::Display for ConditionControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Shuffled => "shuffled",
            Self::Redrawn => "redrawn",
            Self::Constant => "constant",
        })
    }
}

impl FromStr for ConditionControl {
    type Err = HypernetError;

    fn from_str(name: &str) -> Result<Self, HypernetError> {
        Self::ALL
            .into_iter()
            .find(|control| control.to_string() == name)
            .ok_or_else(|| HypernetError::UnknownControl {
                found: name.to_owned(),
            })
    }
}

/// A control made concrete for a number of clusters and a seed.
#[derive(Debug, Clone)]
pub struct ControlPlan {
    control: ConditionControl,
    seed: RunSeed,
    derangement: Vec<usize>,
}

/// Where a group's condition comes from.
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
    /// Where the condition of cluster `cluster_idx` comes from in batch `batch_idx`.
    ///
    /// # Panics
    ///
    /// When there is no such cluster.
    pub fn source(&self, cluster_idx: usize, batch_idx: usize) -> ConditionSource {
        match self.control {
            ConditionControl::None => ConditionSource::Own,
            ConditionControl::Shuffled => ConditionSource::Centroid(self.derangement[cluster_idx]),
            ConditionControl::Redrawn => {
                ConditionSource::Centroid(self.another_cluster(cluster_idx, batch_idx))
            }
            ConditionControl::Constant => ConditionSource::MeanCentroid,
        }
    }

    /// The conditions of a group: [`Condition::conditions`] unless the control says otherwise.
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

    /// A pure function of seed, batch and cluster, so that a resumed run draws what it would have.
    fn another_cluster(&self, cluster_idx: usize, batch_idx: usize) -> usize {
        let num_clusters = self.derangement.len();
        let mut rng = self
            .seed
            .stream(&format!("redrawn-{batch_idx}-{cluster_idx}"));
        (cluster_idx + rng.random_range(1..num_clusters)) % num_clusters
    }
}

/// A random permutation that is one single cycle (Sattolo), so nothing stays where it is.
fn derangement(num_clusters: usize, seed: RunSeed) -> Vec<usize> {
    let mut rng = seed.stream("derangement");
    let mut targets: Vec<usize> = (0..num_clusters).collect();
    for last in (1..num_clusters).rev() {
        targets.swap(last, rng.random_range(0..last));
    }
    targets
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
        fn shuffled_is_a_permutation_that_leaves_no_cluster_in_place(
            num_clusters in 2usize..200,
            seed in any::<u64>(),
        ) {
            let targets = derangement(num_clusters, RunSeed(seed));
            prop_assert!(targets.iter().enumerate().all(|(from, &to)| from != to));
            let mut sorted = targets;
            sorted.sort_unstable();
            prop_assert!(sorted.into_iter().eq(0..num_clusters));
        }

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
    fn the_same_seed_makes_the_same_plan() {
        let sources = |seed: u64, control: ConditionControl| -> Vec<ConditionSource> {
            let plan = control.plan(30, RunSeed(seed)).unwrap();
            (0..30)
                .map(|cluster_idx| plan.source(cluster_idx, 5))
                .collect()
        };
        for control in [ConditionControl::Shuffled, ConditionControl::Redrawn] {
            assert_eq!(sources(1, control), sources(1, control));
            assert_ne!(sources(1, control), sources(2, control));
        }
    }

    #[test]
    fn redrawn_changes_from_batch_to_batch_and_shuffled_does_not() {
        let sources = |control: ConditionControl| -> Vec<ConditionSource> {
            let plan = control.plan(30, RunSeed(1)).unwrap();
            (0..20).map(|batch_idx| plan.source(7, batch_idx)).collect()
        };
        let differ = |sources: Vec<ConditionSource>| sources.iter().any(|s| *s != sources[0]);
        assert!(differ(sources(ConditionControl::Redrawn)));
        assert!(!differ(sources(ConditionControl::Shuffled)));
    }

    #[test]
    fn swapping_a_single_cluster_is_refused() {
        for control in [ConditionControl::Shuffled, ConditionControl::Redrawn] {
            let error = control.plan(1, RunSeed(0)).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("the `{control}` control needs at least 2 clusters, found 1")
            );
        }
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
        let shuffled = conditions(ConditionControl::Shuffled, Condition::Prompt, 1);
        assert_eq!(shuffled.dims(), [4, 6]);
        let ConditionSource::Centroid(other) = ConditionControl::Shuffled
            .plan(3, RunSeed(4))
            .unwrap()
            .source(1, 0)
        else {
            panic!("shuffled gives a centroid");
        };
        assert_close(
            &shuffled.slice([3..=3]),
            &Condition::Centroid.conditions(group(other)),
        );
    }

    #[test]
    fn names_survive_the_round_trip_through_text_and_json() {
        for control in ConditionControl::ALL {
            assert_eq!(control.to_string().parse(), Ok(control));
            let json = serde_json::to_string(&control).unwrap();
            assert_eq!(json, format!("\"{control}\""));
        }
        let error = "swap".parse::<ConditionControl>().unwrap_err().to_string();
        assert!(error.contains("`swap`"), "{error}");
    }
}
