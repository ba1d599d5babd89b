//! One pass of a model over new tokens of some rows: their places, their masks and their attention.

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData, assert_shape};
use chameleon_core::AttentionContext;
use chameleon_hypernet::{GroupLayers, LayerFactors};

use super::plans::{ReadPlan, StepPlan};
use super::{CacheRow, KvCache, MIN_PRODUCT_ROWS, Segment};
use crate::families::attention::{Attend, Heads, Projected};
use crate::families::indices::index_tensor;
use crate::families::masks::Masks;

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
            masks: Masks::new(last_slots, Some(num_slots), &self.device),
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
            masks: Masks::new(last_slots, has_past.then_some(num_slots), &self.device),
            has_past,
            context: placed.context(),
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

/// Some tokens of `[1, heads, tokens, head_dim]`.
fn narrow_tokens(x: &Tensor<4>, first: usize, num_tokens: usize) -> Tensor<4> {
    x.clone().narrow(2, first, num_tokens)
}
