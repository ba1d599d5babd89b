//! LoRA factors: a low-rank change of a linear layer, applied without building the dense change.

use burn::tensor::{Tensor, assert_shape};
use serde::{Deserialize, Serialize};

/// The sizes of a pair of LoRA factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FactorShape {
    /// Width of the layer's input.
    pub in_size: usize,
    /// Width of the layer's output.
    pub out_size: usize,
    /// LoRA rank.
    pub rank: usize,
}

impl FactorShape {
    /// Parameters of both factors: `rank * (in + out)`.
    pub fn num_params(self) -> usize {
        self.rank * (self.in_size + self.out_size)
    }
}

/// Low-rank factors of a change to a linear layer: `delta = scale * a·b`.
///
/// The orientation is Burn's; `PyTorch` and PEFT store both factors transposed.
#[derive(Debug, Clone)]
pub struct LoraFactors {
    /// `[in, rank]`
    pub a: Tensor<2>,
    /// `[rank, out]`
    pub b: Tensor<2>,
    /// The multiplier `alpha / rank`.
    pub scale: f64,
}

impl LoraFactors {
    /// Cuts a flat prediction into factors: first `a` row by row, then `b` row by row.
    ///
    /// # Shapes
    ///
    /// - `flat`: `[rank * (in + out)]`
    ///
    /// # Panics
    ///
    /// When `flat` does not have exactly [`FactorShape::num_params`] elements.
    pub fn from_flat(flat: Tensor<1>, shape: FactorShape, scale: f64) -> Self {
        assert_shape!(flat, [shape.num_params()]);
        let FactorShape {
            in_size,
            out_size,
            rank,
        } = shape;
        let split = in_size * rank;
        let a = flat.clone().slice([0..split]).reshape([in_size, rank]);
        let b = flat
            .slice([split..shape.num_params()])
            .reshape([rank, out_size]);
        Self { a, b, scale }
    }

    /// LoRA rank.
    pub fn rank(&self) -> usize {
        self.a.dims()[1]
    }

    /// `scale * (x·a)·b`: what is added to the frozen layer's output.
    ///
    /// # Shapes
    ///
    /// - `x`: `[rows, in]`
    /// - output: `[rows, out]`
    pub fn apply(&self, x: Tensor<2>) -> Tensor<2> {
        self.project(x).matmul(self.b.clone())
    }

    /// `scale * x·a`, the narrow half of [`apply`](Self::apply).
    ///
    /// # Shapes
    ///
    /// - `x`: `[rows, in]`
    /// - output: `[rows, rank]`
    pub fn project(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.a.clone()) * self.scale
    }

    /// The dense change `scale * a·b`, for merging and export only.
    ///
    /// # Shapes
    ///
    /// - output: `[in, out]`
    pub fn delta(&self) -> Tensor<2> {
        self.a.clone().matmul(self.b.clone()) * self.scale
    }

    /// Both changes as one pair of factors, by joining along the rank. The result has scale 1.
    #[must_use]
    pub fn concat(self, other: Self) -> Self {
        let a = Tensor::cat(vec![self.a * self.scale, other.a * other.scale], 1);
        let b = Tensor::cat(vec![self.b, other.b], 0);
        Self { a, b, scale: 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    fn assert_close(left: Tensor<2>, right: &Tensor<2>) {
        left.into_data()
            .assert_approx_eq::<f32>(&right.to_data(), Tolerance::absolute(1e-5));
    }

    fn factors(rank: usize, scale: f64) -> LoraFactors {
        let shape = FactorShape {
            in_size: 5,
            out_size: 7,
            rank,
        };
        LoraFactors::from_flat(random([shape.num_params()]), shape, scale)
    }

    #[test]
    fn applying_equals_multiplying_by_the_delta() {
        let (factors, x) = (factors(3, 0.7), random([4, 5]));
        assert_close(factors.apply(x.clone()), &x.matmul(factors.delta()));
    }

    #[test]
    fn joining_adds_the_deltas() {
        let (left, right) = (factors(2, 0.5), factors(3, 2.0));
        let expected = left.delta() + right.delta();
        assert_close(left.concat(right).delta(), &expected);
    }
}
