//! Hidden states of a forward pass in which attention masks some tokens, as the published script does with padding.

use std::collections::BTreeMap;

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Device, Tensor, TensorData};
use chameleon_core::TokenBatch;
use chameleon_core::fused::ScoreRule;
use chameleon_hypernet::LayerFactors;

use crate::families::attention::{Attend, AttentionInput, Heads, Projected, attend};
use crate::families::causal_lm::{CausalLm as _, PassEnd, PassInput, SequencePass};
use crate::families::language_model::LanguageModel;
use crate::families::masks::AttentionMask;
use crate::training::grouped_examples::{
    StatePass, StateRequest, requested_hidden_states, select_positions,
};

/// The tokens that causal attention attends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Every earlier token.
    AllTokens,
    /// All earlier tokens except those with this id, which keep their positions.
    AllBut(u32),
}

/// Final hidden states of the requested positions, one sequence after the other.
///
/// # Shapes
///
/// - output: `[rows, hidden]`
pub(super) fn hidden_states(
    model: &LanguageModel,
    requests: &[StateRequest<'_>],
    visibility: Visibility,
    factors: &LayerFactors,
) -> Tensor<2> {
    let rows: Vec<&[u32]> = requests.iter().map(|request| request.token_ids).collect();
    let id = match visibility {
        Visibility::AllBut(id) if rows.iter().any(|row| row.contains(&id)) => id,
        Visibility::AllTokens | Visibility::AllBut(_) => {
            let end = PassEnd::Head;
            return requested_hidden_states(model, requests, StatePass { end, factors });
        }
    };
    let token_ids = TokenBatch::from_rows(&rows, 0, &model.head_weight().device()).token_ids;
    let mut attention = MaskedAttention::without(token_ids.clone().equal_elem(id));
    let pass = SequencePass {
        input: PassInput::TokenIds(token_ids),
        end: PassEnd::Head,
        factors,
    };
    let states = model.forward_with(pass, &mut attention);
    let positions = requests
        .iter()
        .map(|request| request.positions.iter().copied());
    select_positions(states, positions)
}

/// Causal attention that masks some tokens.
struct MaskedAttention {
    /// `true` on masked tokens, row by row.
    unseen: Vec<bool>,
    seq_len: usize,
    device: Device,
    /// `[batch, 1, seq, seq]`, `true` where a key is masked for a query; for each window that the layers have.
    hidden: BTreeMap<Option<usize>, Tensor<4, Bool>>,
}

impl MaskedAttention {
    /// No query attends to the tokens marked in `unseen`, not even to itself; a query whose keys would all be masked
    /// attends to itself.
    ///
    /// # Shapes
    ///
    /// - `unseen`: `[batch, seq]`, `true` on masked tokens
    fn without(unseen: Tensor<2, Bool>) -> Self {
        let [_, seq_len] = unseen.dims();
        Self {
            device: unseen.device(),
            unseen: unseen.into_data().iter::<bool>().collect(),
            seq_len,
            hidden: BTreeMap::new(),
        }
    }

    fn hidden(&mut self, rule: &ScoreRule) -> Tensor<4, Bool> {
        let Self {
            unseen,
            seq_len,
            device,
            hidden,
        } = self;
        let build = || Self::mask(unseen, *seq_len, device, rule);
        hidden.entry(rule.window).or_insert_with(build).clone()
    }

    fn mask(unseen: &[bool], seq_len: usize, device: &Device, rule: &ScoreRule) -> Tensor<4, Bool> {
        let mut hidden = Vec::with_capacity(unseen.len() * seq_len);
        for row in unseen.chunks(seq_len) {
            for query in 0..seq_len {
                let reached = rule.first_key(query)..=query;
                let sees_none = row[reached.clone()].iter().all(|&unseen| unseen);
                hidden.extend((0..seq_len).map(|slot| {
                    let is_itself = sees_none && slot == query;
                    !reached.contains(&slot) || (row[slot] && !is_itself)
                }));
            }
        }
        let shape = [unseen.len() / seq_len, 1, seq_len, seq_len];
        Tensor::from_data(TensorData::new(hidden, shape), device)
    }
}

impl Attend for MaskedAttention {
    fn attend(&mut self, projected: Projected<'_>) -> Tensor<3> {
        let scores = projected.scores;
        let hidden = self.hidden(&scores);
        let Heads { query, key, value } = projected.into_heads();
        let is_tracked = query.is_tracked() || key.is_tracked() || value.is_tracked();
        if is_tracked {
            return attend_recorded(query, &key, value, (&hidden, &scores));
        }
        let is_autodiff = query.is_autodiff();
        // Below the first adapter no gradient is needed, so the fused operation of the plain backend is used.
        let plain = |x: Tensor<4>| if is_autodiff { x.inner() } else { x };
        let attended = attend(AttentionInput {
            query: plain(query),
            key: plain(key),
            value: plain(value),
            mask: &AttentionMask::Hidden(hidden),
            scores,
        });
        if is_autodiff {
            Tensor::from_inner(attended)
        } else {
            attended
        }
    }
}

/// Masked attention from separate operations, which Burn differentiates.
///
/// # Shapes
///
/// - `query`: `[batch, heads, seq, head_dim]`
/// - `key`, `value`: `[batch, kv_heads, seq, head_dim]`
/// - output: `[batch, seq, heads * head_dim]`
fn attend_recorded(
    query: Tensor<4>,
    key: &Tensor<4>,
    value: Tensor<4>,
    (hidden, rule): (&Tensor<4, Bool>, &ScoreRule),
) -> Tensor<3> {
    let [batch, num_heads, seq_len, head_dim] = query.dims();
    let [_, num_kv_heads, num_slots, _] = key.dims();
    let group_size = num_heads / num_kv_heads;

    // The queries that share a key-value head are stacked, so that no key or value is copied.
    let query = (query * rule.scale).reshape([batch, num_kv_heads, group_size * seq_len, head_dim]);
    let hidden = hidden
        .clone()
        .expand([batch, num_heads, seq_len, num_slots]);
    let scores = query
        .matmul(key.clone().transpose()) // [batch, kv_heads, group * seq, slots]
        .reshape([batch, num_heads, seq_len, num_slots]);
    let scores = rule.cap(scores).mask_fill(hidden, f32::NEG_INFINITY);
    softmax(scores, 3)
        .reshape([batch, num_kv_heads, group_size * seq_len, num_slots])
        .matmul(value)
        .reshape([batch, num_heads, seq_len, head_dim])
        .swap_dims(1, 2) // [batch, seq, heads, head_dim]
        .reshape([batch, seq_len, num_heads * head_dim])
}
