//! The hypernetwork's input from a group of prompts.
//!
//! Owns the ways of summarising a group ([`Condition`]) and the standardisation of the result
//! ([`ConditionNorm`]). Which prompts form a group is decided by clustering; controls are in
//! `control.rs`.

use std::fmt;
use std::str::FromStr;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, assert_shape};
use serde::{Deserialize, Serialize};

use crate::error::HypernetError;

/// How the hypernetwork's input is computed from a group of prompts.
///
/// Parsed from and displayed as one word, on the command line and in files: `batch`, `centroid`,
/// `prompt`, `blend` or `blend:16`.
///
/// ```
/// use chameleon_hypernet::Condition;
///
/// assert_eq!("blend:16".parse(), Ok(Condition::Blend { strength: 16.0 }));
/// assert_eq!(Condition::Centroid.to_string(), "centroid");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Condition {
    /// The mean of the prompts of the batch, as in the paper.
    #[default]
    Batch,
    /// The trained centroid of the group: independent of the other prompts.
    Centroid,
    /// Each prompt alone: as many conditions as prompts.
    Prompt,
    /// A weighted average of mean and centroid: the mean of `n` prompts has weight `n / (n + strength)`.
    Blend {
        /// The weight of the centroid in prompts; values below zero count as zero.
        strength: f64,
    },
}

/// The strength of a `blend` without one.
const DEFAULT_BLEND_STRENGTH: f64 = 8.0;

/// Prompts of one cluster.
#[derive(Debug, Clone)]
pub struct PromptGroup {
    /// `[prompts, hidden]`
    pub prompt_embeddings: Tensor<2>,
    /// `[clusters, hidden]`, of all trained clusters.
    pub centroids: Tensor<2>,
    /// The cluster these prompts belong to.
    pub cluster_idx: usize,
}

impl Condition {
    /// The conditions of a group: one row, or with [`Condition::Prompt`] one row per prompt.
    ///
    /// # Shapes
    ///
    /// - `group.prompt_embeddings`: `[prompts, hidden]`, `group.centroids`: `[clusters, hidden]`
    /// - output: `[1, hidden]` or `[prompts, hidden]`
    ///
    /// # Panics
    ///
    /// When the widths differ, the group is empty, or there is no such cluster.
    pub fn conditions(self, group: PromptGroup) -> Tensor<2> {
        let [num_prompts, hidden_size] = group.prompt_embeddings.dims();
        let [num_clusters, _] = group.centroids.dims();
        assert_shape!(group.centroids, [num_clusters, hidden_size]);
        assert!(num_prompts > 0, "a group has at least one prompt");
        let centroid = centroid(&group.centroids, group.cluster_idx);
        match self {
            Self::Batch => group.prompt_embeddings.mean_dim(0),
            Self::Centroid => centroid,
            Self::Prompt => group.prompt_embeddings,
            Self::Blend { strength } => {
                let weight = blend_weight(num_prompts, strength);
                group.prompt_embeddings.mean_dim(0) * weight + centroid * (1.0 - weight)
            }
        }
    }

    /// Which row of [`conditions`](Self::conditions) belongs to a prompt of the group.
    pub fn condition_idx(self, prompt_idx: usize) -> usize {
        match self {
            Self::Prompt => prompt_idx,
            Self::Batch | Self::Centroid | Self::Blend { .. } => 0,
        }
    }
}

/// One row of `[clusters, hidden]` as `[1, hidden]`.
pub(crate) fn centroid(centroids: &Tensor<2>, cluster_idx: usize) -> Tensor<2> {
    let [num_clusters, _] = centroids.dims();
    assert!(
        cluster_idx < num_clusters,
        "cluster {cluster_idx} of {num_clusters}"
    );
    centroids.clone().slice([cluster_idx..=cluster_idx])
}

fn blend_weight(num_prompts: usize, strength: f64) -> f64 {
    let num_prompts = num_prompts as f64;
    num_prompts / (num_prompts + strength.max(0.0))
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch => f.write_str("batch"),
            Self::Centroid => f.write_str("centroid"),
            Self::Prompt => f.write_str("prompt"),
            Self::Blend { strength } => write!(f, "blend:{strength}"),
        }
    }
}

impl FromStr for Condition {
    type Err = HypernetError;

    fn from_str(name: &str) -> Result<Self, HypernetError> {
        match name {
            "batch" => Ok(Self::Batch),
            "centroid" => Ok(Self::Centroid),
            "prompt" => Ok(Self::Prompt),
            "blend" => Ok(Self::Blend {
                strength: DEFAULT_BLEND_STRENGTH,
            }),
            _ => match name.strip_prefix("blend:") {
                Some(strength) => parse_strength(strength),
                None => Err(HypernetError::UnknownCondition {
                    found: name.to_owned(),
                }),
            },
        }
    }
}

fn parse_strength(found: &str) -> Result<Condition, HypernetError> {
    match found.parse::<f64>() {
        Ok(strength) if strength.is_finite() && strength >= 0.0 => {
            Ok(Condition::Blend { strength })
        }
        _ => Err(HypernetError::BlendStrength {
            found: found.to_owned(),
        }),
    }
}

impl TryFrom<String> for Condition {
    type Error = HypernetError;

    fn try_from(name: String) -> Result<Self, HypernetError> {
        name.parse()
    }
}

impl From<Condition> for String {
    fn from(condition: Condition) -> Self {
        condition.to_string()
    }
}

/// Standardises conditions: `(condition - mean) / std`, feature by feature.
///
/// Means of token embeddings have one large common component, and the features of a unit-norm vector of width 768 are
/// about 0.04: without this the input of the hypernetwork is small and nearly the same for every group. The statistics
/// are stored with the adapter and not trained.
#[derive(Module, Debug)]
pub struct ConditionNorm {
    /// `[condition]`
    pub mean: Param<Tensor<1>>,
    /// `[condition]`, all positive.
    pub std: Param<Tensor<1>>,
}

/// Lower bound of a feature's standard deviation, as a fraction of the average, so that a feature which is constant in
/// training cannot dominate the others later.
const SMALLEST_SPREAD: f32 = 0.01;

impl ConditionNorm {
    /// The identity, until fitted or stored statistics replace it.
    pub fn identity(condition_size: usize, device: &Device) -> Self {
        Self::frozen(
            Tensor::zeros([condition_size], device),
            Tensor::ones([condition_size], device),
        )
    }

    /// Mean and standard deviation of the prompt embeddings of the training data.
    ///
    /// # Shapes
    ///
    /// - `prompt_embeddings`: `[prompts, condition]`
    ///
    /// # Panics
    ///
    /// When there is no prompt.
    pub fn fit(prompt_embeddings: Tensor<2>) -> Self {
        let [num_prompts, _] = prompt_embeddings.dims();
        assert!(num_prompts > 0, "statistics of no prompts");
        let (variance, mean) = prompt_embeddings.detach().var_mean_bias(0);
        let std = variance.sqrt();
        let floor = std.clone().mean() * SMALLEST_SPREAD;
        let std = std.max_pair(floor.unsqueeze()); // [1, condition]
        // If all prompts are equal, the deviation is zero.
        let std = std.clone().mask_fill(std.equal_elem(0.0), 1.0);
        Self::frozen(mean.squeeze_dim(0), std.squeeze_dim(0))
    }

    /// The standardised conditions.
    ///
    /// # Shapes
    ///
    /// - `conditions`: `[groups, condition]`
    /// - output: `[groups, condition]`
    ///
    /// # Panics
    ///
    /// When the width is not the fitted one.
    pub fn forward(&self, conditions: Tensor<2>) -> Tensor<2> {
        let (mean, std) = (self.mean.val(), self.std.val());
        let [condition_size] = mean.dims();
        assert_shape!(conditions, [_, condition_size]);
        (conditions - mean.unsqueeze()) / std.unsqueeze()
    }

    fn frozen(mean: Tensor<1>, std: Tensor<1>) -> Self {
        Self {
            mean: Param::from_tensor(mean).set_require_grad(false),
            std: Param::from_tensor(std).set_require_grad(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, normal};

    fn group(num_prompts: usize) -> PromptGroup {
        PromptGroup {
            prompt_embeddings: normal([num_prompts, 6], 1),
            centroids: normal([3, 6], 2),
            cluster_idx: 1,
        }
    }

    #[test]
    fn names_survive_the_round_trip_through_text_and_json() {
        for condition in [
            Condition::Batch,
            Condition::Centroid,
            Condition::Prompt,
            Condition::Blend { strength: 2.5 },
        ] {
            assert_eq!(condition.to_string().parse(), Ok(condition));
            let json = serde_json::to_string(&condition).unwrap();
            assert_eq!(json, format!("\"{condition}\""));
            assert_eq!(serde_json::from_str::<Condition>(&json).unwrap(), condition);
        }
    }

    #[test]
    fn unknown_names_and_strengths_are_named_in_the_error() {
        let message = |name: &str| name.parse::<Condition>().unwrap_err().to_string();
        assert!(message("mean").contains("`mean`"));
        for strength in ["-1", "nan", "inf", "much", ""] {
            let found = message(&format!("blend:{strength}"));
            assert!(found.contains(&format!("`{strength}`")), "{found}");
        }
    }

    #[test]
    fn batch_is_the_mean_and_centroid_ignores_the_prompts() {
        let group = group(4);
        let mean = group.prompt_embeddings.clone().mean_dim(0);
        assert_close(&Condition::Batch.conditions(group.clone()), &mean);
        let centroid = group.centroids.clone().slice([1..=1]);
        assert_close(&Condition::Centroid.conditions(group), &centroid);
    }

    #[test]
    fn prompt_keeps_one_condition_per_prompt() {
        let group = group(4);
        let rows = group.prompt_embeddings.clone();
        assert_close(&Condition::Prompt.conditions(group), &rows);
        assert_eq!(Condition::Prompt.condition_idx(3), 3);
        assert_eq!(Condition::Batch.condition_idx(3), 0);
    }

    #[test]
    fn blend_moves_from_mean_to_centroid_as_strength_grows() {
        let blend = |strength| Condition::Blend { strength }.conditions(group(4));
        assert_close(&blend(0.0), &Condition::Batch.conditions(group(4)));
        assert_close(&blend(-3.0), &Condition::Batch.conditions(group(4)));
        assert_close(
            &blend(f64::INFINITY),
            &Condition::Centroid.conditions(group(4)),
        );
        let halfway = (Condition::Batch.conditions(group(4))
            + Condition::Centroid.conditions(group(4)))
            * 0.5;
        assert_close(&blend(4.0), &halfway);
    }

    proptest! {
        #[test]
        fn blend_weight_is_a_weight(num_prompts in 1usize..1000, strength in -10.0f64..1e6) {
            let weight = blend_weight(num_prompts, strength);
            prop_assert!((0.0..=1.0).contains(&weight));
        }
    }

    #[test]
    fn fitted_embeddings_have_mean_zero_and_spread_one() {
        let embeddings = normal([50, 6], 3) * 0.2 + 7.0;
        let standard = ConditionNorm::fit(embeddings.clone()).forward(embeddings);
        let (variance, mean) = standard.var_mean_bias(0);
        assert_close(&mean, &Tensor::zeros_like(&mean));
        assert_close(&variance, &Tensor::ones_like(&variance));
    }

    #[test]
    fn features_that_never_vary_stay_finite_and_small() {
        let embeddings = Tensor::cat(
            vec![normal([50, 3], 3), Tensor::ones([50, 1], &Device::flex())],
            1,
        );
        let norm = ConditionNorm::fit(embeddings.clone());
        let moved = norm.forward(embeddings + 0.001).slice([0..50, 3..4]);
        assert!(moved.abs().max().into_scalar::<f32>() < 0.2);

        let equal = Tensor::ones([5, 4], &Device::flex());
        let standard = ConditionNorm::fit(equal.clone()).forward(equal);
        assert_close(&standard, &Tensor::zeros_like(&standard));
    }

    #[test]
    fn the_identity_changes_nothing() {
        let conditions = normal([3, 6], 4);
        let norm = ConditionNorm::identity(6, &conditions.device());
        assert_close(&norm.forward(conditions.clone()), &conditions);
    }
}
