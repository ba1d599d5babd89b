//! Gradients of frozen linear modules, with or without a change of low rank.

use burn::backend::Flex;
use burn::backend::TensorMetadata as _;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};

use super::super::{FlexTensor, contiguous, matrix};
use super::{like, rows_like};
use crate::fused::kernels::product::{Matrix, Product};
use crate::fused::kernels::stored;
use crate::stored::StoredMatrix;

/// A frozen weight, `[in, out]`.
#[derive(Debug, Clone)]
pub(super) enum Frozen {
    Dense(FlexTensor),
    Stored(StoredMatrix),
}

impl Frozen {
    /// The stored weight, if there is one.
    pub(super) fn new(weight: FlexTensor, stored: Option<StoredMatrix>) -> Self {
        match stored {
            Some(stored) => Self::Stored(stored),
            None => Self::Dense(weight),
        }
    }

    /// A contiguous `[batch, seq, in]` -> `[batch, seq, out]`
    pub(super) fn multiply(&self, x: &FlexTensor) -> FlexTensor {
        let values = match self {
            Self::Dense(weight) => Product::of(rows(x), matrix(weight)).compute(),
            Self::Stored(weight) => stored::multiply(x.storage(), weight),
        };
        rows_like(x, values)
    }

    /// `[rows, out]` -> `[rows, in]`
    fn input_gradient(&self, grad: Matrix<'_>) -> Vec<f32> {
        match self {
            Self::Dense(weight) => Product::of(grad, matrix(weight).transpose()).compute(),
            Self::Stored(weight) => stored::multiply_transposed(grad, weight),
        }
    }
}

#[derive(Debug)]
pub(super) struct LinearBackward;

impl Backward<Flex, 1> for LinearBackward {
    type State = Frozen;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        if let [Some(node)] = ops.parents {
            let values = ops.state.input_gradient(rows(&grad));
            grads.register::<Flex>(node.id, rows_like(&grad, values));
        }
    }
}

/// What a linear module with a change of low rank needs for its gradients.
#[derive(Debug, Clone)]
pub(super) struct LowRankState {
    pub(super) x: FlexTensor,
    pub(super) weight: Frozen,
    pub(super) a: FlexTensor,
    pub(super) mix: Mixed,
    pub(super) b: FlexTensor,
    /// `[rows, rank]`: `x·a`, scaled if it is not mixed.
    pub(super) narrow: Vec<f32>,
}

#[derive(Debug, Clone)]
pub(super) enum Mixed {
    Scale(f32),
    Matrix {
        /// `[rank, rank]`
        mix: FlexTensor,
        /// `[rows, rank]`: `x·a·mix`
        mixed: Vec<f32>,
    },
}

struct LowRankGradients {
    x: Vec<f32>,
    a: Vec<f32>,
    /// Empty where nothing is mixed.
    mix: Vec<f32>,
    b: Vec<f32>,
}

impl LowRankState {
    fn backward(&self, grad: &FlexTensor) -> LowRankGradients {
        let (x, grad) = (rows(&self.x), rows(grad));
        let (a, b) = (matrix(&self.a), matrix(&self.b));
        let rank = b.shape[0];
        let narrow = Matrix::from_rows(&self.narrow, rank);
        let mut before_b = Product::of(grad, b.transpose()).compute(); // [rows, rank]
        let (after_a, mix_grad, b_grad) = match &self.mix {
            Mixed::Scale(scale) => {
                for value in &mut before_b {
                    *value *= scale;
                }
                let b_grad = Product::of(narrow.transpose(), grad).compute();
                (before_b, Vec::new(), b_grad)
            }
            Mixed::Matrix { mix, mixed } => {
                let before_b = Matrix::from_rows(&before_b, rank);
                let mixed = Matrix::from_rows(mixed, rank);
                (
                    Product::of(before_b, matrix(mix).transpose()).compute(),
                    Product::of(narrow.transpose(), before_b).compute(),
                    Product::of(mixed.transpose(), grad).compute(),
                )
            }
        };
        let after_a = Matrix::from_rows(&after_a, rank);
        let mut x_grad = self.weight.input_gradient(grad);
        Product::of(after_a, a.transpose()).add_to(&mut x_grad);
        LowRankGradients {
            x: x_grad,
            a: Product::of(x.transpose(), after_a).compute(),
            mix: mix_grad,
            b: b_grad,
        }
    }
}

#[derive(Debug)]
pub(super) struct ScaledLinearBackward;

impl Backward<Flex, 3> for ScaledLinearBackward {
    type State = LowRankState;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let state = ops.state;
        let found = state.backward(&grad);
        let [x, a, b] = ops.parents;
        for (parent, values, input) in [
            (x, found.x, &state.x),
            (a, found.a, &state.a),
            (b, found.b, &state.b),
        ] {
            if let Some(node) = parent {
                grads.register::<Flex>(node.id, like(input, values));
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct MixedLinearBackward;

impl Backward<Flex, 4> for MixedLinearBackward {
    type State = LowRankState;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let state = ops.state;
        let found = state.backward(&grad);
        let Mixed::Matrix { mix, .. } = &state.mix else {
            unreachable!("recorded with a matrix");
        };
        let [x, a, mix_node, b] = ops.parents;
        for (parent, values, input) in [
            (x, found.x, &state.x),
            (a, found.a, &state.a),
            (mix_node, found.mix, mix),
            (b, found.b, &state.b),
        ] {
            if let Some(node) = parent {
                grads.register::<Flex>(node.id, like(input, values));
            }
        }
    }
}

/// `output + narrow · b`, in the buffer of `output`.
pub(super) fn widen(mut output: FlexTensor, narrow: &[f32], b: &FlexTensor) -> FlexTensor {
    let b = matrix(b);
    Product::of(Matrix::from_rows(narrow, b.shape[0]), b).add_to(output.storage_mut());
    output
}

/// A contiguous tensor as one matrix: all axes but the last are rows.
pub(super) fn rows(tensor: &FlexTensor) -> Matrix<'_> {
    let shape = tensor.shape();
    Matrix::from_rows(tensor.storage(), shape[shape.num_dims() - 1])
}

/// `[rows, rank]`
pub(super) fn narrow_rows<'a>(narrow: &'a [f32], a: &FlexTensor) -> Matrix<'a> {
    Matrix::from_rows(narrow, a.shape()[1])
}
