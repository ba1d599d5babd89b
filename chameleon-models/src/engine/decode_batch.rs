//! The rows of a batch: prompts in prefill, chunk by chunk, and rows that decode.
//!
//! Defines the steps from token ids to the hidden states that predict the next tokens. Heads, sampling and
//! text are handled by the caller.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use chameleon_hypernet::GroupLayers;

use crate::families::causal_lm::CausalLm;
use crate::families::indices::index_tensor;
use crate::families::kv_cache::{CacheRow, KvCache, MIN_PRODUCT_ROWS, Segment};
use crate::families::sizes::ModelSizes;

/// The rows that run together, by the keys of their owner.
#[derive(Debug)]
pub(crate) struct DecodeBatch<K> {
    cache: KvCache,
    /// In the order in which they were added.
    rows: Vec<BatchRow<K>>,
}

#[derive(Debug)]
struct BatchRow<K> {
    key: K,
    cache_row: CacheRow,
    /// The prompt, then the token that was sampled last.
    pending: Vec<u32>,
    /// How many of these are in the cache.
    num_cached: usize,
    stage: Stage,
    /// The change of the layers for it.
    layers: Option<GroupLayers>,
    /// The layer whose incoming states are returned where a token is sampled.
    tapped_layer: Option<usize>,
}

/// A row to add.
#[derive(Debug, Default)]
pub(crate) struct NewRow {
    /// At least one token.
    pub(crate) prompt: Vec<u32>,
    /// The change of the layers for it.
    pub(crate) layers: Option<GroupLayers>,
    /// The layer whose incoming states are returned where a token is sampled.
    pub(crate) tapped_layer: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Some of its prompt is not in the cache yet.
    Prefill,
    /// Its next token is about to be sampled.
    Sampling,
    /// It continues with the sampled token.
    Decode,
}

/// The result of a pass.
#[derive(Debug)]
pub(crate) struct BatchStep<K> {
    /// The rows whose next token can be sampled.
    pub(crate) keys: Vec<K>,
    /// Their last hidden states; `None` if there are no such rows. `[keys, hidden]`
    pub(crate) hidden: Option<Tensor<2>>,
    /// Their states as they entered each layer that one of them taps, `[keys, hidden]`.
    pub(crate) entering: BTreeMap<usize, Tensor<2>>,
    /// Prompt tokens of the pass.
    pub(crate) num_prompt_tokens: usize,
    /// Rows that advanced by one token.
    pub(crate) num_decoded: usize,
}

impl<K: Copy + PartialEq> DecodeBatch<K> {
    pub(crate) fn new(sizes: &ModelSizes, device: &Device) -> Self {
        Self {
            cache: KvCache::new(sizes, device),
            rows: Vec::new(),
        }
    }

    /// A row that continues a prompt.
    pub(crate) fn add(&mut self, key: K, row: NewRow) {
        self.rows.push(BatchRow {
            key,
            cache_row: self.cache.add_row(),
            pending: row.prompt,
            num_cached: 0,
            stage: Stage::Prefill,
            layers: row.layers,
            tapped_layer: row.tapped_layer,
        });
    }

    /// Adds the token that was sampled for a row after [`step`](Self::step) named it.
    pub(crate) fn push(&mut self, key: K, token_id: u32) {
        let row = self.row_mut(key).expect("only rows of the batch go on");
        row.pending.clear();
        row.pending.push(token_id);
        row.num_cached = 0;
        row.stage = Stage::Decode;
    }

    /// Removes a row, if it exists.
    pub(crate) fn remove(&mut self, key: K) {
        if let Some(row_idx) = self.rows.iter().position(|row| row.key == key) {
            let row = self.rows.remove(row_idx);
            self.cache.remove_row(row.cache_row);
        }
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = K> {
        self.rows.iter().map(|row| row.key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Tokens in the KV cache.
    pub(crate) fn num_tokens(&self) -> usize {
        self.cache.num_tokens()
    }

    /// One pass: every decoding row advances by its token, and about `prefill_chunk` prompt tokens are prefilled, the
    /// oldest first.
    ///
    /// Prompts are cut at multiples of `prefill_chunk` from their own start, even where there would be room for more, so
    /// that the result of a row does not depend on the other rows.
    ///
    /// Does nothing when every row waits for a token to be sampled.
    pub(crate) fn step<M: CausalLm + ?Sized>(
        &mut self,
        model: &M,
        prefill_chunk: usize,
    ) -> BatchStep<K> {
        let mut segments = Vec::new();
        let mut last_tokens = Vec::new();
        let mut tapped_layers = Vec::new();
        let mut step = BatchStep {
            keys: Vec::new(),
            hidden: None,
            entering: BTreeMap::new(),
            num_prompt_tokens: 0,
            num_decoded: 0,
        };
        let mut num_tokens = 0;
        for row in &mut self.rows {
            let rest = row.pending.len() - row.num_cached;
            let len = match row.stage {
                Stage::Sampling => continue,
                Stage::Decode => rest,
                Stage::Prefill => {
                    let len = rest.min(prefill_chunk);
                    let is_first = step.num_prompt_tokens == 0;
                    if !is_first && step.num_prompt_tokens + len > prefill_chunk {
                        continue;
                    }
                    step.num_prompt_tokens += len;
                    len
                }
            };
            step.num_decoded += usize::from(row.stage == Stage::Decode);
            segments.push(Segment {
                row: row.cache_row,
                token_ids: &row.pending[row.num_cached..row.num_cached + len],
                layers: row.layers.as_ref(),
            });
            row.num_cached += len;
            num_tokens += len;
            if len == rest {
                row.stage = Stage::Sampling;
                step.keys.push(row.key);
                tapped_layers.extend(row.tapped_layer);
                last_tokens.push(num_tokens - 1);
            }
        }
        if segments.is_empty() {
            return step;
        }
        let states = model.states_with_cache(&segments, &mut self.cache, &tapped_layers);
        if last_tokens.len() == num_tokens {
            step.hidden = Some(states.hidden);
            step.entering = states.entering;
        } else if !last_tokens.is_empty() {
            let last_tokens = index_tensor(last_tokens, &states.hidden.device());
            let last = |states: Tensor<2>| states.select(0, last_tokens.clone());
            step.hidden = Some(last(states.hidden));
            let entering = states.entering.into_iter();
            step.entering = entering
                .map(|(layer_idx, states)| (layer_idx, last(states)))
                .collect();
        }
        step
    }

    fn row_mut(&mut self, key: K) -> Option<&mut BatchRow<K>> {
        self.rows.iter_mut().find(|row| row.key == key)
    }
}

/// Repeats rows until products no longer depend on their number; the caller ignores the added ones.
///
/// # Shapes
///
/// - `rows`: `[rows, hidden]`
/// - output: `[rows or more, hidden]`
pub(crate) fn enough_rows(rows: Tensor<2>) -> Tensor<2> {
    let [num_rows, _] = rows.dims();
    if num_rows >= MIN_PRODUCT_ROWS {
        rows
    } else {
        rows.repeat_dim(0, MIN_PRODUCT_ROWS)
    }
}

/// Values of a tensor in host memory, row by row.
pub(crate) fn on_host(tensor: Tensor<2>) -> Vec<f32> {
    let data: TensorData = tensor.into_data();
    data.convert::<f32>()
        .try_into_vec()
        .expect("the data was just converted to f32")
}
