//! A frozen linear layer whose factors depend on a condition.
//!
//! The usual layer is the language-model head, `[hidden, vocab]`. Its weight is never owned here but
//! borrowed, because it may be tied to the embedding. No dense `[in, out]` change is built, except by
//! `merge`.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor, assert_shape};
use chameleon_core::{FactorShape, LoraFactors, RunSeed};
use serde::{Deserialize, Serialize};

use crate::condition::ConditionNorm;
use crate::error::HypernetError;
use crate::generator::{Generator, GeneratorConfig, GeneratorKind};
use crate::lora::{Lora, LoraConfig, adapted_linear, merged_weight};

/// How a condition is scaled before it enters the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ConditionScaling {
    /// Standardised with the statistics of the training prompts.
    #[default]
    Standardised,
    /// Not scaled, as published.
    Raw,
}

/// Configuration of a [`HyperLoraHead`].
#[derive(Config, Debug, PartialEq)]
pub struct HyperLoraHeadConfig {
    /// The generator of factors from conditions.
    pub generator: GeneratorConfig,
    /// Plain LoRA in addition to the generated factors.
    pub static_factors: Option<LoraConfig>,
    /// How a condition is scaled before it enters the network.
    #[config(default = "ConditionScaling::Standardised")]
    pub condition_scaling: ConditionScaling,
}

/// LoRA on one layer whose factors depend on a condition.
///
/// Tensor names, saved and loaded with `skip_enum_variants(true)`: `condition_norm.mean`,
/// `static_factors.a`, `generator.network.layers.0.weight`, and for a core `generator.a0`.
#[derive(Module, Debug)]
pub struct HyperLoraHead {
    /// Standardises conditions; the identity until [`HyperLoraHead::with_condition_norm`].
    pub condition_norm: Option<ConditionNorm>,
    /// The part that is the same for every condition.
    pub static_factors: Option<Lora>,
    /// The part that depends on the condition.
    pub generator: Generator,
}

/// The output of a hypernetwork for some conditions.
#[derive(Debug, Clone)]
pub struct GeneratedFactors {
    /// For each condition `a` `[in, ranks]` and `b` `[ranks, out]`, static and generated parts joined.
    pub factors: Vec<LoraFactors>,
    /// `[groups, features]`, the last hidden features of the network.
    pub features: Tensor<2>,
}

impl HyperLoraHeadConfig {
    /// The preset of this name, without static factors of its own.
    ///
    /// `dense-as-published` takes raw conditions; the others standardise them.
    pub fn preset(kind: GeneratorKind, condition_size: usize, shape: FactorShape) -> Self {
        let scaling = match kind {
            GeneratorKind::DenseAsPublished => ConditionScaling::Raw,
            GeneratorKind::Core | GeneratorKind::Dense => ConditionScaling::Standardised,
        };
        Self::new(kind.config(condition_size, shape)).with_condition_scaling(scaling)
    }

    /// A head whose weights depend on `seed` and on nothing else.
    ///
    /// # Panics
    ///
    /// When [`check`](Self::check) fails.
    pub fn init(&self, seed: RunSeed, device: &Device) -> HyperLoraHead {
        if let Err(error) = self.check() {
            panic!("{error}");
        }
        let condition_size = self.generator.condition_size();
        HyperLoraHead {
            condition_norm: match self.condition_scaling {
                ConditionScaling::Standardised => {
                    Some(ConditionNorm::identity(condition_size, device))
                }
                ConditionScaling::Raw => None,
            },
            static_factors: self
                .static_factors
                .as_ref()
                .map(|config| config.init(seed.derive("static_factors"), device)),
            generator: self.generator.init(seed.derive("generator"), device),
        }
    }

    /// Rejects sizes of zero, invalid dropout, and parts for different layers.
    ///
    /// # Errors
    ///
    /// Names the first invalid setting.
    pub fn check(&self) -> Result<(), HypernetError> {
        self.generator.check()?;
        let Some(static_factors) = &self.static_factors else {
            return Ok(());
        };
        static_factors.check()?;
        let layer = |shape: FactorShape| [shape.in_size, shape.out_size];
        let (found, expected) = (layer(static_factors.shape), layer(self.generator.shape()));
        if found != expected {
            return Err(HypernetError::DifferentLayers { found, expected });
        }
        Ok(())
    }

    /// Trainable parameters.
    pub fn num_trainable_params(&self) -> usize {
        let static_params = self
            .static_factors
            .as_ref()
            .map_or(0, LoraConfig::num_trainable_params);
        static_params + self.generator.num_trainable_params()
    }
}

impl HyperLoraHead {
    /// The same head with fitted statistics. A head with raw conditions is unchanged.
    ///
    /// # Panics
    ///
    /// When the statistics have another width than the conditions.
    #[must_use]
    pub fn with_condition_norm(mut self, norm: ConditionNorm) -> Self {
        if let Some(identity) = &self.condition_norm {
            let [condition_size] = identity.mean.shape().dims();
            assert_shape!(norm.mean.val(), [condition_size]);
            self.condition_norm = Some(norm.to_device(&identity.mean.lazy_device()));
        }
        self
    }

    /// Factors for each condition, static and generated parts joined along the rank.
    ///
    /// # Shapes
    ///
    /// - `conditions`: `[groups, condition]`
    /// - output: per group `a` `[in, ranks]` and `b` `[ranks, out]`
    ///
    /// # Panics
    ///
    /// When the conditions do not have the configured width.
    pub fn factors(&self, conditions: Tensor<2>) -> Vec<LoraFactors> {
        self.generate(conditions).factors
    }

    /// Like [`factors`](Self::factors), with the features from which adapted layers take their cores.
    ///
    /// # Shapes
    ///
    /// - `conditions`: `[groups, condition]`
    ///
    /// # Panics
    ///
    /// When the conditions do not have the configured width.
    pub fn generate(&self, conditions: Tensor<2>) -> GeneratedFactors {
        let conditions = match &self.condition_norm {
            Some(norm) => norm.forward(conditions),
            None => conditions,
        };
        let features = self.generator.network().features(conditions);
        let generated = self.generator.decode(features.clone());
        let factors = match &self.static_factors {
            None => generated,
            Some(static_factors) => generated
                .into_iter()
                .map(|generated| static_factors.factors().concat(generated))
                .collect(),
        };
        GeneratedFactors { factors, features }
    }

    /// The adapted layer under one condition.
    ///
    /// For rows of several groups at once use [`GroupedFactors`](crate::GroupedFactors).
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[rows, in]`, `weight`: `[in, out]`, `condition`: `[condition]`
    /// - output: `[rows, out]`
    ///
    /// # Panics
    ///
    /// When the shapes do not fit the configuration.
    pub fn forward(&self, hidden: Tensor<2>, weight: Tensor<2>, condition: Tensor<1>) -> Tensor<2> {
        adapted_linear(hidden, weight, &self.group_factors(condition))
    }

    /// The weight with one condition's change added.
    ///
    /// # Shapes
    ///
    /// - `weight`: `[in, out]`, `condition`: `[condition]`
    /// - output: `[in, out]`
    ///
    /// # Panics
    ///
    /// When the shapes do not fit the configuration.
    pub fn merge(&self, weight: Tensor<2>, condition: Tensor<1>) -> Tensor<2> {
        merged_weight(weight, &self.group_factors(condition))
    }

    /// Trainable parameters: all but the statistics of the conditions.
    pub fn num_trainable_params(&self) -> usize {
        self.static_factors.num_params() + self.generator.num_params()
    }

    fn group_factors(&self, condition: Tensor<1>) -> LoraFactors {
        self.factors(condition.unsqueeze())
            .pop()
            .expect("one condition makes one pair of factors")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::init::FactorInit;
    use crate::testing::{assert_close, normal as normal_tensor, perturbed, values};

    const SHAPE: FactorShape = FactorShape {
        in_size: 6,
        out_size: 9,
        rank: 2,
    };

    fn config(kind: GeneratorKind) -> HyperLoraHeadConfig {
        let static_shape = FactorShape { rank: 3, ..SHAPE };
        HyperLoraHeadConfig::preset(kind, 5, SHAPE)
            .with_static_factors(Some(LoraConfig::new(static_shape).with_scale(0.5)))
    }

    fn any_kind() -> impl Strategy<Value = GeneratorKind> {
        prop::sample::select(GeneratorKind::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn merged_equals_unmerged(kind in any_kind(), seed in any::<u64>(), num_rows in 1usize..5) {
            let head = perturbed(config(kind).init(RunSeed(seed), &Device::flex()), seed);
            let (hidden, weight) = (normal_tensor([num_rows, 6], 1), normal_tensor([6, 9], 2));
            let condition = normal_tensor([5], seed);
            let unmerged = head.forward(hidden.clone(), weight.clone(), condition.clone());
            assert_close(&hidden.matmul(head.merge(weight, condition)), &unmerged);
        }
    }

    #[test]
    fn the_first_forward_equals_the_base() {
        let (hidden, weight) = (normal_tensor([4, 6], 1), normal_tensor([6, 9], 2));
        let base = values(hidden.clone().matmul(weight.clone()));
        for kind in [GeneratorKind::Core, GeneratorKind::Dense] {
            let head = config(kind).init(RunSeed(3), &Device::flex());
            let adapted = head.forward(hidden.clone(), weight.clone(), normal_tensor([5], 4));
            assert_eq!(values(adapted), base, "{kind}");
        }
        let plain = LoraConfig::new(SHAPE).init(RunSeed(3), &Device::flex());
        assert_eq!(values(plain.forward(hidden.clone(), weight.clone())), base);

        let published = LoraConfig::new(SHAPE).with_init(FactorInit::AsPublished);
        let published = published.init(RunSeed(3), &Device::flex());
        assert_ne!(values(published.forward(hidden, weight)), base);
    }

    #[test]
    fn static_and_generated_changes_add_up() {
        let head = perturbed(
            config(GeneratorKind::Core).init(RunSeed(3), &Device::flex()),
            4,
        );
        let condition = normal_tensor([1, 5], 5);
        let joined = &head.factors(condition.clone())[0];
        assert_eq!(joined.rank(), 5);
        let conditions = head.condition_norm.as_ref().unwrap().forward(condition);
        let generated = head.generator.generate(conditions)[0].delta();
        let fixed = head.static_factors.as_ref().unwrap().factors().delta();
        assert_close(&joined.delta(), &(generated + fixed));
    }

    #[test]
    fn fitted_statistics_are_used_and_never_trained() {
        let embeddings = normal_tensor([20, 5], 6) * 0.1 + 3.0;
        let norm = ConditionNorm::fit(embeddings.clone());
        let plain = perturbed(
            config(GeneratorKind::Dense).init(RunSeed(3), &Device::flex()),
            4,
        );
        let head = plain.clone().with_condition_norm(norm.clone());
        let condition = embeddings.slice([0..=0]);
        assert_ne!(
            values(head.factors(condition.clone())[0].delta()),
            values(plain.factors(condition)[0].delta())
        );
        let head = head.train();
        let norm = head.condition_norm.as_ref().unwrap();
        assert!(!norm.mean.val().is_require_grad() && !norm.std.val().is_require_grad());
        assert!(
            head.static_factors
                .as_ref()
                .unwrap()
                .a
                .val()
                .is_require_grad()
        );
        assert_eq!(head.num_params() - head.num_trainable_params(), 2 * 5);
    }

    #[test]
    fn published_heads_take_raw_conditions() {
        let config = HyperLoraHeadConfig::preset(GeneratorKind::DenseAsPublished, 5, SHAPE);
        let head = config.init(RunSeed(3), &Device::flex());
        assert!(head.condition_norm.is_none());
        let norm = ConditionNorm::fit(normal_tensor([20, 5], 6));
        assert!(head.with_condition_norm(norm).condition_norm.is_none());
    }

    #[test]
    fn configurations_survive_json_and_count_their_parameters() {
        for kind in GeneratorKind::ALL {
            let config = config(kind);
            let json = serde_json::to_string(&config).unwrap();
            let back: HyperLoraHeadConfig = serde_json::from_str(&json).unwrap();
            assert_eq!(back, config);
            let head = config.init(RunSeed(1), &Device::flex());
            assert_eq!(config.num_trainable_params(), head.num_trainable_params());
        }
        let lora = LoraConfig::new(SHAPE);
        let head = lora.init(RunSeed(1), &Device::flex());
        assert_eq!(lora.num_trainable_params(), head.num_trainable_params());
    }

    #[test]
    fn parts_for_different_layers_are_refused() {
        let other = FactorShape {
            out_size: 8,
            ..SHAPE
        };
        let config = config(GeneratorKind::Core).with_static_factors(Some(LoraConfig::new(other)));
        let message = config.check().unwrap_err().to_string();
        assert!(
            message.contains("[6, 8]") && message.contains("[6, 9]"),
            "{message}"
        );
    }
}
