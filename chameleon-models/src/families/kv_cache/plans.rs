//! The attention of rows in one pass: what each of them sees.

use std::sync::Arc;

use burn::tensor::{Int, Tensor};
use chameleon_core::fused::ScoreRule;
use chameleon_core::{AttentionContext, ContextAttention, ContextKeys};

use crate::families::attention::{AttentionInput, Heads, attend, attend_to_context};
use crate::families::masks::{AttentionMask, Masks};

/// Rows that advance by one token, computed together.
#[derive(Debug)]
pub(super) struct StepPlan {
    /// Rows of the block from the first on.
    pub(super) num_places: usize,
    /// The token of each of them, unless these are computed in the same order from the first of the block on. A row
    /// without a token in this pass is given any other token.
    pub(super) queries: Option<Tensor<1, Int>>,
    pub(super) masks: Masks,
    /// What each of them attends to beside its own tokens; empty if none does.
    pub(super) contexts: Vec<Option<Arc<AttentionContext>>>,
}

/// A row that advances by several tokens.
#[derive(Debug)]
pub(super) struct ReadPlan {
    pub(super) first_token: usize,
    pub(super) num_tokens: usize,
    pub(super) place_idx: usize,
    pub(super) masks: Masks,
    /// Whether it attends to tokens of former passes.
    pub(super) has_past: bool,
    pub(super) context: Option<Arc<AttentionContext>>,
}

impl StepPlan {
    /// `heads` of the rows from the first on -> `[rows, 1, heads * head_dim]`
    pub(super) fn attend(&mut self, layer_idx: usize, heads: &Heads, rule: ScoreRule) -> Tensor<3> {
        let Heads { query, key, value } = heads;
        let hidden = self.masks.hidden(&rule); // [rows, 1, 1, slots]
        let attend_own = |first: usize, num: usize| {
            let part = |x: &Tensor<4>| x.clone().narrow(0, first, num);
            attend(AttentionInput {
                query: part(query),
                key: part(key),
                value: part(value),
                mask: &AttentionMask::Hidden(hidden.clone().narrow(0, first, num)),
                scores: rule,
            })
        };
        let keys = |context: &Option<Arc<AttentionContext>>| -> Option<ContextKeys> {
            context.as_ref()?.layer(layer_idx).cloned()
        };
        let contexts: Vec<Option<ContextKeys>> = self.contexts.iter().map(keys).collect();
        if contexts.iter().all(Option::is_none) {
            return attend_own(0, self.num_places);
        }
        // Row by row, so that none depends on how many others have a context.
        let rows = contexts.iter().enumerate().map(|(place_idx, context)| {
            let Some(context) = context else {
                return attend_own(place_idx, 1);
            };
            let row = |x: &Tensor<4>| x.clone().narrow(0, place_idx, 1);
            attend_to_context(ContextAttention {
                query: row(query),
                key: row(key),
                value: row(value),
                hidden: hidden.clone().narrow(0, place_idx, 1),
                rule,
                context,
            })
        });
        Tensor::cat(rows.collect(), 0)
    }
}

impl ReadPlan {
    /// `heads` of the tokens -> `[1, tokens, heads * head_dim]`
    pub(super) fn attend(&mut self, layer_idx: usize, heads: Heads, rule: ScoreRule) -> Tensor<3> {
        let Heads { query, key, value } = heads;
        let context = self.context.as_ref();
        let Some(context) = context.and_then(|context| context.layer(layer_idx)) else {
            return attend(AttentionInput {
                query,
                key,
                value,
                mask: self.masks.of(&rule),
                scores: rule,
            });
        };
        attend_to_context(ContextAttention {
            hidden: self.masks.hidden(&rule),
            query,
            key,
            value,
            rule,
            context,
        })
    }
}
