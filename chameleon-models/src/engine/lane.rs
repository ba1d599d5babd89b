//! Rows that run through one transformer: prompts that are being read, piece by piece, and rows that write.
//!
//! Owns what happens between token ids and the hidden states of the tokens that come next. Heads, sampling and
//! text are the caller's.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use chameleon_hypernet::GroupLayers;

use crate::families::causal_lm::{CausalLm, ModelSizes};
use crate::families::indices::index_tensor;
use crate::families::kv_cache::{CacheRow, KvCache, MIN_PRODUCT_ROWS, Segment};

/// Rows, by the keys their owner gave them.
#[derive(Debug)]
pub(crate) struct Lane<K> {
    cache: KvCache,
    /// In the order in which they came.
    rows: Vec<LaneRow<K>>,
}

#[derive(Debug)]
struct LaneRow<K> {
    key: K,
    cache_row: CacheRow,
    /// The prompt, then the token that was chosen last.
    unread: Vec<u32>,
    /// How many of these are read.
    num_read: usize,
    stage: Stage,
    /// What is changed inside the layers for it.
    layers: Option<GroupLayers>,
    /// The layer whose incoming states are wanted where a token is chosen.
    tapped_layer: Option<usize>,
}

/// A row that is to be added.
#[derive(Debug, Default)]
pub(crate) struct NewRow {
    /// At least one token.
    pub(crate) prompt: Vec<u32>,
    /// What is changed inside the layers for it.
    pub(crate) layers: Option<GroupLayers>,
    /// The layer whose incoming states are wanted where a token is chosen.
    pub(crate) tapped_layer: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its prompt is being read.
    Reading,
    /// A token is about to be chosen.
    Choosing,
    /// It goes on by the token that was chosen.
    Writing,
}

/// What a pass found out.
#[derive(Debug)]
pub(crate) struct LaneStep<K> {
    /// The rows whose next token can be chosen.
    pub(crate) keys: Vec<K>,
    /// Their last hidden states; nothing if no row is that far. `[keys, hidden]`
    pub(crate) hidden: Option<Tensor<2>>,
    /// Their states as they entered each layer that one of them taps, `[keys, hidden]`.
    pub(crate) entering: BTreeMap<usize, Tensor<2>>,
    /// Prompt tokens that were read.
    pub(crate) num_prompt_tokens: usize,
    /// Rows that went on by one token.
    pub(crate) num_writing: usize,
}

impl<K: Copy + PartialEq> Lane<K> {
    pub(crate) fn new(sizes: &ModelSizes, device: &Device) -> Self {
        Self {
            cache: KvCache::new(sizes, device),
            rows: Vec::new(),
        }
    }

    /// A row that continues a prompt.
    pub(crate) fn add(&mut self, key: K, row: NewRow) {
        self.rows.push(LaneRow {
            key,
            cache_row: self.cache.add_row(),
            unread: row.prompt,
            num_read: 0,
            stage: Stage::Reading,
            layers: row.layers,
            tapped_layer: row.tapped_layer,
        });
    }

    /// The token that was chosen for a row after [`step`](Self::step) named it.
    pub(crate) fn push(&mut self, key: K, token_id: u32) {
        let row = self.row_mut(key).expect("only rows of the lane go on");
        row.unread.clear();
        row.unread.push(token_id);
        row.num_read = 0;
        row.stage = Stage::Writing;
    }

    /// Forgets a row; one that is not there is forgotten already.
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

    /// Tokens whose keys and values are kept.
    pub(crate) fn num_tokens(&self) -> usize {
        self.cache.num_tokens()
    }

    /// One pass: every row that writes goes on by its token, and of the prompts about `prefill_chunk` tokens are read,
    /// the oldest first.
    ///
    /// Prompts are cut at multiples of `prefill_chunk` from their own start, wherever else there would be room, so
    /// that what a row gets does not depend on the others.
    ///
    /// Does nothing when every row waits for a token to be chosen.
    pub(crate) fn step<M: CausalLm + ?Sized>(
        &mut self,
        model: &M,
        prefill_chunk: usize,
    ) -> LaneStep<K> {
        let mut segments = Vec::new();
        let mut last_tokens = Vec::new();
        let mut tapped_layers = Vec::new();
        let mut step = LaneStep {
            keys: Vec::new(),
            hidden: None,
            entering: BTreeMap::new(),
            num_prompt_tokens: 0,
            num_writing: 0,
        };
        let mut num_tokens = 0;
        for row in &mut self.rows {
            let rest = row.unread.len() - row.num_read;
            let len = match row.stage {
                Stage::Choosing => continue,
                Stage::Writing => rest,
                Stage::Reading => {
                    let len = rest.min(prefill_chunk);
                    let is_first = step.num_prompt_tokens == 0;
                    if !is_first && step.num_prompt_tokens + len > prefill_chunk {
                        continue;
                    }
                    step.num_prompt_tokens += len;
                    len
                }
            };
            step.num_writing += usize::from(row.stage == Stage::Writing);
            segments.push(Segment {
                row: row.cache_row,
                token_ids: &row.unread[row.num_read..row.num_read + len],
                layers: row.layers.as_ref(),
            });
            row.num_read += len;
            num_tokens += len;
            if len == rest {
                row.stage = Stage::Choosing;
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

    fn row_mut(&mut self, key: K) -> Option<&mut LaneRow<K>> {
        self.rows.iter_mut().find(|row| row.key == key)
    }
}

/// Makes rows enough for products that do not depend on their number; the added ones are to be ignored.
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

/// Numbers of a tensor in host memory, row by row.
pub(crate) fn on_host(tensor: Tensor<2>) -> Vec<f32> {
    let data: TensorData = tensor.into_data();
    data.convert::<f32>()
        .try_into_vec()
        .expect("the data was just converted to f32")
}
