//! Keys and values of the earlier tokens of rows, so that each new token costs one step.
//!
//! Rows come and go one by one, and a pass brings any number of tokens for any of them: whole prompts, pieces of
//! prompts, and single tokens side by side. All products of a pass run over all of its tokens at once; attention
//! runs row by row, over as many slots as the row itself needs. So no row depends on the others.

mod cache_block;
mod kept_factors;
mod pass;
mod plans;

use std::collections::BTreeMap;

use burn::tensor::Device;
use chameleon_hypernet::GroupLayers;

use crate::families::sizes::ModelSizes;
use cache_block::{BlockShape, CacheBlock};
use kept_factors::KeptFactors;

pub use cache_block::CacheRow;

/// A product over a single row takes another kernel than one over several, which adds up in another order. No pass
/// has fewer rows than this, so that a row has the same values alone and among others.
pub(crate) const MIN_PRODUCT_ROWS: usize = 2;

/// Rows get room in multiples of this, so that few of them move at a time.
const SLOT_STEP: usize = 64;

/// Tokens that continue a row.
#[derive(Debug, Clone, Copy)]
pub struct Segment<'a> {
    /// The row.
    pub row: CacheRow,
    /// Its next tokens, at least one.
    pub token_ids: &'a [u32],
    /// The change of the layers for it; `None` for the frozen model.
    pub layers: Option<&'a GroupLayers>,
}

/// The keys and values of some rows, for one model.
///
/// Rows of about the same length lie in one block, a pair of buffers for each layer; a row that outgrows its block
/// moves to the next. Blocks hold at most one and a half times the tokens of a row, and room for at most twice
/// as many rows as there are.
#[derive(Debug)]
pub struct KvCache {
    sizes: ModelSizes,
    device: Device,
    rows: BTreeMap<CacheRow, RowPlace>,
    /// By the slots each of their rows has.
    blocks: BTreeMap<usize, CacheBlock>,
    num_rows_ever: u64,
    factors: KeptFactors,
}

/// The length of a row, and its place.
#[derive(Debug, Clone, Copy)]
struct RowPlace {
    /// Tokens so far, which is the position of the next one.
    len: usize,
    /// Slots of its block, which name it; 0 before its first token.
    num_slots: usize,
    /// Where in the block.
    place_idx: usize,
}

impl KvCache {
    /// An empty cache for a model of these sizes.
    pub fn new(sizes: &ModelSizes, device: &Device) -> Self {
        Self {
            sizes: *sizes,
            device: device.clone(),
            rows: BTreeMap::new(),
            blocks: BTreeMap::new(),
            num_rows_ever: 0,
            factors: KeptFactors::default(),
        }
    }

    /// A new row, which takes no room before its first token.
    pub fn add_row(&mut self) -> CacheRow {
        let row = CacheRow(self.num_rows_ever);
        self.num_rows_ever += 1;
        let place = RowPlace {
            len: 0,
            num_slots: 0,
            place_idx: 0,
        };
        self.rows.insert(row, place);
        row
    }

    /// Removes a row.
    ///
    /// # Panics
    ///
    /// Panics if there is no such row.
    pub fn remove_row(&mut self, row: CacheRow) {
        let place = self.rows.remove(&row).expect("the row is in the cache");
        self.leave_block(place);
    }

    /// How many rows there are.
    pub fn num_rows(&self) -> usize {
        self.rows.len()
    }

    /// Tokens of a row.
    ///
    /// # Panics
    ///
    /// Panics if there is no such row.
    pub fn len(&self, row: CacheRow) -> usize {
        self.rows[&row].len
    }

    /// Tokens of all rows.
    pub fn num_tokens(&self) -> usize {
        self.rows.values().map(|place| place.len).sum()
    }

    /// Tokens for which there is room.
    pub fn capacity(&self) -> usize {
        self.blocks.values().map(CacheBlock::capacity).sum()
    }

    /// Makes room for more tokens of a row, moving it to another block if it has outgrown its own; returns the
    /// position of the first of them.
    fn grow(&mut self, row: CacheRow, num_new: usize) -> usize {
        let old = *self.rows.get(&row).expect("the row is in the cache");
        let len = old.len + num_new;
        let mut place = RowPlace { len, ..old };
        if len > old.num_slots {
            place.num_slots = slots_for(len);
            let shape = BlockShape {
                num_layers: self.sizes.num_layers,
                num_kv_heads: self.sizes.num_kv_heads,
                num_slots: place.num_slots,
                head_dim: self.sizes.head_dim,
            };
            let kept = self
                .blocks
                .get(&old.num_slots)
                .map(|block| block.read(old.place_idx));
            let block = self
                .blocks
                .entry(place.num_slots)
                .or_insert_with(|| CacheBlock::new(shape, &self.device));
            place.place_idx = block.add(row, kept);
            self.leave_block(old);
        }
        self.rows.insert(row, place);
        old.len
    }

    /// Removes a row from its block; the last row of the block is moved into the gap.
    fn leave_block(&mut self, place: RowPlace) {
        let Some(block) = self.blocks.get_mut(&place.num_slots) else {
            return;
        };
        if let Some(moved) = block.remove(place.place_idx) {
            let moved = self
                .rows
                .get_mut(&moved)
                .expect("rows in blocks are in the cache");
            moved.place_idx = place.place_idx;
        }
        if block.num_rows() == 0 {
            self.blocks.remove(&place.num_slots);
        }
    }
}

/// The slots of the block for rows of `len` tokens: 1, 2, 3, 4, 6, 8, 12, ... steps.
fn slots_for(len: usize) -> usize {
    let num_steps = len.div_ceil(SLOT_STEP);
    let power = num_steps.next_power_of_two();
    let between = power / 4 * 3;
    let num_steps = if between >= num_steps { between } else { power };
    num_steps * SLOT_STEP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_waste_at_most_a_third_of_a_row() {
        let sizes = [1, 64, 65, 128, 129, 192, 193, 256, 257, 384, 385, 512].map(slots_for);
        assert_eq!(
            sizes,
            [64, 64, 128, 128, 192, 192, 256, 256, 384, 384, 512, 512]
        );
        for len in 65..5000 {
            let num_slots = slots_for(len);
            assert!(num_slots >= len && num_slots < len * 3 / 2 + SLOT_STEP);
        }
    }
}
