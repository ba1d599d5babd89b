//! One pass of a model over new tokens of some rows: their places, their masks and their attention.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData, assert_shape};
use chameleon_core::fused::ScoreRule;
use chameleon_core::{AttentionContext, ContextAttention, ContextKeys};
use chameleon_hypernet::{GroupLayers, LayerFactors};

use super::{CacheRow, KvCache, MIN_PRODUCT_ROWS, Segment};
use crate::families::attention::{
    Attend, AttentionInput, AttentionMask, Heads, Projected, attend, attend_to_context,
    hidden_slots,
};
use crate::families::indices::index_tensor;

/// A pass that has begun: the tokens in the order in which the model computes them, side by side as one sequence.
#[derive(Debug)]
pub(crate) struct CachePass<'a> {
    cache: &'a mut KvCache,
    /// `[1, tokens]`
    token_ids: Tensor<2, Int>,
    positions: Vec<Vec<usize>>,
    blocks: Vec<BlockPlan>,
    /// For each computed token, its row among the results of attention, unless they are in order.
    attended_rows: Option<Tensor<1, Int>>,
    /// For each token of the caller, where it is computed, unless that is the same order.
    asked_rows: Option<Tensor<1, Int>>,
    /// The changes of the layers for each computed token.
    factors: Arc<LayerFactors>,
}

/// The part of a pass that one layer sees.
#[derive(Debug)]
pub(crate) struct LayerPass<'p, 'a> {
    pass: &'p mut CachePass<'a>,
    layer_idx: usize,
}

/// The work in one block. Its tokens are computed side by side: single tokens first, then longer pieces.
#[derive(Debug)]
struct BlockPlan {
    num_slots: usize,
    first_token: usize,
    num_tokens: usize,
    /// Where in the buffers they go, head by head.
    buffer_rows: Tensor<1, Int>,
    step: Option<StepPlan>,
    reads: Vec<ReadPlan>,
}

/// Rows that advance by one token, computed together.
#[derive(Debug)]
struct StepPlan {
    /// Rows of the block from the first on.
    num_places: usize,
    /// The token of each of them, unless these are computed in the same order from the first of the block on. A row
    /// without a token in this pass is given any other token.
    queries: Option<Tensor<1, Int>>,
    masks: Masks,
    /// What each of them attends to beside its own tokens; empty if none does.
    contexts: Vec<Option<Arc<AttentionContext>>>,
}

/// A row that advances by several tokens.
#[derive(Debug)]
struct ReadPlan {
    first_token: usize,
    num_tokens: usize,
    place_idx: usize,
    masks: Masks,
    /// Whether it attends to tokens of former passes.
    has_past: bool,
    context: Option<Arc<AttentionContext>>,
}

/// The masks of some queries, one for each window that the layers have; built when the first such layer asks.
#[derive(Debug)]
struct Masks {
    /// Rows of queries, each with the last slot that it sees.
    last_slots: Vec<Vec<usize>>,
    /// Slots of a row; `None` if all keys are those of the queries.
    num_slots: Option<usize>,
    device: Device,
    by_window: BTreeMap<Option<usize>, AttentionMask>,
}

impl Masks {
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

/// A segment with its place.
#[derive(Debug, Clone, Copy)]
struct Placed<'a> {
    segment_idx: usize,
    token_ids: &'a [u32],
    layers: Option<&'a GroupLayers>,
    start: usize,
    place_idx: usize,
}

impl Placed<'_> {
    fn context(&self) -> Option<Arc<AttentionContext>> {
        self.layers.and_then(GroupLayers::context).cloned()
    }
}

impl KvCache {
    /// Makes room for new tokens and plans what the model computes.
    ///
    /// # Panics
    ///
    /// Panics if there is no token, if a segment is empty, or if a row appears twice.
    pub(crate) fn begin(&mut self, segments: &[Segment<'_>]) -> CachePass<'_> {
        assert!(!segments.is_empty(), "a pass has at least one segment");
        let mut by_row: Vec<(CacheRow, usize)> = Vec::new();
        for (segment_idx, segment) in segments.iter().enumerate() {
            assert!(
                !segment.token_ids.is_empty(),
                "a segment has at least one token"
            );
            by_row.push((segment.row, segment_idx));
        }
        by_row.sort_unstable();
        assert!(
            by_row.windows(2).all(|pair| pair[0].0 != pair[1].0),
            "a row appears once in a pass"
        );
        let starts: Vec<usize> = segments
            .iter()
            .map(|segment| self.grow(segment.row, segment.token_ids.len()))
            .collect();
        // Only now, because rows that grow move others.
        let mut order: Vec<(usize, bool, usize, usize)> = segments
            .iter()
            .enumerate()
            .map(|(segment_idx, segment)| {
                let place = self.rows[&segment.row];
                let is_read = segment.token_ids.len() > 1 || starts[segment_idx] == 0;
                (place.num_slots, is_read, place.place_idx, segment_idx)
            })
            .collect();
        order.sort_unstable();
        let mut layout = Layout::default();
        let mut blocks = Vec::new();
        for in_block in order.chunk_by(|left, right| left.0 == right.0) {
            let num_slots = in_block[0].0;
            let (mut steps, mut reads) = (Vec::new(), Vec::new());
            for &(_, is_read, place_idx, segment_idx) in in_block {
                let placed = Placed {
                    segment_idx,
                    token_ids: segments[segment_idx].token_ids,
                    layers: segments[segment_idx].layers,
                    start: starts[segment_idx],
                    place_idx,
                };
                if is_read { &mut reads } else { &mut steps }.push(placed);
            }
            blocks.push(self.plan_block(num_slots, &steps, &reads, &mut layout));
        }
        layout.finish(self, segments, blocks)
    }

    fn plan_block<'s>(
        &self,
        num_slots: usize,
        steps: &[Placed<'s>],
        reads: &[Placed<'s>],
        layout: &mut Layout<'s>,
    ) -> BlockPlan {
        let shape = self.blocks[&num_slots].shape;
        let first_token = layout.token_ids.len();
        let step = self.plan_step(num_slots, steps, layout);
        let reads: Vec<ReadPlan> = reads
            .iter()
            .map(|placed| {
                let first_token = layout.token_ids.len();
                layout.add(placed);
                for _ in placed.token_ids {
                    layout.attended.push(layout.num_attended);
                    layout.num_attended += 1;
                }
                self.plan_read(num_slots, placed, first_token)
            })
            .collect();
        let num_tokens = layout.token_ids.len() - first_token;
        let buffer_rows = (0..shape.num_kv_heads).flat_map(|head_idx| {
            layout.stored[first_token..]
                .iter()
                .map(move |&(place_idx, slot)| shape.row_of(place_idx, head_idx, slot))
        });
        BlockPlan {
            num_slots,
            first_token,
            num_tokens,
            buffer_rows: index_tensor(buffer_rows, &self.device),
            step,
            reads,
        }
    }

    fn plan_step<'s>(
        &self,
        num_slots: usize,
        steps: &[Placed<'s>],
        layout: &mut Layout<'s>,
    ) -> Option<StepPlan> {
        // Sorted by place, so the last one lies farthest.
        let num_places = steps.last()?.place_idx + 1;
        let first_token = layout.token_ids.len();
        // A row without a token in this pass takes part, and its result is not used.
        let mut queries = vec![first_token; num_places];
        let mut last_slots = vec![vec![0]; num_places];
        let mut contexts = vec![None; num_places];
        for placed in steps {
            contexts[placed.place_idx] = placed.context();
            queries[placed.place_idx] = layout.token_ids.len();
            last_slots[placed.place_idx] = vec![placed.start];
            layout.add(placed);
            layout.attended.push(layout.num_attended + placed.place_idx);
        }
        layout.num_attended += num_places;
        let queries = (steps.len() < num_places).then(|| index_tensor(queries, &self.device));
        if contexts.iter().all(Option::is_none) {
            contexts.clear();
        }
        Some(StepPlan {
            num_places,
            queries,
            masks: self.masks(last_slots, Some(num_slots)),
            contexts,
        })
    }

    fn plan_read(&self, num_slots: usize, placed: &Placed<'_>, first_token: usize) -> ReadPlan {
        let num_tokens = placed.token_ids.len();
        let has_past = placed.start > 0;
        let last_slots = vec![(placed.start..placed.start + num_tokens).collect()];
        ReadPlan {
            first_token,
            num_tokens,
            place_idx: placed.place_idx,
            masks: self.masks(last_slots, has_past.then_some(num_slots)),
            has_past,
            context: placed.context(),
        }
    }

    fn masks(&self, last_slots: Vec<Vec<usize>>, num_slots: Option<usize>) -> Masks {
        Masks {
            last_slots,
            num_slots,
            device: self.device.clone(),
            by_window: BTreeMap::new(),
        }
    }
}

/// The tokens of a pass as they are laid out, one after the other.
#[derive(Debug, Default)]
struct Layout<'s> {
    token_ids: Vec<u32>,
    /// The change of the layers for each token.
    layers: Vec<Option<&'s GroupLayers>>,
    positions: Vec<usize>,
    /// Place in the block and slot of each token.
    stored: Vec<(usize, usize)>,
    /// Where the results of attention hold each token.
    attended: Vec<usize>,
    num_attended: usize,
    /// Where each segment begins.
    first_of_segment: Vec<(usize, usize)>,
}

impl<'s> Layout<'s> {
    fn add(&mut self, placed: &Placed<'s>) {
        self.first_of_segment
            .push((placed.segment_idx, self.token_ids.len()));
        for (position, &token_id) in (placed.start..).zip(placed.token_ids) {
            self.token_ids.push(token_id);
            self.layers.push(placed.layers);
            self.positions.push(position);
            self.stored.push((placed.place_idx, position));
        }
    }

    fn finish<'a>(
        mut self,
        cache: &'a mut KvCache,
        segments: &[Segment<'_>],
        blocks: Vec<BlockPlan>,
    ) -> CachePass<'a> {
        self.first_of_segment.sort_unstable();
        let asked: Vec<usize> = self
            .first_of_segment
            .iter()
            .zip(segments)
            .flat_map(|(&(_, first), segment)| first..first + segment.token_ids.len())
            .collect();
        while self.token_ids.len() < MIN_PRODUCT_ROWS {
            // Computed, and neither stored nor returned.
            self.token_ids.push(self.token_ids[0]);
            self.layers.push(self.layers[0]);
            self.positions.push(self.positions[0]);
            self.attended.push(self.attended[0]);
        }
        let num_tokens = self.token_ids.len();
        let token_ids: Vec<i64> = self.token_ids.iter().map(|&id| i64::from(id)).collect();
        let token_ids = TensorData::new(token_ids, [1, num_tokens]);
        let unless_in_order = |rows: Vec<usize>, num_rows: usize| {
            let in_order = rows.len() == num_rows && rows.iter().copied().eq(0..num_rows);
            (!in_order).then(|| index_tensor(rows, &cache.device))
        };
        CachePass {
            token_ids: Tensor::from_data(token_ids, &cache.device),
            positions: vec![self.positions],
            blocks,
            attended_rows: unless_in_order(self.attended, self.num_attended),
            asked_rows: unless_in_order(asked, num_tokens),
            factors: cache.factors.for_rows(&self.layers),
            cache,
        }
    }
}

impl<'a> CachePass<'a> {
    /// The tokens to compute, `[1, tokens]`.
    pub(crate) fn token_ids(&self) -> Tensor<2, Int> {
        self.token_ids.clone()
    }

    /// The position of each in its own row, `[1, tokens]`.
    pub(crate) fn positions(&self) -> &[Vec<usize>] {
        &self.positions
    }

    /// The changes of the layers for each token to compute.
    pub(crate) fn factors(&self) -> Arc<LayerFactors> {
        Arc::clone(&self.factors)
    }

    /// The part that one layer sees.
    pub(crate) fn layer(&mut self, layer_idx: usize) -> LayerPass<'_, 'a> {
        LayerPass {
            pass: self,
            layer_idx,
        }
    }

    /// Hidden states in the order of the segments, `[tokens, hidden]`, from those that were computed,
    /// `[1, tokens, hidden]`.
    pub(crate) fn asked(&self, hidden: Tensor<3>) -> Tensor<2> {
        let hidden = hidden.squeeze_dim(0); // [tokens, hidden]
        match &self.asked_rows {
            None => hidden,
            Some(rows) => hidden.select(0, rows.clone()),
        }
    }
}

impl Attend for LayerPass<'_, '_> {
    /// Stores the new keys and values; every token attends to the tokens of its row up to itself.
    fn attend(&mut self, projected: Projected<'_>) -> Tensor<3> {
        let layer_idx = self.layer_idx;
        let pass = &mut *self.pass;
        let scores = projected.scores;
        let Heads { query, key, value } = projected.into_heads();
        let (query, key, value) = (&query, &key, &value);
        let [_, num_heads, num_tokens, head_dim] = query.dims();
        let [_, num_kv_heads, _, _] = key.dims();
        assert_shape!(key, [1, num_kv_heads, num_tokens, head_dim]);
        assert_shape!(value, [1, num_kv_heads, num_tokens, head_dim]);
        let mut attended = Vec::new();
        for plan in &mut pass.blocks {
            let block = pass
                .cache
                .blocks
                .get_mut(&plan.num_slots)
                .expect("blocks stay for the pass");
            let flat = |x: &Tensor<4>| {
                let len = num_kv_heads * plan.num_tokens;
                narrow_tokens(x, plan.first_token, plan.num_tokens).reshape([len, head_dim])
            };
            block.store(layer_idx, &plan.buffer_rows, flat(key), flat(value));
            if let Some(step) = &mut plan.step {
                let query = match &step.queries {
                    None => narrow_tokens(query, plan.first_token, step.num_places),
                    Some(tokens) => query.clone().select(2, tokens.clone()),
                };
                let (key, value) = block.view(layer_idx, 0, step.num_places);
                // Each row is a batch of its own: `[rows, heads, 1, head_dim]`.
                let query = query.swap_dims(0, 2);
                let output = step.attend(layer_idx, &Heads { query, key, value }, scores);
                attended.push(output.reshape([step.num_places, num_heads * head_dim]));
            }
            for read in &mut plan.reads {
                let (first, num) = (read.first_token, read.num_tokens);
                let (key, value) = if read.has_past {
                    block.view(layer_idx, read.place_idx, 1)
                } else {
                    (
                        narrow_tokens(key, first, num),
                        narrow_tokens(value, first, num),
                    )
                };
                let query = narrow_tokens(query, first, num);
                let output = read.attend(layer_idx, Heads { query, key, value }, scores);
                attended.push(output.squeeze_dim(0)); // [tokens, heads * head_dim]
            }
        }
        let attended = Tensor::cat(attended, 0);
        match &pass.attended_rows {
            None => attended,
            Some(rows) => attended.select(0, rows.clone()),
        }
        .unsqueeze()
    }
}

impl StepPlan {
    /// `heads` of the rows from the first on -> `[rows, 1, heads * head_dim]`
    fn attend(&mut self, layer_idx: usize, heads: &Heads, rule: ScoreRule) -> Tensor<3> {
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
    fn attend(&mut self, layer_idx: usize, heads: Heads, rule: ScoreRule) -> Tensor<3> {
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

/// Some tokens of `[1, heads, tokens, head_dim]`.
fn narrow_tokens(x: &Tensor<4>, first: usize, num_tokens: usize) -> Tensor<4> {
    x.clone().narrow(2, first, num_tokens)
}
