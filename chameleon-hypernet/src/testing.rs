//! Helpers shared by the unit tests of several modules.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, Tolerance};
use chameleon_core::RunSeed;

use crate::init;

/// A fixed tensor on the plain CPU device.
pub(crate) fn normal<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let stream = RunSeed(seed).stream("test");
    init::normal(shape, 1.0, stream, &Device::flex())
        .val()
        .set_require_grad(false)
}

pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// The one tolerance of single precision: a fraction of the largest value, because an element near zero has the
/// rounding error of the large terms that cancel in it.
#[track_caller]
pub(crate) fn assert_close<const D: usize>(left: &Tensor<D>, right: &Tensor<D>) {
    let largest = right.clone().abs().max().into_scalar::<f32>().max(0.1);
    left.to_data()
        .assert_approx_eq::<f32>(&right.to_data(), Tolerance::absolute(1e-4 * largest));
}

/// The module with normal noise added to every trainable tensor, as if it had been trained.
pub(crate) fn perturbed<M: Module>(module: M, seed: u64) -> M {
    struct Perturb {
        seed: RunSeed,
        num_seen: usize,
    }
    impl ModuleMapper for Perturb {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if !param.is_require_grad() {
                return param;
            }
            self.num_seen += 1;
            let stream = init::numbered(self.seed, "perturbed", self.num_seen).stream("values");
            param.map(|tensor| {
                let noise = init::normal(tensor.dims(), 0.3, stream, &tensor.device());
                (tensor + noise.val()).detach().require_grad()
            })
        }
    }
    // Only tensors on an autodiff device know whether they are trained.
    let mut perturb = Perturb {
        seed: RunSeed(seed),
        num_seen: 0,
    };
    module.train().map(&mut perturb).valid()
}
