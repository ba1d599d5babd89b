//! The attention of rows in one pass: what each of them sees.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor};
use chameleon_core::fused::ScoreRule;
use chameleon_core::{AttentionContext, ContextAttention, ContextKeys};

use crate::families::attention::{
    AttentionInput, AttentionMask, Heads, attend, attend_to_context, hidden_slots,
};

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

/// The masks of some queries, one for each window that the layers have; built when the first such layer asks.
#[derive(Debug)]
pub(super) struct Masks {
    /// Rows of queries, each with the last slot that it sees.
    last_slots: Vec<Vec<usize>>,
    /// Slots of a row; `None` if all keys are those of the queries.
    num_slots: Option<usize>,
    device: Device,
    by_window: BTreeMap<Option<usize>, AttentionMask>,
}

impl Masks {
    pub(super) fn new(
        last_slots: Vec<Vec<usize>>,
        num_slots: Option<usize>,
        device: &Device,
    ) -> Self {
        Self {
            last_slots,
            num_slots,
            device: device.clone(),
            by_window: BTreeMap::new(),
        }
    }

    /// The mask of a layer with this rule.
    fn of(&mut self, rule: &ScoreRule) -> &AttentionMask {
        // A window that reaches everything that any query sees is none.
        let farthest = self
            .last_slots
            .iter()
            .flatten()
            .max()
            .map_or(0, |last| last + 1);
        let window = rule.window.filter(|&window| window < farthest);
        if !self.by_window.contains_key(&window) {
            let mask = self.build(&ScoreRule { window, ..*rule });
            self.by_window.insert(window, mask);
        }
        &self.by_window[&window]
    }

    fn build(&self, rule: &ScoreRule) -> AttentionMask {
        let seq_len = self.last_slots.first().map_or(0, Vec::len);
        if self.num_slots.is_none() && rule.window.is_none() {
            // A prompt attends only to itself, and not to the empty slots.
            return AttentionMask::Causal;
        }
        let num_slots = self.num_slots.unwrap_or(seq_len);
        AttentionMask::Hidden(hidden_slots(
            &self.last_slots,
            num_slots,
            rule,
            &self.device,
        ))
    }
}

impl StepPlan {
    /// `heads` of the rows from the first on -> `[rows, 1, heads * head_dim]`
    pub(super) fn attend(&mut self, layer_idx: usize, heads: &Heads, rule: ScoreRule) -> Tensor<3> {
        let Heads { query, key, value } = heads;
        let mask = self.masks.of(&rule);
        let hidden = mask.hidden(1, &query.device()); // [rows, 1, 1, slots]
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
        let mask = self.masks.of(&rule);
        let context = self.context.as_ref();
        let Some(context) = context.and_then(|context| context.layer(layer_idx)) else {
            return attend(AttentionInput {
                query,
                key,
                value,
                mask,
                scores: rule,
            });
        };
        attend_to_context(ContextAttention {
            hidden: mask.hidden(self.num_tokens, &query.device()),
            query,
            key,
            value,
            rule,
            context,
        })
    }
}
