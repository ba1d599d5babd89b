//! Keys and values of the tokens a batch has already seen, so that each new token costs one step.
//!
//! Rows may have different lengths: prompts are padded on the right, their padding is never looked at,
//! and each row counts its own positions.

use burn::tensor::{Bool, Device, Tensor, TensorData, assert_shape};

use crate::attention::AttentionMask;
use crate::indices::index_tensor;

/// Buffers grow by whole multiples of this, so that most steps write in place.
const SLOT_BLOCK: usize = 64;

/// The keys and values of a batch, one pair of buffers for each layer.
///
/// The first forward pass brings the prompts, padded on the right to one length; every later pass brings
/// the same number of new tokens for each row.
#[derive(Debug, Clone)]
pub struct KvCache {
    layers: Vec<Option<LayerBuffers>>,
    rows: Vec<RowSlots>,
    num_slots: usize,
    capacity: usize,
}

/// `[batch, kv_heads, capacity, head_dim]`, of which the first `num_slots` are in use.
#[derive(Debug, Clone)]
struct LayerBuffers {
    key: Tensor<4>,
    value: Tensor<4>,
}

/// What one row keeps in its slots.
#[derive(Debug, Clone)]
struct RowSlots {
    /// How many tokens of the first pass are real.
    prompt_len: usize,
    /// Real tokens so far, which is the position of the next one.
    len: usize,
    /// For each slot in use, whether it holds a real token.
    is_real: Vec<bool>,
}

/// What a forward pass needs to know about the tokens it adds.
#[derive(Debug)]
pub(crate) struct CacheStep {
    /// The position of every new token, `[batch, seq]`.
    pub(crate) positions: Vec<Vec<usize>>,
    /// What each new token may not look at.
    pub(crate) mask: AttentionMask,
    first_slot: usize,
}

/// Where one layer keeps its keys and values during a pass.
#[derive(Debug)]
pub(crate) struct LayerSlots<'a> {
    pub(crate) layer_idx: usize,
    pub(crate) step: &'a CacheStep,
    pub(crate) cache: &'a mut KvCache,
}

impl LayerSlots<'_> {
    /// Stores the new keys and values, `[batch, kv_heads, seq, head_dim]`, and answers with all that
    /// attention may look at, `[batch, kv_heads, slots, head_dim]`.
    pub(crate) fn store(self, key: Tensor<4>, value: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        self.cache.extend(self.layer_idx, self.step, key, value)
    }
}

impl KvCache {
    /// An empty cache for prompts of these lengths.
    ///
    /// # Panics
    ///
    /// Panics if there is no row, or if a prompt is empty.
    pub fn new(prompt_lens: &[usize]) -> Self {
        assert!(!prompt_lens.is_empty(), "a cache needs at least one row");
        assert!(
            prompt_lens.iter().all(|&len| len > 0),
            "a prompt has at least one token"
        );
        let rows = prompt_lens
            .iter()
            .map(|&prompt_len| RowSlots {
                prompt_len,
                len: 0,
                is_real: Vec::new(),
            })
            .collect();
        Self {
            layers: Vec::new(),
            rows,
            num_slots: 0,
            capacity: 0,
        }
    }

    /// How many rows the batch has.
    pub fn batch_size(&self) -> usize {
        self.rows.len()
    }

    /// How many real tokens each row holds.
    pub fn lens(&self) -> Vec<usize> {
        self.rows.iter().map(|row| row.len).collect()
    }

    /// Keeps only these rows, in this order; finished ones stop costing anything.
    ///
    /// # Panics
    ///
    /// Panics if no row is left, or if an index is not a row.
    pub fn keep_rows(&mut self, row_indices: &[usize]) {
        assert!(!row_indices.is_empty(), "a cache needs at least one row");
        self.rows = row_indices
            .iter()
            .map(|&row_idx| self.rows[row_idx].clone())
            .collect();
        for buffers in self.layers.iter_mut().flatten() {
            let indices = index_tensor(row_indices.iter().copied(), &buffers.key.device());
            buffers.key = buffers.key.clone().select(0, indices.clone());
            buffers.value = buffers.value.clone().select(0, indices);
        }
    }

    /// Makes room for `seq_len` new tokens a row and says where they are.
    pub(crate) fn begin(&mut self, seq_len: usize, device: &Device) -> CacheStep {
        let first_slot = self.num_slots;
        let is_prompt = first_slot == 0;
        self.num_slots += seq_len;
        self.capacity = self.num_slots.next_multiple_of(SLOT_BLOCK);
        let positions = self
            .rows
            .iter_mut()
            .map(|row| row.extend(seq_len, is_prompt))
            .collect();
        let mask = if is_prompt {
            AttentionMask::causal(seq_len, device)
        } else {
            self.hidden_slots(first_slot, seq_len, device)
        };
        CacheStep {
            positions,
            mask,
            first_slot,
        }
    }

    fn extend(
        &mut self,
        layer_idx: usize,
        step: &CacheStep,
        key: Tensor<4>,
        value: Tensor<4>,
    ) -> (Tensor<4>, Tensor<4>) {
        let [batch, num_kv_heads, seq_len, head_dim] = key.dims();
        assert_shape!(value, [batch, num_kv_heads, seq_len, head_dim]);
        assert_eq!(
            batch,
            self.rows.len(),
            "the batch has {batch} rows, the cache {}",
            self.rows.len()
        );
        if step.first_slot == 0 {
            let room = Tensor::zeros(
                [batch, num_kv_heads, self.capacity, head_dim],
                &key.device(),
            );
            self.layers.push(Some(LayerBuffers {
                key: write(room.clone(), key.clone(), 0),
                value: write(room, value.clone(), 0),
            }));
            // The prompt looks only at itself, and without the empty slots.
            return (key, value);
        }
        // Taken out, a buffer has one owner and is written in place.
        let buffers = self.layers[layer_idx]
            .take()
            .expect("buffers are put back below");
        let key = write(grown(buffers.key, self.capacity), key, step.first_slot);
        let value = write(grown(buffers.value, self.capacity), value, step.first_slot);
        self.layers[layer_idx] = Some(LayerBuffers {
            key: key.clone(),
            value: value.clone(),
        });
        (key, value)
    }

    /// The mask of new tokens: they see the real tokens of their row up to themselves.
    fn hidden_slots(&self, first_slot: usize, seq_len: usize, device: &Device) -> AttentionMask {
        let hidden: Vec<bool> = self
            .rows
            .iter()
            .flat_map(|row| {
                (first_slot..first_slot + seq_len).flat_map(move |own_slot| {
                    (0..self.capacity).map(move |slot| slot > own_slot || !row.is_real[slot])
                })
            })
            .collect();
        let shape = [self.rows.len(), 1, seq_len, self.capacity];
        AttentionMask::Hidden(Tensor::<4, Bool>::from_data(
            TensorData::new(hidden, shape),
            device,
        ))
    }
}

impl RowSlots {
    /// Adds the slots of a pass and answers with the positions of its tokens.
    fn extend(&mut self, seq_len: usize, is_prompt: bool) -> Vec<usize> {
        let num_real = if is_prompt { self.prompt_len } else { seq_len };
        assert!(
            num_real <= seq_len,
            "a prompt of {num_real} tokens came as {seq_len}"
        );
        self.is_real
            .extend((0..seq_len).map(|token_idx| token_idx < num_real));
        // Padding repeats the last real position, so that it never leaves a table of positions.
        let positions = (0..seq_len)
            .map(|token_idx| self.len + token_idx.min(num_real - 1))
            .collect();
        self.len += num_real;
        positions
    }
}

/// The buffer with room for `capacity` slots.
fn grown(buffer: Tensor<4>, capacity: usize) -> Tensor<4> {
    let [batch, num_kv_heads, old_capacity, head_dim] = buffer.dims();
    if old_capacity == capacity {
        return buffer;
    }
    let room = Tensor::zeros(
        [batch, num_kv_heads, capacity - old_capacity, head_dim],
        &buffer.device(),
    );
    Tensor::cat(vec![buffer, room], 2)
}

/// The buffer with `new` from `first_slot` on.
fn write(buffer: Tensor<4>, new: Tensor<4>, first_slot: usize) -> Tensor<4> {
    let [batch, num_kv_heads, seq_len, head_dim] = new.dims();
    let slots = first_slot..first_slot + seq_len;
    buffer.slice_assign([0..batch, 0..num_kv_heads, slots, 0..head_dim], new)
}
