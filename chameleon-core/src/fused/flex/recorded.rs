//! Operations of flex whose gradients are recorded, each with a backward pass of its own.

mod attention;
mod linear;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata as _, backend_extension};

use self::attention::{AttentionBackward, AttentionState};
use self::linear::{
    Frozen, LinearBackward, LowRankState, Mixed, MixedLinearBackward, ScaledLinearBackward,
    narrow_rows, rows, widen,
};
use super::{FlexTensor, contiguous, matrix, tensor};
use crate::fused::inputs::ScoreRule;
use crate::fused::kernels::activation;
use crate::fused::kernels::norm::RmsNorm;
use crate::fused::kernels::product::Product;
use crate::stored::StoredMatrix;

/// Operations of the flex backend in addition to Burn's own, with gradients. Weights, scales, cosines and sines
/// are frozen. Where a stored weight is given, the other one is empty.
#[backend_extension(Autodiff, Flex)]
pub(super) trait RecordedOps: Backend {
    /// `gate * sigmoid(gate) * up`.
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self>;

    /// GELU by its tanh approximation.
    fn gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Rows divided by the root of their mean square.
    fn rms_norm(x: FloatTensor<Self>, scale: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self>;

    /// Attention of whole sequences; cosines and sines are empty if there is no rotary embedding.
    fn causal_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        head_dim: usize,
        rule: ScoreRule,
    ) -> FloatTensor<Self>;

    /// `x · weight`.
    fn linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stored: Option<StoredMatrix>,
    ) -> FloatTensor<Self>;

    /// `x · weight + scale * (x · a) · b`.
    fn scaled_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stored: Option<StoredMatrix>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self>;

    /// `x · weight + (x · a) · mix · b`.
    fn mixed_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stored: Option<StoredMatrix>,
        a: FloatTensor<Self>,
        mix: FloatTensor<Self>,
        b: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl RecordedOps for Flex {
    fn swiglu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
        let (gate, up) = (contiguous(gate), contiguous(up));
        like(&gate, activation::swiglu(gate.storage(), up.storage()))
    }

    fn gelu_tanh(x: FlexTensor) -> FlexTensor {
        let x = contiguous(x);
        like(&x, activation::gelu_tanh(x.storage()))
    }

    fn rms_norm(x: FlexTensor, scale: FlexTensor, epsilon: f32) -> FlexTensor {
        let (x, scale) = (contiguous(x), contiguous(scale));
        let norm = RmsNorm {
            scale: scale.storage(),
            epsilon,
        };
        like(&x, norm.forward(x.storage()))
    }

    fn causal_attention(
        query: FlexTensor,
        key: FlexTensor,
        value: FlexTensor,
        cos: FlexTensor,
        sin: FlexTensor,
        head_dim: usize,
        rule: ScoreRule,
    ) -> FlexTensor {
        let state = AttentionState::new([query, key, value, cos, sin], head_dim, rule);
        like(&state.query, state.attention().forward())
    }

    fn linear(x: FlexTensor, weight: FlexTensor, stored: Option<StoredMatrix>) -> FlexTensor {
        Frozen::new(weight, stored).multiply(&contiguous(x))
    }

    fn scaled_linear(
        x: FlexTensor,
        weight: FlexTensor,
        stored: Option<StoredMatrix>,
        a: FlexTensor,
        b: FlexTensor,
        scale: f32,
    ) -> FlexTensor {
        let (narrow, output) = {
            let x = contiguous(x.clone());
            let mut narrow = Product::of(rows(&x), matrix(&a)).compute();
            for value in &mut narrow {
                *value *= scale;
            }
            (narrow, Frozen::new(weight, stored).multiply(&x))
        };
        widen(output, &narrow, &b)
    }

    fn mixed_linear(
        x: FlexTensor,
        weight: FlexTensor,
        stored: Option<StoredMatrix>,
        a: FlexTensor,
        mix: FlexTensor,
        b: FlexTensor,
    ) -> FlexTensor {
        let x = contiguous(x);
        let narrow = Product::of(rows(&x), matrix(&a)).compute();
        let mixed = Product::of(narrow_rows(&narrow, &a), matrix(&mix)).compute();
        widen(Frozen::new(weight, stored).multiply(&x), &mixed, &b)
    }
}

impl<C: CheckpointStrategy> RecordedOps for Autodiff<Flex, C> {
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        let ((gate, gate_node), (up, up_node)) = (gate.into_parts(), up.into_parts());
        let (gate, up) = (contiguous(gate), contiguous(up));
        let output = <Flex as RecordedOps>::swiglu(gate.clone(), up.clone());
        match SwigluBackward
            .prepare::<C>([gate_node, up_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prepared) => prepared.finish((gate, up), output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }

    fn gelu_tanh(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let x = contiguous(x);
        let output = <Flex as RecordedOps>::gelu_tanh(x.clone());
        match GeluTanhBackward
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prepared) => prepared.finish(x, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }

    fn rms_norm(x: FloatTensor<Self>, scale: FloatTensor<Self>, epsilon: f32) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let (x, scale) = (contiguous(x), contiguous(scale.into_primitive()));
        let output = <Flex as RecordedOps>::rms_norm(x.clone(), scale.clone(), epsilon);
        match RmsNormBackward
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prepared) => prepared.finish((x, scale, epsilon), output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }

    fn causal_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        head_dim: usize,
        rule: ScoreRule,
    ) -> FloatTensor<Self> {
        let (query, query_node) = query.into_parts();
        let (key, key_node) = key.into_parts();
        let (value, value_node) = value.into_parts();
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        let state = AttentionState::new([query, key, value, cos, sin], head_dim, rule);
        let output = like(&state.query, state.attention().forward());
        match AttentionBackward
            .prepare::<C>([query_node, key_node, value_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prepared) => prepared.finish(state, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }

    fn linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stored: Option<StoredMatrix>,
    ) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        let weight = Frozen::new(weight.into_primitive(), stored);
        let output = weight.multiply(&contiguous(x));
        match LinearBackward
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prepared) => prepared.finish(weight, output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }

    fn scaled_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stored: Option<StoredMatrix>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (a, a_node) = a.into_parts();
        let (b, b_node) = b.into_parts();
        let (x, weight) = (contiguous(x), Frozen::new(weight.into_primitive(), stored));
        let mut narrow = Product::of(rows(&x), matrix(&a)).compute();
        for value in &mut narrow {
            *value *= scale;
        }
        let output = weight.multiply(&x);
        let output = widen(output, &narrow, &b);
        match ScaledLinearBackward
            .prepare::<C>([x_node, a_node, b_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prepared) => {
                let state = LowRankState {
                    x,
                    weight,
                    a,
                    mix: Mixed::Scale(scale),
                    b,
                    narrow,
                };
                prepared.finish(state, output)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }

    fn mixed_linear(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stored: Option<StoredMatrix>,
        a: FloatTensor<Self>,
        mix: FloatTensor<Self>,
        b: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let (x, x_node) = x.into_parts();
        let (a, a_node) = a.into_parts();
        let (mix, mix_node) = mix.into_parts();
        let (b, b_node) = b.into_parts();
        let (x, weight) = (contiguous(x), Frozen::new(weight.into_primitive(), stored));
        let narrow = Product::of(rows(&x), matrix(&a)).compute();
        let mixed = Product::of(narrow_rows(&narrow, &a), matrix(&mix)).compute();
        let output = weight.multiply(&x);
        let output = widen(output, &mixed, &b);
        match MixedLinearBackward
            .prepare::<C>([x_node, a_node, mix_node, b_node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prepared) => {
                let state = LowRankState {
                    x,
                    weight,
                    a,
                    mix: Mixed::Matrix { mix, mixed },
                    b,
                    narrow,
                };
                prepared.finish(state, output)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }
}

#[derive(Debug)]
struct SwigluBackward;

impl Backward<Flex, 2> for SwigluBackward {
    type State = (FlexTensor, FlexTensor);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let (gate, up) = ops.state;
        let found = activation::swiglu_backward(gate.storage(), up.storage(), grad.storage());
        for (parent, values) in ops.parents.into_iter().zip([found.gate, found.up]) {
            if let Some(node) = parent {
                grads.register::<Flex>(node.id, like(&gate, values));
            }
        }
    }
}

#[derive(Debug)]
struct GeluTanhBackward;

impl Backward<Flex, 1> for GeluTanhBackward {
    type State = FlexTensor;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        if let [Some(node)] = ops.parents {
            let x = ops.state;
            let values = activation::gelu_tanh_backward(x.storage(), grad.storage());
            grads.register::<Flex>(node.id, like(&x, values));
        }
    }
}

#[derive(Debug)]
struct RmsNormBackward;

impl Backward<Flex, 1> for RmsNormBackward {
    type State = (FlexTensor, FlexTensor, f32);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        if let [Some(node)] = ops.parents {
            let (x, scale, epsilon) = ops.state;
            let norm = RmsNorm {
                scale: scale.storage(),
                epsilon,
            };
            let values = norm.backward(x.storage(), grad.storage());
            grads.register::<Flex>(node.id, like(&x, values));
        }
    }
}

/// Values in the shape of another tensor.
fn like(other: &FlexTensor, values: Vec<f32>) -> FlexTensor {
    FlexTensor::from_data(burn::tensor::TensorData::new(values, other.shape()))
}

/// Values in the shape of `[batch, seq, _]`, the last axis being what is left.
fn rows_like(other: &FlexTensor, values: Vec<f32>) -> FlexTensor {
    let shape = other.shape();
    let (batch, seq_len) = (shape[0], shape[1]);
    let width = values.len() / (batch * seq_len).max(1);
    tensor(values, [batch, seq_len, width])
}
