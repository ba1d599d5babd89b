//! Adapted linear modules inside the layers of a transformer.
//!
//! Each adapted module has static factors `a` and `b`. Without cores this is plain LoRA; with cores, the hypernetwork
//! that generates the head's factors also generates a `rank x rank` core for each group and module: `y = x·W +
//! scale·(x·a)·(I + core)·b`. The frozen weights are not owned here, and nothing depends on a model: a module is a
//! layer index, a name and two widths.

mod rows;

use std::collections::BTreeSet;
use std::sync::Arc;

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use chameleon_core::{AttentionContext, FactorShape, LoraFactors, LowRankChange, RankMix, RunSeed};

use crate::error::HypernetError;
use crate::init::{normal, zeros};
use crate::layer_factors::LayerFactors;
use crate::lora::{Lora, LoraConfig};

/// A linear module inside a layer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LayerModule {
    /// The layer.
    pub layer_idx: usize,
    /// Its name within the layer, such as `self_attn.q_proj`.
    pub path: String,
    /// Width of its input.
    pub in_size: usize,
    /// Width of its output.
    pub out_size: usize,
}

/// Whether cores are generated for the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerCores {
    /// Plain LoRA, the same for every group.
    None,
    /// One core for each module and group, from the last hidden features of the hypernetwork.
    Generated {
        /// Number of these features.
        num_features: usize,
    },
}

/// Configuration of [`AdaptedLayers`].
#[derive(Debug, Clone, PartialEq)]
pub struct AdaptedLayersConfig {
    /// The modules, each once.
    pub modules: Vec<LayerModule>,
    /// LoRA rank, of all of them.
    pub rank: usize,
    /// The multiplier of the factors.
    pub scale: f64,
    /// Whether cores are generated.
    pub cores: LayerCores,
}

/// Factors of modules inside the layers, and the layer that maps features of the hypernetwork to their cores.
#[derive(Module, Debug)]
pub struct AdaptedLayers {
    /// Static factors, one pair for each module.
    pub factors: Vec<Lora>,
    /// Last layer of the hypernetwork: `[features, modules * rank * rank]`.
    pub cores: Option<Linear>,
    #[module(skip)]
    modules: Vec<LayerModule>,
}

/// Standard deviation of the weights that generate the cores: small, but not zero, as for the head.
const CORE_STD: f64 = 1e-2;

impl AdaptedLayersConfig {
    /// Layers whose weights depend on `seed` and on nothing else. `b` starts at zero, so the first delta is zero.
    ///
    /// # Panics
    ///
    /// When [`check`](Self::check) fails.
    pub fn init(&self, seed: RunSeed, device: &Device) -> AdaptedLayers {
        if let Err(error) = self.check() {
            panic!("{error}");
        }
        let factors = self
            .modules
            .iter()
            .map(|module| {
                let seed = seed.derive(&format!("layers.{}.{}", module.layer_idx, module.path));
                LoraConfig::new(self.shape(module))
                    .with_scale(self.scale)
                    .init(seed, device)
            })
            .collect();
        let cores = match self.cores {
            LayerCores::None => None,
            LayerCores::Generated { num_features } => {
                let num_outputs = self.num_core_values();
                let stream = seed.derive("cores").stream("weight");
                Some(Linear {
                    weight: normal([num_features, num_outputs], CORE_STD, stream, device),
                    bias: Some(zeros([num_outputs], device)),
                })
            }
        };
        AdaptedLayers {
            factors,
            cores,
            modules: self.modules.clone(),
        }
    }

    /// Rejects sizes of zero, an empty list of modules, and a module that is listed twice.
    ///
    /// # Errors
    ///
    /// Names the first invalid setting.
    pub fn check(&self) -> Result<(), HypernetError> {
        if self.modules.is_empty() {
            return Err(HypernetError::ZeroSize {
                size: "number of adapted modules",
            });
        }
        if self.cores == (LayerCores::Generated { num_features: 0 }) {
            return Err(HypernetError::ZeroSize {
                size: "number of features of the hypernetwork",
            });
        }
        let mut seen = BTreeSet::new();
        for module in &self.modules {
            LoraConfig::new(self.shape(module)).check()?;
            if !seen.insert((module.layer_idx, &module.path)) {
                return Err(HypernetError::ModuleTwice {
                    layer_idx: module.layer_idx,
                    path: module.path.clone(),
                });
            }
        }
        Ok(())
    }

    /// Trainable parameters.
    pub fn num_trainable_params(&self) -> usize {
        let factors: usize = self
            .modules
            .iter()
            .map(|module| self.shape(module).num_params())
            .sum();
        let cores = match self.cores {
            LayerCores::None => 0,
            LayerCores::Generated { num_features } => (num_features + 1) * self.num_core_values(),
        };
        factors + cores
    }

    fn num_core_values(&self) -> usize {
        self.modules.len() * self.rank * self.rank
    }

    fn shape(&self, module: &LayerModule) -> FactorShape {
        FactorShape {
            in_size: module.in_size,
            out_size: module.out_size,
            rank: self.rank,
        }
    }
}

impl AdaptedLayers {
    /// The modules, in the order of `factors`.
    pub fn modules(&self) -> &[LayerModule] {
        &self.modules
    }

    /// The lowest layer that has an adapted module.
    pub fn first_layer(&self) -> usize {
        let layers = self.modules.iter().map(|module| module.layer_idx);
        layers.min().unwrap_or_default()
    }

    /// The static factors, shared by all groups.
    pub fn shared(&self) -> SharedLayers {
        SharedLayers(Arc::new(StaticLayers {
            modules: self.modules.clone(),
            factors: self.factors.iter().map(Lora::factors).collect(),
            cores: self.cores.clone(),
        }))
    }
}

/// The layers of an adapter: cheap to clone, and shared by all of its groups.
#[derive(Debug, Clone)]
pub struct SharedLayers(Arc<StaticLayers>);

#[derive(Debug)]
struct StaticLayers {
    modules: Vec<LayerModule>,
    factors: Vec<LoraFactors>,
    cores: Option<Linear>,
}

impl SharedLayers {
    /// The layers for each group.
    ///
    /// # Shapes
    ///
    /// - `features`: `[groups, features]`; their values matter only if cores are generated
    ///
    /// # Panics
    ///
    /// When the features do not have the configured width.
    pub fn groups(&self, features: Tensor<2>) -> Vec<GroupLayers> {
        let [num_groups, _] = features.dims();
        let (num_modules, rank) = (self.0.modules.len(), self.rank());
        let cores = self.0.cores.as_ref().map(|linear| {
            let flat = linear.forward(features);
            flat.reshape([num_groups, num_modules, rank, rank])
        });
        (0..num_groups)
            .map(|group_idx| GroupLayers {
                layers: self.clone(),
                cores: cores.as_ref().map(|cores| {
                    let own = cores.clone().slice([group_idx..=group_idx]);
                    Arc::new(own.squeeze_dim(0))
                }),
                context: None,
                strength: 1.0,
            })
            .collect()
    }

    /// The layers for all groups, if no core is generated.
    ///
    /// # Panics
    ///
    /// When cores are generated.
    pub fn for_all_groups(&self) -> GroupLayers {
        assert!(
            self.0.cores.is_none(),
            "generated cores need the features of a group"
        );
        GroupLayers {
            layers: self.clone(),
            cores: None,
            context: None,
            strength: 1.0,
        }
    }

    /// The static factors, in the order of the modules.
    pub fn factors(&self) -> &[LoraFactors] {
        &self.0.factors
    }

    /// The same modules with other factors and without cores: the layers of one group, as a new adapter.
    ///
    /// # Panics
    ///
    /// When there is not one pair of factors for each module.
    #[must_use]
    pub fn with_factors(&self, factors: Vec<LoraFactors>) -> Self {
        assert_eq!(
            factors.len(),
            self.0.modules.len(),
            "a pair for each module"
        );
        Self(Arc::new(StaticLayers {
            modules: self.0.modules.clone(),
            factors,
            cores: None,
        }))
    }

    fn rank(&self) -> usize {
        self.0.factors.first().map_or(0, LoraFactors::rank)
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The adapted layers for one group.
#[derive(Debug, Clone)]
pub struct GroupLayers {
    layers: SharedLayers,
    /// `[modules, rank, rank]`; one object for all clones.
    cores: Option<Arc<Tensor<3>>>,
    /// One object for all clones.
    context: Option<Arc<AttentionContext>>,
    strength: f64,
}

impl GroupLayers {
    /// The same with a context that requests of the group attend to.
    #[must_use]
    pub fn with_context(mut self, context: AttentionContext) -> Self {
        self.context = Some(Arc::new(context));
        self
    }

    /// What requests of the group attend to beside their own tokens.
    pub fn context(&self) -> Option<&Arc<AttentionContext>> {
        self.context.as_ref()
    }

    /// The same with every change multiplied by `strength`; zero switches it off, and the context with it.
    #[must_use]
    pub fn with_strength(mut self, strength: f64) -> Self {
        self.strength = strength;
        if strength == 0.0 {
            self.context = None;
        }
        self
    }

    /// Whether it is a clone of the other, so that changes made for one are valid for both.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_strength_same = self.strength.to_bits() == other.strength.to_bits();
        are_clones(self.cores.as_ref(), other.cores.as_ref())
            && are_clones(self.context.as_ref(), other.context.as_ref())
            && is_strength_same
            && self.layers.is(&other.layers)
    }

    /// Each adapted module with its factors, the core multiplied into `a`.
    pub fn module_factors(&self) -> Vec<(&LayerModule, LoraFactors)> {
        let layers = &self.layers.0;
        layers
            .modules
            .iter()
            .zip(&layers.factors)
            .enumerate()
            .map(|(module_idx, (module, factors))| {
                let a = match &self.cores {
                    None => factors.a.clone(),
                    Some(cores) => {
                        let core = nth(cores, module_idx);
                        factors.a.clone() + factors.a.clone().matmul(core)
                    }
                };
                let factors = LoraFactors {
                    a,
                    b: factors.b.clone(),
                    scale: factors.scale * self.strength,
                };
                (module, factors)
            })
            .collect()
    }

    /// Whether every generated value is finite.
    pub fn is_finite(&self) -> bool {
        let cores = self.cores.as_ref();
        cores.is_none_or(|cores| Tensor::clone(cores).is_finite().all().into_scalar::<bool>())
            && self.context().is_none_or(|context| context.is_finite())
    }

    /// The changes for a batch of this group alone.
    pub fn for_batch(&self) -> LayerFactors {
        let mixes = self.mixes();
        let changes = self.layers.changes(|module_idx, factors| match &mixes {
            None => RankMix::Scale(factors.scale * self.strength),
            Some(mixes) => RankMix::Matrix(nth(mixes, module_idx)),
        });
        changes.with_context(self.context.clone())
    }

    /// `strength * scale * (I + core)` of every module, `[modules, rank, rank]`; `None` if there are no cores.
    fn mixes(&self) -> Option<Tensor<3>> {
        let cores = self.cores.as_deref()?;
        let [_, rank, _] = cores.dims();
        let identity = Tensor::<2>::eye(rank, &cores.device()).unsqueeze();
        // All modules have the same scale.
        let scale = self.layers.0.factors.first()?.scale * self.strength;
        Some((Tensor::clone(cores) + identity) * scale)
    }
}

impl SharedLayers {
    fn changes(&self, mix: impl Fn(usize, &LoraFactors) -> RankMix) -> LayerFactors {
        let mut changes = LayerFactors::none();
        self.add_changes(&mut changes, mix);
        changes
    }

    fn add_changes(
        &self,
        changes: &mut LayerFactors,
        mix: impl Fn(usize, &LoraFactors) -> RankMix,
    ) {
        let layers = &self.0;
        for (module_idx, (module, factors)) in
            layers.modules.iter().zip(&layers.factors).enumerate()
        {
            let change = LowRankChange {
                a: factors.a.clone(),
                mix: mix(module_idx, factors),
                b: factors.b.clone(),
            };
            changes.push(module.layer_idx, &module.path, change);
        }
    }
}

/// Whether both are one object, or neither exists.
fn are_clones<T>(own: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (own, other) {
        (None, None) => true,
        (Some(own), Some(other)) => Arc::ptr_eq(own, other),
        _ => false,
    }
}

/// One matrix of `[modules, rank, rank]`.
fn nth(matrices: &Tensor<3>, idx: usize) -> Tensor<2> {
    matrices.clone().slice([idx..=idx]).squeeze_dim(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, normal, perturbed, values};

    fn modules() -> Vec<LayerModule> {
        [(0, "up", 6, 9), (0, "down", 9, 6), (2, "up", 6, 9)]
            .map(|(layer_idx, path, in_size, out_size)| LayerModule {
                layer_idx,
                path: path.to_owned(),
                in_size,
                out_size,
            })
            .to_vec()
    }

    fn config(cores: LayerCores) -> AdaptedLayersConfig {
        AdaptedLayersConfig {
            modules: modules(),
            rank: 2,
            scale: 0.5,
            cores,
        }
    }

    const GENERATED: LayerCores = LayerCores::Generated { num_features: 4 };

    fn busy(cores: LayerCores, seed: u64) -> SharedLayers {
        let layers = config(cores).init(RunSeed(seed), &Device::flex());
        perturbed(layers, seed).shared()
    }

    fn changed(factors: &LayerFactors, module: &LayerModule, x: &Tensor<3>) -> Tensor<3> {
        let [batch, seq_len, _] = x.dims();
        let nothing = Tensor::zeros([batch, seq_len, module.out_size], &x.device());
        factors
            .changes(module.layer_idx, &module.path)
            .iter()
            .fold(nothing, |sum, change| sum + change.apply(x.clone()))
    }

    #[test]
    fn merged_equals_unmerged() {
        for cores in [LayerCores::None, GENERATED] {
            let groups = busy(cores, 1).groups(normal([2, 4], 2));
            let group = groups[1].clone().with_strength(0.8);
            let factors = group.for_batch();
            for (module, merged) in group.module_factors() {
                let x = normal([3, 2, module.in_size], 3);
                let flat = x.clone().reshape([6, module.in_size]);
                let expected = flat.matmul(merged.delta()).reshape([3, 2, module.out_size]);
                assert_close(&changed(&factors, module, &x), &expected);
            }
        }
    }

    #[test]
    fn rows_of_mixed_groups_and_adapters_equal_each_alone() {
        let (core, other, plain) = (
            busy(GENERATED, 1).groups(normal([2, 4], 2)),
            busy(GENERATED, 5).groups(normal([1, 4], 6)),
            busy(LayerCores::None, 7)
                .for_all_groups()
                .with_strength(0.3),
        );
        let rows = [
            Some(&core[1]),
            None,
            Some(&other[0]),
            Some(&core[0]),
            Some(&plain),
            Some(&core[1]),
        ];
        let together = LayerFactors::for_rows(&rows);
        for module in modules() {
            let x = normal([rows.len(), 2, module.in_size], 3);
            let found = changed(&together, &module, &x);
            for (row_idx, row) in rows.iter().enumerate() {
                let alone = row.map_or_else(LayerFactors::none, GroupLayers::for_batch);
                let alone = changed(&alone, &module, &x.clone().slice([row_idx..=row_idx]));
                assert_close(&found.clone().slice([row_idx..=row_idx]), &alone);
            }
        }
    }

    #[test]
    fn groups_differ_only_where_cores_are_generated() {
        for (cores, differ) in [(LayerCores::None, false), (GENERATED, true)] {
            let groups = busy(cores, 1).groups(normal([2, 4], 2));
            let delta = |group: &GroupLayers| values(group.module_factors()[0].1.delta());
            assert_eq!(delta(&groups[0]) != delta(&groups[1]), differ);
        }
    }

    #[test]
    fn fresh_layers_change_nothing() {
        let layers = config(GENERATED).init(RunSeed(1), &Device::flex());
        let group = &layers.shared().groups(normal([1, 4], 2))[0];
        for (_, factors) in group.module_factors() {
            assert!(values(factors.delta()).iter().all(|&value| value == 0.0));
            assert!(values(factors.a).iter().any(|&value| value != 0.0));
        }
    }

    #[test]
    fn the_configuration_counts_the_parameters_of_the_module() {
        for cores in [LayerCores::None, GENERATED] {
            let config = config(cores);
            let layers = config.init(RunSeed(1), &Device::flex());
            assert_eq!(config.num_trainable_params(), layers.num_params());
        }
    }

    #[test]
    fn what_cannot_work_is_named() {
        let message = |change: fn(&mut AdaptedLayersConfig)| {
            let mut config = config(GENERATED);
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(message(|config| config.modules.clear()).contains("modules"));
        assert!(message(|config| config.rank = 0).contains("rank"));
        assert!(message(|config| config.modules[1] = config.modules[0].clone()).contains("`up`"));
    }
}
