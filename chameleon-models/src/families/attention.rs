//! Attention as both families use it: several query heads may share one key-value head.
//!
//! Projections, positions and caches are the caller's.

use burn::tensor::activation::softmax;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Tensor, TensorData, assert_shape};

/// Query, key and value of one layer, split into heads.
#[derive(Debug)]
pub(crate) struct AttentionInput<'a> {
    /// `[batch, heads, seq, head_dim]`
    pub(crate) query: Tensor<4>,
    /// `[batch, kv_heads, slots, head_dim]`
    pub(crate) key: Tensor<4>,
    /// `[batch, kv_heads, slots, head_dim]`
    pub(crate) value: Tensor<4>,
    /// What each query may not look at.
    pub(crate) mask: &'a AttentionMask,
}

/// What each query may not look at; built once for a forward pass and shared by its layers.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one or a few exist in a pass")]
pub(crate) enum AttentionMask {
    /// Whatever comes later, in a pass over whole sequences.
    Causal,
    /// Named slots: `true` is hidden; `[batch, 1, seq, slots]`.
    Hidden(Tensor<4, Bool>),
}

impl AttentionMask {
    /// The mask of a pass over whole sequences in which nobody looks at the tokens marked in `unseen`, not even
    /// they themselves; a token to which nothing would be left looks at itself.
    ///
    /// # Shapes
    ///
    /// - `unseen`: `[batch, seq]`, `true` on tokens that are left out
    pub(crate) fn causal_without(unseen: Tensor<2, Bool>) -> Self {
        let device = unseen.device();
        let [batch, seq_len] = unseen.dims();
        let unseen: Vec<bool> = unseen.into_data().iter::<bool>().collect();
        let mut hidden = Vec::with_capacity(batch * seq_len * seq_len);
        for row in unseen.chunks(seq_len) {
            for query in 0..seq_len {
                let sees_none = row[..=query].iter().all(|&unseen| unseen);
                hidden.extend((0..seq_len).map(|slot| {
                    let is_itself = sees_none && slot == query;
                    slot > query || (row[slot] && !is_itself)
                }));
            }
        }
        let shape = [batch, 1, seq_len, seq_len];
        Self::Hidden(Tensor::from_data(TensorData::new(hidden, shape), &device))
    }
}

/// Softmax of the scaled, masked scores times the values, heads side by side.
///
/// # Shapes
///
/// - output: `[batch, seq, heads * head_dim]`
pub(crate) fn attend(input: AttentionInput<'_>) -> Tensor<3> {
    let [batch, num_heads, seq_len, head_dim] = input.query.dims();
    let [_, num_kv_heads, num_slots, _] = input.key.dims();
    assert_shape!(input.key, [batch, num_kv_heads, num_slots, head_dim]);
    assert_shape!(input.value, [batch, num_kv_heads, num_slots, head_dim]);

    let tracked = input.query.is_tracked() || input.key.is_tracked() || input.value.is_tracked();
    let attended = if let AttentionMask::Hidden(hidden) = input.mask
        && tracked
    {
        attend_recorded(input.query, &input.key, input.value, hidden)
    } else if input.query.is_autodiff() && !tracked {
        // Nothing to record below the first adapter: take the fused operation of the plain backend.
        Tensor::from_inner(attend_fused(AttentionInput {
            query: input.query.inner(),
            key: input.key.inner(),
            value: input.value.inner(),
            mask: input.mask,
        }))
    } else {
        attend_fused(input)
    };
    attended
        .swap_dims(1, 2) // [batch, seq, heads, head_dim]
        .reshape([batch, seq_len, num_heads * head_dim])
}

/// One fused operation of the backend, given the equal head counts and the full masks that all of them take.
fn attend_fused(input: AttentionInput<'_>) -> Tensor<4> {
    let [batch, num_heads, seq_len, head_dim] = input.query.dims();
    let [_, num_kv_heads, num_slots, _] = input.key.dims();
    let group_size = num_heads / num_kv_heads;
    match input.mask {
        AttentionMask::Causal => {
            let options = AttentionModuleOptions {
                is_causal: true,
                ..Default::default()
            };
            let key = for_each_query_head(input.key, group_size);
            let value = for_each_query_head(input.value, group_size);
            attention(input.query, key, value, None, None, options)
        }
        AttentionMask::Hidden(hidden) => {
            // Queries that share a key-value head stand below one another: a cache is never copied.
            let rows = group_size * seq_len;
            let hidden = hidden
                .clone()
                .repeat_dim(2, group_size) // [batch, 1, group * seq, slots]
                .expand([batch, num_kv_heads, rows, num_slots]);
            let query = input.query.reshape([batch, num_kv_heads, rows, head_dim]);
            let options = AttentionModuleOptions::default();
            attention(query, input.key, input.value, Some(hidden), None, options)
                .reshape([batch, num_heads, seq_len, head_dim])
        }
    }
}

/// `[batch, kv_heads, slots, head_dim]` -> `[batch, heads, slots, head_dim]`
fn for_each_query_head(x: Tensor<4>, group_size: usize) -> Tensor<4> {
    if group_size == 1 {
        return x;
    }
    let [batch, num_kv_heads, num_slots, head_dim] = x.dims();
    x.unsqueeze_dim::<5>(2)
        .repeat_dim(2, group_size) // [batch, kv_heads, group, slots, head_dim]
        .reshape([batch, num_kv_heads * group_size, num_slots, head_dim])
}

/// The same from separate operations, whose gradients Burn knows.
fn attend_recorded(
    query: Tensor<4>,
    key: &Tensor<4>,
    value: Tensor<4>,
    hidden: &Tensor<4, Bool>,
) -> Tensor<4> {
    let [batch, num_heads, seq_len, head_dim] = query.dims();
    let [_, num_kv_heads, num_slots, _] = key.dims();
    let group_size = num_heads / num_kv_heads;

    // The queries that share a key-value head stand below one another, so no key or value is copied.
    let query = (query * (head_dim as f64).sqrt().recip()).reshape([
        batch,
        num_kv_heads,
        group_size * seq_len,
        head_dim,
    ]);
    let hidden = hidden
        .clone()
        .expand([batch, num_heads, seq_len, num_slots]);
    let scores = query
        .matmul(key.clone().transpose()) // [batch, kv_heads, group * seq, slots]
        .reshape([batch, num_heads, seq_len, num_slots])
        .mask_fill(hidden, f32::NEG_INFINITY);
    softmax(scores, 3)
        .reshape([batch, num_kv_heads, group_size * seq_len, num_slots])
        .matmul(value)
        .reshape([batch, num_heads, seq_len, head_dim])
}
