//! Grouped rows: embeddings, conditions of batches, and the states from which they are scored.

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use chameleon_cluster::BatchPlan;
use chameleon_hypernet::LayerFactors;

use super::masked::{self, Visibility};
use super::rows::{PublishedLoss, PublishedRow, RowOptions};
use crate::adapter::prompts::embed_prompts;
use crate::families::causal_lm::CausalLm;
use crate::families::indices::index_tensor;
use crate::families::language_model::LanguageModel;
use crate::files::fingerprint::Fingerprint;
use crate::training::grouped_examples::{
    CacheProgress, Proceed, StateRequest, WantedStates, cache_requested_states,
};
use crate::training::hidden_cache::{HiddenCache, HiddenCacheError, RowType};

/// Grouped rows.
#[derive(Debug, Clone)]
pub struct PublishedData {
    /// The rows.
    pub rows: Vec<PublishedRow>,
    /// Which rows are processed together; a batch never spans clusters.
    pub plan: BatchPlan,
    /// `[batches, hidden]`, the mean embedding of the rows of each batch.
    pub conditions: Tensor<2>,
}

impl PublishedData {
    /// Computes the mean embedding of every batch.
    ///
    /// # Shapes
    ///
    /// - `embeddings`: `[rows, hidden]`
    ///
    /// # Panics
    ///
    /// When there is no batch, or one names a row that is not there.
    pub fn new(rows: Vec<PublishedRow>, embeddings: &Tensor<2>, plan: BatchPlan) -> Self {
        let device = embeddings.device();
        let means = plan
            .batches
            .iter()
            .map(|batch| {
                let indices = index_tensor(batch.rows.iter().copied(), &device);
                embeddings.clone().select(0, indices).mean_dim(0)
            })
            .collect();
        Self {
            conditions: Tensor::cat(means, 0),
            rows,
            plan,
        }
    }

    /// The target tokens of the rows of a batch, one row after the other.
    ///
    /// # Shapes
    ///
    /// - output: `[rows]`
    pub(crate) fn targets(&self, batch_idx: usize, device: &Device) -> Tensor<1, Int> {
        let ids: Vec<i64> = self.plan.batches[batch_idx]
            .rows
            .iter()
            .flat_map(|&row| self.rows[row].targets())
            .map(|&id| i64::from(id))
            .collect();
        let num_rows = ids.len();
        Tensor::from_data(TensorData::new(ids, [num_rows]), device)
    }
}

/// Embeds rows: the unit-norm mean of the embeddings of their pooled tokens, zero for a row without any.
///
/// # Shapes
///
/// - output: `[rows, hidden]`
///
/// # Panics
///
/// When there is no row.
pub fn embed_rows(model: &impl CausalLm, rows: &[PublishedRow]) -> Tensor<2> {
    let any_token: &[u32] = &[0];
    let prompts: Vec<&[u32]> = rows
        .iter()
        .map(|row| {
            if row.pooled().is_empty() {
                any_token
            } else {
                row.pooled()
            }
        })
        .collect();
    let kept: Vec<f32> = rows
        .iter()
        .map(|row| if row.pooled().is_empty() { 0.0 } else { 1.0 })
        .collect();
    let embeddings = embed_prompts(model, &prompts);
    let kept = Tensor::<2>::from_data(TensorData::new(kept, [rows.len(), 1]), &embeddings.device());
    embeddings * kept
}

/// Rows with the same tokens share their states: in WikiText-2 every third row is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateIndex {
    /// The first row of each kind.
    distinct: Vec<usize>,
    /// For every row, the index into `distinct` of the row with the same tokens.
    index: Vec<usize>,
}

impl StateIndex {
    /// Finds the rows with the same tokens.
    pub fn of(rows: &[PublishedRow]) -> Self {
        let mut seen = HashMap::new();
        let mut distinct = Vec::new();
        let index = rows
            .iter()
            .enumerate()
            .map(|(row_idx, row)| {
                *seen.entry(row.request()).or_insert_with(|| {
                    distinct.push(row_idx);
                    distinct.len() - 1
                })
            })
            .collect();
        Self { distinct, index }
    }

    /// The number of distinct rows, whose states are computed.
    pub fn num_distinct(&self) -> usize {
        self.distinct.len()
    }

    fn requests<'a>(&self, rows: &'a [PublishedRow]) -> Vec<StateRequest<'a>> {
        self.distinct
            .iter()
            .map(|&row| rows[row].request())
            .collect()
    }
}

/// The source of the states of a batch.
#[derive(Debug, Clone, Copy)]
pub enum PublishedStates<'a> {
    /// From the cache: only the head is trained.
    Cached {
        /// The states of the distinct rows.
        cache: &'a HiddenCache,
        /// The distinct row of each row.
        index: &'a StateIndex,
    },
    /// All layers are run.
    Layers {
        /// The model, frozen and off the autodiff device.
        model: &'a LanguageModel,
        /// Which tokens attention masks.
        visibility: Visibility,
    },
}

impl PublishedStates<'_> {
    /// The states of one batch.
    ///
    /// # Shapes
    ///
    /// - output: `[rows, hidden]`
    ///
    /// # Panics
    ///
    /// When a layer is adapted and the states are cached.
    pub(crate) fn of_batch(
        &self,
        data: &PublishedData,
        batch_idx: usize,
        factors: &LayerFactors,
        device: &Device,
    ) -> Tensor<2> {
        let rows = &data.plan.batches[batch_idx].rows;
        match *self {
            PublishedStates::Cached { cache, index } => {
                assert!(
                    factors.first_layer().is_none(),
                    "cached states are of layers without adaptation"
                );
                let distinct: Vec<usize> = rows.iter().map(|&row| index.index[row]).collect();
                cache.gather(&distinct, device)
            }
            PublishedStates::Layers { model, visibility } => {
                let requests: Vec<StateRequest<'_>> =
                    rows.iter().map(|&row| data.rows[row].request()).collect();
                masked::hidden_states(model, &requests, visibility, factors)
            }
        }
    }
}

/// The fingerprint of the cached states of these rows.
pub fn published_fingerprint(
    model_fingerprint: &str,
    rows: &[PublishedRow],
    index: &StateIndex,
    options: &RowOptions,
) -> Fingerprint {
    let bytes = |ids: &mut dyn Iterator<Item = u64>| -> Vec<u8> {
        ids.flat_map(u64::to_le_bytes).collect()
    };
    let visibility = format!("{:?}", options.visibility());
    let builder = Fingerprint::builder()
        .part("model", model_fingerprint.as_bytes())
        .part("visibility", visibility.as_bytes());
    index
        .requests(rows)
        .iter()
        .fold(builder, |builder, request| {
            let ids = &mut request.token_ids.iter().map(|&id| u64::from(id));
            let positions = &mut request.positions.iter().map(|&position| position as u64);
            builder
                .part("tokens", &bytes(ids))
                .part("positions", &bytes(positions))
        })
        .finish()
}

/// Computes the states of all distinct rows once, or reads them from `folder`.
///
/// Returns `None` when `observe` returned [`Proceed::Stop`]; written chunks are kept.
///
/// # Errors
///
/// When the cache cannot be written, or a state is not finite.
pub fn cache_published_states(
    model: &LanguageModel,
    fingerprint: Fingerprint,
    rows: &[PublishedRow],
    index: &StateIndex,
    options: &RowOptions,
    folder: &Path,
    observe: impl FnMut(CacheProgress) -> Proceed,
) -> Result<Option<HiddenCache>, HiddenCacheError> {
    let wanted = WantedStates {
        fingerprint,
        requests: &index.requests(rows),
        hidden_size: model.sizes().hidden_size,
        // One state for each row needs little space; one for each token needs much.
        row_type: match options.loss {
            PublishedLoss::Last => RowType::F32,
            PublishedLoss::Full => RowType::F16,
        },
    };
    let visibility = options.visibility();
    let states_of = |requests: &[StateRequest<'_>]| {
        masked::hidden_states(model, requests, visibility, &LayerFactors::none())
    };
    cache_requested_states(wanted, states_of, folder, observe)
}
