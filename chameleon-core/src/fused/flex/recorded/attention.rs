//! Gradients of causal attention.

use burn::backend::Flex;
use burn::backend::TensorMetadata as _;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops};

use super::super::{FlexTensor, contiguous};
use super::like;
use crate::fused::inputs::ScoreRule;
use crate::fused::kernels::attention::{Attention, AttentionSizes, Rotary};

/// What attention needs, and needs again for its gradients.
#[derive(Debug, Clone)]
pub(super) struct AttentionState {
    pub(super) query: FlexTensor,
    key: FlexTensor,
    value: FlexTensor,
    cos: FlexTensor,
    sin: FlexTensor,
    head_dim: usize,
    rule: ScoreRule,
}

impl AttentionState {
    pub(super) fn new(tensors: [FlexTensor; 5], head_dim: usize, rule: ScoreRule) -> Self {
        let [query, key, value, cos, sin] = tensors.map(contiguous);
        Self {
            query,
            key,
            value,
            cos,
            sin,
            head_dim,
            rule,
        }
    }

    pub(super) fn attention(&self) -> Attention<'_> {
        let (query, key) = (self.query.shape(), self.key.shape());
        Attention {
            sizes: AttentionSizes {
                batch: query[0],
                seq_len: query[1],
                num_heads: query[2] / self.head_dim,
                num_kv_heads: key[2] / self.head_dim,
                head_dim: self.head_dim,
            },
            query: self.query.storage(),
            key: self.key.storage(),
            value: self.value.storage(),
            rotary: Rotary {
                cos: self.cos.storage(),
                sin: self.sin.storage(),
                half: self.cos.shape()[3],
            },
            rule: self.rule,
        }
    }
}

#[derive(Debug)]
pub(super) struct AttentionBackward;

impl Backward<Flex, 3> for AttentionBackward {
    type State = AttentionState;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let state = ops.state;
        let found = state.attention().backward(grad.storage());
        let [query, key, value] = ops.parents;
        for (parent, values, input) in [
            (query, found.query, &state.query),
            (key, found.key, &state.key),
            (value, found.value, &state.value),
        ] {
            if let Some(node) = parent {
                grads.register::<Flex>(node.id, like(input, values));
            }
        }
    }
}
