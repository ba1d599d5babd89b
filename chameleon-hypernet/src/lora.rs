//! Plain LoRA on one linear layer: factors that are the same for every input.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, assert_shape};
use chameleon_core::{FactorShape, LoraFactors, RunSeed};

use crate::error::{HypernetError, check_shape};
use crate::init::{FactorInit, factor_std, normal, zeros};

/// Standard deviation of both factors of the reference script's plain LoRA.
const PUBLISHED_LORA_STD: f64 = 0.01;

/// Configuration of a [`Lora`]: plain LoRA on one layer.
#[derive(Config, Debug, PartialEq)]
pub struct LoraConfig {
    /// Sizes of the factors.
    pub shape: FactorShape,
    /// The multiplier of the factors, `alpha / rank` in Burn's and PEFT's terms.
    #[config(default = 1.0)]
    pub scale: f64,
    /// Initialisation of the factors.
    #[config(default = "FactorInit::ZeroDelta")]
    pub init: FactorInit,
}

/// Plain LoRA on one layer: the same change for every input.
#[derive(Module, Debug)]
pub struct Lora {
    /// `[in, rank]`
    pub a: Param<Tensor<2>>,
    /// `[rank, out]`
    pub b: Param<Tensor<2>>,
    /// The multiplier of the factors.
    pub scale: f64,
}

impl LoraConfig {
    /// Factors that depend on `seed` and on nothing else.
    ///
    /// # Panics
    ///
    /// When [`check`](Self::check) fails.
    pub fn init(&self, seed: RunSeed, device: &Device) -> Lora {
        if let Err(error) = self.check() {
            panic!("{error}");
        }
        let FactorShape {
            in_size,
            out_size,
            rank,
        } = self.shape;
        let a_std = match self.init {
            FactorInit::ZeroDelta => factor_std(in_size),
            FactorInit::AsPublished => PUBLISHED_LORA_STD,
        };
        let b_shape = [rank, out_size];
        let b = match self.init {
            FactorInit::ZeroDelta => zeros(b_shape, device),
            FactorInit::AsPublished => {
                normal(b_shape, PUBLISHED_LORA_STD, seed.stream("b"), device)
            }
        };
        Lora {
            a: normal([in_size, rank], a_std, seed.stream("a"), device),
            b,
            scale: self.scale,
        }
    }

    /// Rejects sizes of zero.
    ///
    /// # Errors
    ///
    /// Names the first size that is zero.
    pub fn check(&self) -> Result<(), HypernetError> {
        check_shape(self.shape)
    }

    /// Trainable parameters.
    pub fn num_trainable_params(&self) -> usize {
        self.shape.num_params()
    }

    /// The same layer with the rank whose parameter count is nearest to `num_trainable_params`, at least 1: the
    /// parameter-matched LoRA of a comparison.
    ///
    /// ```
    /// use chameleon_core::FactorShape;
    /// use chameleon_hypernet::{GeneratorKind, LoraConfig};
    ///
    /// let shape = FactorShape { in_size: 768, out_size: 50_257, rank: 4 };
    /// let dense = GeneratorKind::DenseAsPublished.config(768, shape);
    /// let lora = LoraConfig::new(shape).sized_to(dense.num_trainable_params());
    /// assert_eq!(lora.shape.rank, 133);
    /// ```
    #[must_use]
    pub fn sized_to(&self, num_trainable_params: usize) -> Self {
        let per_rank = FactorShape {
            rank: 1,
            ..self.shape
        }
        .num_params();
        let rank = (num_trainable_params + per_rank / 2) / per_rank;
        let mut config = self.clone();
        config.shape.rank = rank.max(1);
        config
    }
}

impl Lora {
    /// The factors as plain values.
    pub fn factors(&self) -> LoraFactors {
        LoraFactors {
            a: self.a.val(),
            b: self.b.val(),
            scale: self.scale,
        }
    }

    /// The adapted layer.
    ///
    /// # Shapes
    ///
    /// - `hidden`: `[rows, in]`, `weight`: `[in, out]`
    /// - output: `[rows, out]`
    ///
    /// # Panics
    ///
    /// When the shapes do not fit the factors.
    pub fn forward(&self, hidden: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
        adapted_linear(hidden, weight, &self.factors())
    }

    /// The weight with the change added.
    ///
    /// # Shapes
    ///
    /// - `weight`: `[in, out]`
    /// - output: `[in, out]`
    ///
    /// # Panics
    ///
    /// When the weight does not fit the factors.
    pub fn merge(&self, weight: Tensor<2>) -> Tensor<2> {
        merged_weight(weight, &self.factors())
    }

    /// Trainable parameters.
    pub fn num_trainable_params(&self) -> usize {
        self.num_params()
    }
}

/// `hidden · weight + scale · (hidden · a) · b`.
///
/// # Shapes
///
/// - `hidden`: `[rows, in]`, `weight`: `[in, out]`
/// - output: `[rows, out]`
///
/// # Panics
///
/// When the shapes do not fit each other.
pub(crate) fn adapted_linear(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    factors: &LoraFactors,
) -> Tensor<2> {
    let [num_rows, in_size] = hidden.dims();
    let [_, out_size] = weight.dims();
    assert_shape!(weight, [in_size, out_size]);
    let output = hidden.clone().matmul(weight) + factors.apply(hidden);
    assert_shape!(output, [num_rows, out_size]);
    output
}

pub(crate) fn merged_weight(weight: Tensor<2>, factors: &LoraFactors) -> Tensor<2> {
    let [in_size, out_size] = weight.dims();
    let delta = factors.delta();
    assert_shape!(delta, [in_size, out_size]);
    weight + delta
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{assert_close, normal as normal_tensor, perturbed};

    const SHAPE: FactorShape = FactorShape {
        in_size: 6,
        out_size: 9,
        rank: 2,
    };

    proptest! {
        #[test]
        fn static_merged_equals_unmerged(seed in any::<u64>(), scale in 0.1f64..4.0) {
            let config = LoraConfig::new(SHAPE).with_scale(scale);
            let head = perturbed(config.init(RunSeed(seed), &Device::flex()), seed);
            let (hidden, weight) = (normal_tensor([4, 6], 1), normal_tensor([6, 9], 2));
            let unmerged = head.forward(hidden.clone(), weight.clone());
            assert_close(&hidden.matmul(head.merge(weight)), &unmerged);
        }

        #[test]
        fn sized_to_is_the_nearest_rank(num_params in 0usize..2000) {
            let num = |rank| FactorShape { rank, ..SHAPE }.num_params();
            let rank = LoraConfig::new(SHAPE).sized_to(num_params).shape.rank;
            let miss = num(rank).abs_diff(num_params);
            prop_assert!(rank >= 1);
            prop_assert!(miss <= num(rank + 1).abs_diff(num_params));
            prop_assert!(rank == 1 || miss <= num(rank - 1).abs_diff(num_params));
        }
    }
}
