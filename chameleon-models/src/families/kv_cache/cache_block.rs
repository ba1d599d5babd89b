//! A block of the KV cache: buffers for rows of about the same length.

use burn::tensor::{Device, IndexingUpdateOp, Tensor};

use crate::families::indices::index_tensor;

/// A row of a [`KvCache`](super::KvCache).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheRow(pub(super) u64);

/// The sizes of a block that never change.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockShape {
    pub(super) num_layers: usize,
    pub(super) num_kv_heads: usize,
    /// Tokens a row has room for.
    pub(super) num_slots: usize,
    pub(super) head_dim: usize,
}

/// Rows side by side without gaps, so that a step over all of them copies nothing.
#[derive(Debug)]
pub(super) struct CacheBlock {
    pub(super) shape: BlockShape,
    /// The row of each place.
    rows: Vec<CacheRow>,
    layers: Vec<LayerBuffers>,
    /// Rows for which the buffers have room.
    num_places: usize,
}

/// Keys and values of one layer, `[places * kv_heads * slots, head_dim]` each. Slots without a token are zero, so that
/// no value of a former row reaches another.
#[derive(Debug)]
struct LayerBuffers {
    key: Option<Tensor<2>>,
    value: Option<Tensor<2>>,
}

/// Keys and values of one layer and row, `[kv_heads * slots, head_dim]` each.
#[derive(Debug)]
pub(super) struct RowTensors {
    key: Tensor<2>,
    value: Tensor<2>,
    num_slots: usize,
}

impl CacheBlock {
    pub(super) fn new(shape: BlockShape, device: &Device) -> Self {
        let empty = || Some(Tensor::zeros([shape.place_len(), shape.head_dim], device));
        let layers = (0..shape.num_layers)
            .map(|_| LayerBuffers {
                key: empty(),
                value: empty(),
            })
            .collect();
        Self {
            shape,
            rows: Vec::new(),
            layers,
            num_places: 1,
        }
    }

    pub(super) fn num_rows(&self) -> usize {
        self.rows.len()
    }

    /// Tokens for which there is room.
    pub(super) fn capacity(&self) -> usize {
        self.num_places * self.shape.num_slots
    }

    /// Puts a row in the block, with its tensors from another block, if it had one; returns its place.
    pub(super) fn add(&mut self, row: CacheRow, kept: Option<Vec<RowTensors>>) -> usize {
        let place_idx = self.rows.len();
        self.rows.push(row);
        if self.rows.len() > self.num_places {
            self.num_places *= 2;
            let len = self.num_places * self.shape.place_len();
            for buffer in self.buffers() {
                let old = buffer.take().expect("buffers are put back");
                let [old_len, head_dim] = old.dims();
                let room = Tensor::zeros([len, head_dim], &old.device());
                *buffer = Some(room.slice_assign([0..old_len, 0..head_dim], old));
            }
        }
        for (layer_idx, kept) in kept.into_iter().flatten().enumerate() {
            let shape = self.shape;
            let rows = (0..shape.num_kv_heads).flat_map(|head_idx| {
                (0..kept.num_slots).map(move |slot| shape.row_of(place_idx, head_idx, slot))
            });
            let rows = index_tensor(rows, &kept.key.device());
            let layer = &mut self.layers[layer_idx];
            assign(&mut layer.key, rows.clone(), kept.key);
            assign(&mut layer.value, rows, kept.value);
        }
        place_idx
    }

    /// A copy of the tensors of a row, layer by layer.
    pub(super) fn read(&self, place_idx: usize) -> Vec<RowTensors> {
        let copy = |buffer: &Option<Tensor<2>>| {
            // A copy and no view: a view would keep the buffer from being written in place.
            let buffer = buffer.as_ref().expect("buffers are put back");
            let rows = place_idx * self.shape.place_len()..(place_idx + 1) * self.shape.place_len();
            buffer
                .clone()
                .select(0, index_tensor(rows, &buffer.device()))
        };
        self.layers
            .iter()
            .map(|layer| RowTensors {
                key: copy(&layer.key),
                value: copy(&layer.value),
                num_slots: self.shape.num_slots,
            })
            .collect()
    }

    /// Takes a row out of the block; returns the row that moved to its place.
    pub(super) fn remove(&mut self, place_idx: usize) -> Option<CacheRow> {
        let last_idx = self.rows.len() - 1;
        self.rows.swap_remove(place_idx);
        if self.rows.is_empty() {
            // The caller drops a block without rows.
            return None;
        }
        let place_len = self.shape.place_len();
        let moved = (place_idx != last_idx).then(|| self.read(last_idx));
        let mut moved = moved.into_iter().flatten();
        for layer in &mut self.layers {
            let moved = moved.next();
            let (key, value) = moved.map_or((None, None), |row| (Some(row.key), Some(row.value)));
            for (buffer, moved) in [(&mut layer.key, key), (&mut layer.value, value)] {
                let mut whole = buffer.take().expect("buffers are put back");
                let [_, head_dim] = whole.dims();
                let place = |idx: usize| [idx * place_len..(idx + 1) * place_len, 0..head_dim];
                if let Some(moved) = moved {
                    whole = whole.slice_assign(place(place_idx), moved);
                }
                *buffer = Some(whole.slice_fill(place(last_idx), 0.0));
            }
        }
        (place_idx != last_idx).then(|| self.rows[place_idx])
    }

    /// Stores keys and values of new tokens, `[kv_heads * tokens, head_dim]`, in these rows of the buffers.
    pub(super) fn store(
        &mut self,
        layer_idx: usize,
        rows: &Tensor<1, burn::tensor::Int>,
        key: Tensor<2>,
        value: Tensor<2>,
    ) {
        let layer = &mut self.layers[layer_idx];
        assign(&mut layer.key, rows.clone(), key);
        assign(&mut layer.value, rows.clone(), value);
    }

    /// Keys and values of `num_places` rows from `first_place` on, `[rows, kv_heads, slots, head_dim]`.
    pub(super) fn view(
        &self,
        layer_idx: usize,
        first_place: usize,
        num_places: usize,
    ) -> (Tensor<4>, Tensor<4>) {
        let place_len = self.shape.place_len();
        let view = |buffer: &Option<Tensor<2>>| {
            buffer
                .as_ref()
                .expect("buffers are put back")
                .clone()
                .narrow(0, first_place * place_len, num_places * place_len)
                .reshape([
                    num_places,
                    self.shape.num_kv_heads,
                    self.shape.num_slots,
                    self.shape.head_dim,
                ])
        };
        let layer = &self.layers[layer_idx];
        (view(&layer.key), view(&layer.value))
    }

    fn buffers(&mut self) -> impl Iterator<Item = &mut Option<Tensor<2>>> {
        self.layers
            .iter_mut()
            .flat_map(|layer| [&mut layer.key, &mut layer.value])
    }
}

impl BlockShape {
    /// Rows of a buffer that belong to one row of the batch.
    fn place_len(self) -> usize {
        self.num_kv_heads * self.num_slots
    }

    /// Where in a buffer a token's key lies.
    pub(super) fn row_of(self, place_idx: usize, head_idx: usize, slot: usize) -> usize {
        (place_idx * self.num_kv_heads + head_idx) * self.num_slots + slot
    }
}

/// Writes rows of a buffer. Taken out, it has one owner and is written in place.
fn assign(buffer: &mut Option<Tensor<2>>, rows: Tensor<1, burn::tensor::Int>, values: Tensor<2>) {
    let whole = buffer.take().expect("buffers are put back");
    *buffer = Some(whole.select_assign(0, rows, values, IndexingUpdateOp::Assign));
}
