//! What the test modules share.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Distribution, FloatDType, Gradients, Tensor, TensorData, Tolerance};
use chameleon_core::{FactorShape, RunSeed};
use chameleon_hypernet::{GeneratorConfig, GeneratorKind, HyperLoraHeadConfig, LoraConfig};

pub(crate) const CONDITION_SIZE: usize = 16;
pub(crate) const SHAPE: FactorShape = FactorShape {
    in_size: 16,
    out_size: 24,
    rank: 3,
};

/// A head with every part in use and without dropout.
pub(crate) fn full_head(kind: GeneratorKind) -> HyperLoraHeadConfig {
    let mut config = HyperLoraHeadConfig::preset(kind, CONDITION_SIZE, SHAPE).with_static_factors(
        Some(LoraConfig::new(FactorShape { rank: 2, ..SHAPE }).with_scale(1.5)),
    );
    match &mut config.generator {
        GeneratorConfig::Dense(dense) => {
            dense.hidden_sizes = vec![8, 6];
            dense.dropout = 0.0;
            dense.scale = 0.7;
        }
        GeneratorConfig::Core(core) => {
            core.hidden_sizes = vec![8, 6];
            core.dropout = 0.0;
            core.scale = 0.7;
        }
    }
    config
}

/// Gradients by the tensor's name in an adapter file; tensors without one are left out.
pub(crate) fn gradients_by_name(
    module: &impl Module,
    gradients: &Gradients,
) -> BTreeMap<String, TensorData> {
    struct ByName<'a> {
        path: Vec<String>,
        gradients: &'a Gradients,
        found: BTreeMap<String, TensorData>,
    }
    impl ModuleVisitor for ByName<'_> {
        fn enter_module(&mut self, name: &str, container_type: &str) {
            let is_variant = container_type.starts_with("Enum:");
            self.path
                .push(if is_variant { "" } else { name }.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let parts: Vec<&str> = self
                .path
                .iter()
                .map(String::as_str)
                .filter(|p| !p.is_empty())
                .collect();
            if let Some(gradient) = param.val().grad(self.gradients) {
                self.found.insert(parts.join("."), gradient.into_data());
            }
        }
    }
    let mut visitor = ByName {
        path: Vec::new(),
        gradients,
        found: BTreeMap::new(),
    };
    module.visit(&mut visitor);
    visitor.found
}

/// The module in double precision.
pub(crate) fn double<M: Module>(module: M) -> M {
    struct Cast;
    impl ModuleMapper for Cast {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let is_trained = param.is_require_grad();
            param.map(|tensor| {
                let tensor = tensor.cast(FloatDType::F64).detach();
                tensor.set_require_grad(is_trained)
            })
        }
    }
    module.map(&mut Cast)
}

/// The module with normal values instead of its start, as if it had been trained.
pub(crate) fn trained<M: Module>(module: M, seed: RunSeed) -> M {
    struct Redraw;
    impl ModuleMapper for Redraw {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if !param.is_require_grad() {
                return param;
            }
            param.map(|tensor| {
                let noise = tensor.random_like(Distribution::Normal(0.0, 0.4));
                noise.detach().require_grad()
            })
        }
    }
    module.devices()[0].seed(seed.0);
    module.map(&mut Redraw)
}

pub(crate) fn normal<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

/// Agreement to 1e-4 of the largest number in `expected`.
#[track_caller]
pub(crate) fn assert_close(found: &TensorData, expected: &TensorData) {
    let largest = expected
        .iter::<f64>()
        .fold(0.0f64, |max, value| max.max(value.abs()));
    found.assert_approx_eq::<f32>(expected, Tolerance::absolute(1e-4 * largest));
}
