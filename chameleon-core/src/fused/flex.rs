//! The kernels as operations of the flex backend. Those whose gradients are recorded are in [`recorded`].

mod recorded;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, Flex, TensorMetadata as _, backend_extension};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use self::recorded::RecordedOps;
use super::inputs::{CausalAttention, GroupedRows, RowCrossEntropy};
use super::kernels::cross_entropy::{CrossEntropyRows, with_gradient, without_gradient};
use super::kernels::grouped::{GroupFactors, GroupRow, add_changes};
use super::kernels::product::{Matrix, Product};
use super::kernels::stored;
use crate::frozen_weight::FrozenWeight;
use crate::low_rank::{LowRankChange, RankMix};
use crate::stored::StoredMatrix;

/// Whether the kernels can compute with a tensor.
pub(super) fn runs<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.dtype() == DType::F32 && tensor.device().without_autodiff() == Device::flex()
}

/// Whether they can with a weight, which gets no gradient from them.
pub(super) fn is_frozen(weight: &FrozenWeight) -> bool {
    match weight {
        FrozenWeight::Dense(weight) => runs(weight) && !weight.is_tracked(),
        FrozenWeight::Stored { .. } => true,
    }
}

/// Whether they can without recording anything.
pub(super) fn runs_unrecorded<const D: usize>(tensor: &Tensor<D>) -> bool {
    runs(tensor) && !tensor.is_autodiff()
}

pub(super) fn product(lhs: Tensor<2>, rhs: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as FusedOps>::product(
        lhs.into_dispatch(),
        rhs.into_dispatch(),
    ))
}

pub(super) fn add_product(sum: Tensor<2>, lhs: Tensor<2>, rhs: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as FusedOps>::add_product(
        sum.into_dispatch(),
        lhs.into_dispatch(),
        rhs.into_dispatch(),
    ))
}

pub(super) fn stored_product(x: Tensor<2>, weight: StoredMatrix) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as FusedOps>::stored_product(
        x.into_dispatch(),
        weight,
    ))
}

pub(super) fn stored_input_gradient(grad: Tensor<2>, weight: StoredMatrix) -> Tensor<2> {
    Tensor::from_dispatch(<Dispatch as FusedOps>::stored_input_gradient(
        grad.into_dispatch(),
        weight,
    ))
}

pub(super) fn cross_entropy(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
) -> RowCrossEntropy {
    let (losses, gradient) = <Dispatch as FusedOps>::cross_entropy(
        logits.into_dispatch(),
        targets.into_dispatch(),
        weights.into_dispatch(),
    );
    RowCrossEntropy {
        losses: Tensor::from_dispatch(losses),
        gradient: Tensor::from_dispatch(gradient),
    }
}

pub(super) fn cross_entropy_losses(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as FusedOps>::cross_entropy_losses(
        logits.into_dispatch(),
        targets.into_dispatch(),
    ))
}

pub(super) fn swiglu(gate: Tensor<3>, up: Tensor<3>) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as RecordedOps>::swiglu(
        gate.into_dispatch(),
        up.into_dispatch(),
    ))
}

pub(super) fn gelu_tanh(x: Tensor<3>) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as RecordedOps>::gelu_tanh(x.into_dispatch()))
}

pub(super) fn rms_norm(x: Tensor<3>, scale: Tensor<1>, epsilon: f32) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as RecordedOps>::rms_norm(
        x.into_dispatch(),
        scale.into_dispatch(),
        epsilon,
    ))
}

pub(super) fn causal_attention(input: CausalAttention) -> Tensor<3> {
    let (cos, sin) = if let Some(rotary) = input.rotary {
        (rotary.cos, rotary.sin)
    } else {
        let none = Tensor::empty([0; 4], &input.query.device().without_autodiff());
        (none.clone(), none)
    };
    Tensor::from_dispatch(<Dispatch as RecordedOps>::causal_attention(
        input.query.into_dispatch(),
        input.key.into_dispatch(),
        input.value.into_dispatch(),
        cos.into_dispatch(),
        sin.into_dispatch(),
        input.head_dim,
        input.rule,
    ))
}

pub(super) fn linear(x: Tensor<3>, weight: FrozenWeight) -> Tensor<3> {
    let (weight, stored) = parts(weight, &x);
    Tensor::from_dispatch(<Dispatch as RecordedOps>::linear(
        x.into_dispatch(),
        weight.into_dispatch(),
        stored,
    ))
}

pub(super) fn adapted_linear(
    x: Tensor<3>,
    weight: FrozenWeight,
    change: LowRankChange,
) -> Tensor<3> {
    let LowRankChange { a, mix, b } = change;
    let (weight, stored) = parts(weight, &x);
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    let (a, b) = (a.into_dispatch(), b.into_dispatch());
    Tensor::from_dispatch(match mix {
        RankMix::Scale(scale) => {
            #[expect(clippy::cast_possible_truncation, reason = "the factors are f32")]
            let scale = scale as f32;
            <Dispatch as RecordedOps>::scaled_linear(x, weight, stored, a, b, scale)
        }
        RankMix::Matrix(mix) => {
            <Dispatch as RecordedOps>::mixed_linear(x, weight, stored, a, mix.into_dispatch(), b)
        }
        RankMix::PerRow(_) => unreachable!("changes by row are not fused"),
    })
}

/// A dense weight, or an empty one in its place and a stored weight.
fn parts(weight: FrozenWeight, x: &Tensor<3>) -> (Tensor<2>, Option<StoredMatrix>) {
    match weight {
        FrozenWeight::Dense(weight) => (weight, None),
        FrozenWeight::Stored { matrix, .. } => {
            let none = Tensor::empty([0; 2], &x.device().without_autodiff());
            (none, Some(matrix))
        }
    }
}

/// Not an operation of the backend as the others are, which take a fixed number of tensors.
pub(super) fn add_grouped(sum: Tensor<2>, rows: &GroupedRows<'_>) -> Tensor<2> {
    let [_, out_size] = sum.dims();
    let [_, in_size] = rows.x.dims();
    let mut sum = contiguous(unrecorded(sum));
    let x = contiguous(unrecorded(rows.x.clone()));
    let factors: Vec<[FlexTensor; 2]> = rows
        .groups
        .iter()
        .map(|group| [&group.a, &group.b].map(|factor| contiguous(unrecorded(factor.clone()))))
        .collect();
    let groups: Vec<GroupFactors<'_>> = factors
        .iter()
        .zip(rows.groups)
        .map(|([a, b], group)| GroupFactors {
            a: a.storage(),
            b: b.storage(),
            rank: group.rank(),
            #[expect(clippy::cast_possible_truncation, reason = "the factors are f32")]
            scale: group.scale as f32,
        })
        .collect();
    let changed: Vec<GroupRow<'_>> = sum
        .storage_mut::<f32>()
        .chunks_exact_mut(out_size)
        .zip(x.storage::<f32>().chunks_exact(in_size))
        .zip(rows.row_groups)
        .filter_map(|((output, x), &group_idx)| {
            group_idx.map(|group_idx| GroupRow {
                group_idx,
                x,
                output,
            })
        })
        .collect();
    add_changes(changed, &groups);
    Tensor::from_primitive::<Flex>(sum)
}

fn unrecorded(tensor: Tensor<2>) -> FlexTensor {
    tensor
        .try_into_primitive::<Flex>()
        .expect("the tensor is on flex, without autodiff")
}

/// Operations of the flex backend in addition to Burn's own. Gradients are not recorded.
#[backend_extension(Flex)]
pub(super) trait FusedOps: Backend {
    /// `lhs · rhs`.
    fn product(lhs: FloatTensor<Self>, rhs: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `sum + lhs · rhs`.
    fn add_product(
        sum: FloatTensor<Self>,
        lhs: FloatTensor<Self>,
        rhs: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// Rows through a stored weight.
    fn stored_product(x: FloatTensor<Self>, weight: StoredMatrix) -> FloatTensor<Self>;

    /// Gradients of a stored weight's outputs to those of its inputs.
    fn stored_input_gradient(grad: FloatTensor<Self>, weight: StoredMatrix) -> FloatTensor<Self>;

    /// Losses of the rows, and the gradient of their weighted sum.
    fn cross_entropy(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Losses of the rows.
    fn cross_entropy_losses(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
    ) -> FloatTensor<Self>;
}

pub(super) type FlexTensor = FloatTensor<Flex>;

impl FusedOps for Flex {
    fn product(lhs: FlexTensor, rhs: FlexTensor) -> FlexTensor {
        let product = Product::of(matrix(&lhs), matrix(&rhs));
        let shape = [product.num_rows(), product.num_columns()];
        tensor(product.compute(), shape)
    }

    fn add_product(sum: FlexTensor, lhs: FlexTensor, rhs: FlexTensor) -> FlexTensor {
        let mut sum = contiguous(sum);
        Product::of(matrix(&lhs), matrix(&rhs)).add_to(sum.storage_mut());
        sum
    }

    fn stored_product(x: FlexTensor, weight: StoredMatrix) -> FlexTensor {
        let x = contiguous(x);
        let shape = [x.shape()[0], weight.out_size()];
        tensor(stored::multiply(x.storage(), &weight), shape)
    }

    fn stored_input_gradient(grad: FlexTensor, weight: StoredMatrix) -> FlexTensor {
        let shape = [grad.shape()[0], weight.in_size()];
        tensor(stored::multiply_transposed(matrix(&grad), &weight), shape)
    }

    fn cross_entropy(
        logits: FlexTensor,
        targets: IntTensor<Self>,
        weights: FlexTensor,
    ) -> (FlexTensor, FlexTensor) {
        let mut logits = contiguous(logits);
        let num_rows = logits.shape()[0];
        let losses = with_gradient(
            CrossEntropyRows {
                logits: logits.storage_mut(),
                targets: &indices(targets),
            },
            contiguous(weights).storage(),
        );
        (tensor(losses, [num_rows]), logits)
    }

    fn cross_entropy_losses(logits: FlexTensor, targets: IntTensor<Self>) -> FlexTensor {
        let logits = contiguous(logits);
        let num_rows = logits.shape()[0];
        let losses = without_gradient(&CrossEntropyRows {
            logits: logits.storage(),
            targets: &indices(targets),
        });
        tensor(losses, [num_rows])
    }
}

/// The same values one after the other and nothing else in memory; copied only if they are not already contiguous.
pub(super) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    let num_bytes = tensor.shape().num_elements() * size_of::<f32>();
    if tensor.is_contiguous() && tensor.bytes().len() == num_bytes {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// A borrowed matrix with any strides.
pub(super) fn matrix(tensor: &FlexTensor) -> Matrix<'_> {
    let layout = tensor.layout();
    let (shape, strides) = (layout.shape(), layout.strides());
    Matrix {
        values: &tensor.storage::<f32>()[layout.start_offset()..],
        shape: [shape[0], shape[1]],
        strides: [strides[0], strides[1]],
    }
}

pub(super) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

fn indices(tensor: IntTensor<Flex>) -> Vec<usize> {
    let data = tensor.into_data();
    data.iter::<i64>()
        .map(|index| usize::try_from(index).expect("targets are not negative"))
        .collect()
}
