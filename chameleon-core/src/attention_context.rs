//! Attention to a context: keys and values beside those of the tokens of a sequence itself.

use std::collections::BTreeMap;

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Tensor, assert_shape};

use crate::fused::ScoreRule;

/// What the tokens of a sequence attend to beside the sequence itself, in some layers of a model: the keys and values
/// of other sequences.
///
/// The tokens of a context have no order among each other: attention sees only their keys.
#[derive(Debug, Clone, Default)]
pub struct AttentionContext {
    by_layer: BTreeMap<usize, ContextKeys>,
}

/// The keys and values of a context in one layer.
#[derive(Debug, Clone)]
pub struct ContextKeys {
    /// `[kv_heads, head_dim, tokens]`, positions included.
    pub key_columns: Tensor<3>,
    /// `[kv_heads, tokens, head_dim]`
    pub value: Tensor<3>,
}

/// Queries, and the keys and values of their own sequences.
#[derive(Debug, Clone)]
pub struct ContextAttention<'a> {
    /// `[batch, heads, seq, head_dim]`; several query heads may share a key-value head.
    pub query: Tensor<4>,
    /// `[batch, kv_heads, slots, head_dim]`
    pub key: Tensor<4>,
    /// `[batch, kv_heads, slots, head_dim]`
    pub value: Tensor<4>,
    /// What a query does not see of its own sequence: `true` is hidden; `[batch or 1, 1, seq, slots]`.
    pub hidden: Tensor<4, Bool>,
    /// The factor and the cap of scores.
    pub rule: ScoreRule,
    /// What every query sees.
    pub context: &'a ContextKeys,
}

impl AttentionContext {
    /// A context in some layers.
    pub fn new(layers: impl IntoIterator<Item = (usize, ContextKeys)>) -> Self {
        Self {
            by_layer: layers.into_iter().collect(),
        }
    }

    /// The keys and values in a layer, if its tokens attend to any.
    pub fn layer(&self, layer_idx: usize) -> Option<&ContextKeys> {
        self.by_layer.get(&layer_idx)
    }

    /// The tokens of all these contexts, those of the first one first.
    ///
    /// # Panics
    ///
    /// When the contexts are of different layers.
    #[must_use]
    pub fn joined(contexts: &[Self]) -> Self {
        let layers = contexts.iter().flat_map(|context| context.by_layer.keys());
        let layers: std::collections::BTreeSet<usize> = layers.copied().collect();
        Self::new(layers.into_iter().map(|layer_idx| {
            let keys: Vec<&ContextKeys> = contexts
                .iter()
                .map(|context| context.layer(layer_idx).expect("the same layers"))
                .collect();
            let key_columns = keys.iter().map(|keys| keys.key_columns.clone()).collect();
            let value = keys.iter().map(|keys| keys.value.clone()).collect();
            let keys = ContextKeys {
                key_columns: Tensor::cat(key_columns, 2),
                value: Tensor::cat(value, 1),
            };
            (layer_idx, keys)
        }))
    }

    /// Tokens that can be attended to.
    pub fn num_tokens(&self) -> usize {
        self.by_layer.values().next().map_or(0, |keys| {
            let [_, num_tokens, _] = keys.value.dims();
            num_tokens
        })
    }

    /// Bytes of the keys and values, at 4 each.
    pub fn num_bytes(&self) -> usize {
        let layers = self.by_layer.values();
        layers
            .map(|keys| 8 * keys.value.dims().iter().product::<usize>())
            .sum()
    }

    /// Whether every key and value is finite.
    pub fn is_finite(&self) -> bool {
        let finite = |tensor: &Tensor<3>| tensor.clone().is_finite().all().into_scalar::<bool>();
        let mut layers = self.by_layer.values();
        layers.all(|keys| finite(&keys.key_columns) && finite(&keys.value))
    }
}

impl ContextAttention<'_> {
    /// Softmax of the scaled scores of the context and of the own sequence together, times their values.
    ///
    /// # Shapes
    ///
    /// - output: `[batch, heads, seq, head_dim]`
    ///
    /// # Panics
    ///
    /// When the shapes do not fit each other.
    pub fn attend(self) -> Tensor<4> {
        let [batch, num_heads, seq_len, head_dim] = self.query.dims();
        let [_, num_kv_heads, num_slots, _] = self.key.dims();
        let [_, num_tokens, _] = self.context.value.dims();
        assert_shape!(self.key, [batch, num_kv_heads, num_slots, head_dim]);
        assert_shape!(self.value, [batch, num_kv_heads, num_slots, head_dim]);
        assert_shape!(self.context.value, [num_kv_heads, num_tokens, head_dim]);
        assert_shape!(
            self.context.key_columns,
            [num_kv_heads, head_dim, num_tokens]
        );
        // Queries that share a key-value head stand below one another, so that no key or value is copied.
        let group_size = num_heads / num_kv_heads;
        let rows = group_size * seq_len;
        let query = self.query * self.rule.scale;
        let query = query.reshape([batch, num_kv_heads, rows, head_dim]);
        let hidden = self.hidden.repeat_dim(2, group_size); // [batch or 1, 1, group * seq, slots]
        let own = self.rule.cap(query.clone().matmul(self.key.transpose()));
        let own = own.mask_fill(
            hidden.expand([batch, num_kv_heads, rows, num_slots]),
            f32::NEG_INFINITY,
        );
        // The context is the same for the whole batch, so all rows are one matrix for each key-value head.
        let by_head = |x: Tensor<4>| {
            let [_, _, _, width] = x.dims();
            x.swap_dims(0, 1)
                .reshape([num_kv_heads, batch * rows, width])
        };
        let by_row = |x: Tensor<3>| {
            let [_, _, width] = x.dims();
            x.reshape([num_kv_heads, batch, rows, width])
                .swap_dims(0, 1)
        };
        let to_context = by_row(by_head(query).matmul(self.context.key_columns.clone()));
        let to_context = self.rule.cap(to_context);
        let weights = softmax(Tensor::cat(vec![to_context, own], 3), 3);
        let to_context = weights.clone().narrow(3, 0, num_tokens);
        let own = weights.narrow(3, num_tokens, num_slots);
        let attended =
            by_row(by_head(to_context).matmul(self.context.value.clone())) + own.matmul(self.value);
        attended.reshape([batch, num_heads, seq_len, head_dim])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &Device::flex())
    }

    fn context(num_tokens: usize) -> ContextKeys {
        ContextKeys {
            key_columns: random([2, 4, num_tokens]),
            value: random([2, num_tokens, 4]),
        }
    }

    /// Softmax over all keys of one query at a time, written out.
    fn reference(query: &Tensor<4>, key: &Tensor<4>, value: &Tensor<4>) -> Tensor<4> {
        let [_, num_heads, _, _] = query.dims();
        let [_, num_kv_heads, _, _] = key.dims();
        let heads = (0..num_heads)
            .map(|head_idx| {
                let kv = head_idx * num_kv_heads / num_heads;
                let query = query.clone().narrow(1, head_idx, 1);
                let (key, value) = (key.clone().narrow(1, kv, 1), value.clone().narrow(1, kv, 1));
                softmax(query.matmul(key.transpose()) * 0.5, 3).matmul(value)
            })
            .collect();
        Tensor::cat(heads, 1)
    }

    #[test]
    fn a_context_is_attended_to_as_if_it_were_part_of_each_sequence() {
        let context = context(5);
        let (query, key, value) = (
            random([3, 4, 2, 4]),
            random([3, 2, 6, 4]),
            random([3, 2, 6, 4]),
        );
        let attended = ContextAttention {
            query: query.clone(),
            key: key.clone(),
            value: value.clone(),
            hidden: Tensor::<4>::zeros([1, 1, 2, 6], &Device::flex()).bool(),
            rule: ScoreRule::of_head(4),
            context: &context,
        }
        .attend();
        let repeated = |x: Tensor<3>| x.unsqueeze::<4>().repeat_dim(0, 3);
        let all_keys = Tensor::cat(vec![repeated(context.key_columns.transpose()), key], 2);
        let all_values = Tensor::cat(vec![repeated(context.value), value], 2);
        let expected = reference(&query, &all_keys, &all_values);
        attended
            .into_data()
            .assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(1e-5));
    }

    #[test]
    fn hidden_slots_have_no_effect() {
        let context = context(3);
        let (query, key, value) = (
            random([1, 2, 1, 4]),
            random([1, 2, 4, 4]),
            random([1, 2, 4, 4]),
        );
        let hidden = Tensor::<1>::from_floats([0.0, 0.0, 1.0, 1.0], &Device::flex());
        let masked = ContextAttention {
            query: query.clone(),
            key: key.clone(),
            value: value.clone(),
            hidden: hidden.bool().reshape([1, 1, 1, 4]),
            rule: ScoreRule::of_head(4),
            context: &context,
        };
        let shorter = ContextAttention {
            query,
            key: key.narrow(2, 0, 2),
            value: value.narrow(2, 0, 2),
            hidden: Tensor::<4>::zeros([1, 1, 1, 2], &Device::flex()).bool(),
            rule: ScoreRule::of_head(4),
            context: &context,
        };
        let expected = shorter.attend().into_data();
        let masked = masked.attend().into_data();
        masked.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-6));
    }

    #[test]
    fn contexts_are_joined_token_by_token() {
        let parts = [2, 3].map(|num_tokens| AttentionContext::new([(7, context(num_tokens))]));
        let joined = AttentionContext::joined(&parts);
        assert_eq!(joined.num_tokens(), 5);
        assert_eq!(joined.num_bytes(), 2 * 5 * 4 * 8);
        assert!(joined.layer(6).is_none() && joined.is_finite());
        let value = joined.layer(7).unwrap().value.clone().narrow(1, 2, 3);
        let expected = parts[1].layer(7).unwrap().value.clone();
        assert_eq!(value.into_data(), expected.into_data());
    }
}
