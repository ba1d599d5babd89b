//! From conditions to LoRA factors.
//!
//! [`Dense`] predicts every element of both factors, [`Core`] learns the factors and predicts only
//! how their ranks are mixed. Neither depends on the adapted layer; `head.rs` does.

mod core_factors;
mod dense_factors;

use std::fmt;
use std::str::FromStr;

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use chameleon_core::{FactorShape, LoraFactors, RunSeed};
use serde::{Deserialize, Serialize};

pub use self::core_factors::{Core, CoreConfig};
pub use self::dense_factors::{Dense, DenseConfig};
use crate::error::HypernetError;
use crate::network::HyperNetwork;

/// Generates LoRA factors from conditions, in one of two ways.
///
/// Burn puts the variant into tensor names. Save and load with `skip_enum_variants(true)`, so that
/// names read `generator.network.layers.0.weight`.
#[derive(Module, Debug)]
pub enum Generator {
    /// Predicts whole factors.
    Dense(Dense),
    /// Predicts a core between static factors.
    Core(Core),
}

impl Generator {
    /// The network that maps conditions to features.
    pub fn network(&self) -> &HyperNetwork {
        match self {
            Self::Dense(dense) => &dense.network,
            Self::Core(core) => &core.network,
        }
    }

    /// Factors from the network's features, for each condition in order.
    ///
    /// # Shapes
    ///
    /// - `features`: `[groups, features]`
    /// - output: per group `a` `[in, rank]` and `b` `[rank, out]`
    ///
    /// # Panics
    ///
    /// When the features are not those of the network.
    pub fn decode(&self, features: Tensor<2>) -> Vec<LoraFactors> {
        match self {
            Self::Dense(dense) => dense.decode(features),
            Self::Core(core) => core.decode(features),
        }
    }

    /// Factors for each condition, in order.
    ///
    /// # Shapes
    ///
    /// - `conditions`: `[groups, condition]`
    /// - output: per group `a` `[in, rank]` and `b` `[rank, out]`
    ///
    /// # Panics
    ///
    /// When the conditions do not have the configured width.
    pub fn generate(&self, conditions: Tensor<2>) -> Vec<LoraFactors> {
        self.decode(self.network().features(conditions))
    }

    /// The sizes of the factors.
    pub fn shape(&self) -> FactorShape {
        match self {
            Self::Dense(dense) => dense.shape,
            Self::Core(core) => core.shape(),
        }
    }
}

/// The presets, by their names on the command line and in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GeneratorKind {
    /// [`GeneratorConfig::core`]
    #[default]
    Core,
    /// [`GeneratorConfig::dense`]
    Dense,
    /// [`GeneratorConfig::dense_as_published`]
    DenseAsPublished,
}

impl GeneratorKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Core, Self::Dense, Self::DenseAsPublished];

    /// The preset of this name.
    pub fn config(self, condition_size: usize, shape: FactorShape) -> GeneratorConfig {
        match self {
            Self::Core => GeneratorConfig::core(condition_size, shape),
            Self::Dense => GeneratorConfig::dense(condition_size, shape),
            Self::DenseAsPublished => GeneratorConfig::dense_as_published(condition_size, shape),
        }
    }
}

impl fmt::Display for GeneratorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Core => "core",
            Self::Dense => "dense",
            Self::DenseAsPublished => "dense-as-published",
        })
    }
}

impl FromStr for GeneratorKind {
    type Err = HypernetError;

    fn from_str(name: &str) -> Result<Self, HypernetError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.to_string() == name)
            .ok_or_else(|| HypernetError::UnknownGenerator {
                found: name.to_owned(),
            })
    }
}

/// Configuration of a [`Generator`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum GeneratorConfig {
    /// Predicts whole factors.
    Dense(DenseConfig),
    /// Predicts a core between static factors.
    Core(CoreConfig),
}

impl Config for GeneratorConfig {}

impl GeneratorConfig {
    /// Static factors with a generated core.
    pub fn core(condition_size: usize, shape: FactorShape) -> Self {
        Self::Core(CoreConfig::new(condition_size, shape))
    }

    /// The paper's generator, initialised so that the first delta is zero.
    pub fn dense(condition_size: usize, shape: FactorShape) -> Self {
        Self::Dense(DenseConfig::new(condition_size, shape))
    }

    /// The paper's generator with the paper's dropout and initialisation.
    pub fn dense_as_published(condition_size: usize, shape: FactorShape) -> Self {
        Self::Dense(DenseConfig::as_published(condition_size, shape))
    }

    /// A generator whose weights depend on `seed` and on nothing else.
    ///
    /// # Panics
    ///
    /// When [`check`](Self::check) fails.
    pub fn init(&self, seed: RunSeed, device: &Device) -> Generator {
        match self {
            Self::Dense(config) => Generator::Dense(config.init(seed, device)),
            Self::Core(config) => Generator::Core(config.init(seed, device)),
        }
    }

    /// Rejects sizes of zero and invalid dropout.
    ///
    /// # Errors
    ///
    /// Names the first invalid setting.
    pub fn check(&self) -> Result<(), HypernetError> {
        match self {
            Self::Dense(config) => config.check(),
            Self::Core(config) => config.check(),
        }
    }

    /// The sizes of the factors.
    pub fn shape(&self) -> FactorShape {
        match self {
            Self::Dense(config) => config.shape,
            Self::Core(config) => config.shape,
        }
    }

    /// The width of a condition.
    pub fn condition_size(&self) -> usize {
        match self {
            Self::Dense(config) => config.condition_size,
            Self::Core(config) => config.condition_size,
        }
    }

    /// The number of features that the factors are predicted from.
    pub fn num_features(&self) -> usize {
        match self {
            Self::Dense(config) => config.network().num_features(),
            Self::Core(config) => config.network().num_features(),
        }
    }

    /// Trainable parameters.
    pub fn num_trainable_params(&self) -> usize {
        match self {
            Self::Dense(config) => config.num_trainable_params(),
            Self::Core(config) => config.num_trainable_params(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, normal, values};

    const SHAPE: FactorShape = FactorShape {
        in_size: 6,
        out_size: 9,
        rank: 3,
    };

    #[test]
    fn a_batch_of_groups_equals_one_by_one() {
        for kind in GeneratorKind::ALL {
            let generator = busy(kind);
            let conditions = normal([4, 5], 1);
            let together = generator.generate(conditions.clone());
            assert_eq!(together.len(), 4);
            for (group_idx, factors) in together.iter().enumerate() {
                let alone = generator.generate(conditions.clone().slice([group_idx..=group_idx]));
                assert_close(&alone[0].a, &factors.a);
                assert_close(&alone[0].b, &factors.b);
            }
        }
    }

    #[test]
    fn different_conditions_get_different_factors() {
        for kind in GeneratorKind::ALL {
            let factors = busy(kind).generate(normal([2, 5], 1));
            assert_ne!(
                values(factors[0].delta()),
                values(factors[1].delta()),
                "{kind}"
            );
        }
    }

    #[test]
    fn factors_have_the_configured_shape() {
        for kind in GeneratorKind::ALL {
            let generator = kind.config(5, SHAPE).init(RunSeed(1), &Device::flex());
            assert_eq!(generator.shape(), SHAPE);
            let factors = &generator.generate(normal([1, 5], 1))[0];
            assert_eq!(factors.a.dims(), [SHAPE.in_size, SHAPE.rank]);
            assert_eq!(factors.b.dims(), [SHAPE.rank, SHAPE.out_size]);
        }
    }

    #[test]
    fn the_first_delta_is_zero_except_as_published() {
        for kind in GeneratorKind::ALL {
            let generator = kind.config(5, SHAPE).init(RunSeed(1), &Device::flex());
            let factors = &generator.generate(normal([1, 5], 1))[0];
            let largest = factors.delta().abs().max().into_scalar::<f32>();
            assert_eq!(
                largest > 0.0,
                kind == GeneratorKind::DenseAsPublished,
                "{kind}"
            );
            let a = factors.a.clone().abs().max().into_scalar::<f32>();
            assert!(
                a > 0.0,
                "{kind}: a zero `a` beside a zero `b` would never train"
            );
        }
    }

    #[test]
    fn configurations_survive_json_and_count_their_parameters() {
        for kind in GeneratorKind::ALL {
            let config = kind.config(5, SHAPE);
            let json = serde_json::to_string(&config).unwrap();
            assert_eq!(
                serde_json::from_str::<GeneratorConfig>(&json).unwrap(),
                config
            );
            let generator = config.init(RunSeed(1), &Device::flex());
            assert_eq!(config.num_trainable_params(), generator.num_params());
        }
        let json = serde_json::to_value(GeneratorKind::Core.config(5, SHAPE)).unwrap();
        assert_eq!(json["kind"], "core");
        assert_eq!(json["shape"]["rank"], 3);
    }

    #[test]
    fn the_published_network_has_six_point_eight_million_parameters_on_gpt2() {
        let shape = FactorShape {
            in_size: 768,
            out_size: 50_257,
            rank: 4,
        };
        let num = |kind: GeneratorKind| kind.config(768, shape).num_trainable_params();
        assert_eq!(num(GeneratorKind::DenseAsPublished), 6_786_596);
        // Nearly all of it static; the part that depends on the condition has 51,824 parameters.
        assert_eq!(num(GeneratorKind::Core) - shape.num_params(), 51_824);
    }

    #[test]
    fn names_survive_the_round_trip_and_unknown_ones_are_named() {
        for kind in GeneratorKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let error = "sparse".parse::<GeneratorKind>().unwrap_err().to_string();
        assert!(error.contains("`sparse`"), "{error}");
    }

    #[test]
    fn rank_zero_is_refused() {
        for kind in GeneratorKind::ALL {
            let error = kind.config(5, FactorShape { rank: 0, ..SHAPE }).check();
            assert_eq!(error, Err(HypernetError::ZeroSize { size: "rank" }));
        }
    }

    /// A generator whose predictions are neither zero nor equal.
    fn busy(kind: GeneratorKind) -> Generator {
        crate::testing::perturbed(kind.config(5, SHAPE).init(RunSeed(1), &Device::flex()), 2)
    }
}
