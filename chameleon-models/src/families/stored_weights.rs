//! Weights that stay as the file of the model stores them.
//!
//! They are decoded where they are multiplied, so results are those of f32 weights but for rounding, and each
//! row is computed in one order of addition whatever the number of rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::module::Param;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Int, Tensor, TensorData};
use chameleon_core::stored::StoredMatrix;
use chameleon_core::{FrozenWeight, fused};
use sha2::{Digest as _, Sha256};

/// How the weights of a model are stored in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightStorage {
    /// As the file stores them, which is mapped into memory. On devices other than flex as f32.
    #[default]
    Stored,
    /// Dequantised to f32.
    F32,
}

/// The weights of a model that stay as they are stored. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoredWeights {
    /// By layer and path; two maps, so that a look-up needs no owned key.
    layers: Arc<BTreeMap<usize, BTreeMap<String, StoredMatrix>>>,
    /// `[vocab, hidden]`
    pub(crate) embedding: Option<StoredMatrix>,
    /// `[vocab, hidden]`
    pub(crate) head: Option<StoredMatrix>,
}

impl StoredWeights {
    pub(crate) fn new(
        modules: impl IntoIterator<Item = ((usize, String), StoredMatrix)>,
        embedding: Option<StoredMatrix>,
        head: Option<StoredMatrix>,
    ) -> Self {
        let mut layers: BTreeMap<usize, BTreeMap<String, StoredMatrix>> = BTreeMap::new();
        for ((layer_idx, path), matrix) in modules {
            layers.entry(layer_idx).or_default().insert(path, matrix);
        }
        Self {
            layers: Arc::new(layers),
            embedding,
            head,
        }
    }

    /// A linear module of a layer, if it is stored.
    pub(crate) fn module(&self, layer_idx: usize, path: &str) -> Option<&StoredMatrix> {
        self.layers.get(&layer_idx)?.get(path)
    }

    /// The embeddings of tokens: `[batch, seq]` -> `[batch, seq, hidden]`. `dense` serves if the embedding is not stored.
    ///
    /// # Panics
    ///
    /// When the embedding has no such token.
    pub(crate) fn embed(&self, token_ids: Tensor<2, Int>, dense: &Embedding) -> Tensor<3> {
        let Some(embedding) = &self.embedding else {
            return dense.forward(token_ids);
        };
        let [batch_size, seq_len] = token_ids.dims();
        let device = token_ids.device();
        let data = token_ids.into_data();
        let rows = data
            .iter::<i64>()
            .map(|id| usize::try_from(id).expect("token ids are not negative"));
        let shape = [batch_size, seq_len, embedding.in_size()];
        Tensor::from_data(TensorData::new(embedding.rows(rows), shape), &device)
    }

    /// The weight of the head, `[hidden, vocab]`; `embedding` and `head` serve if it is not stored.
    pub(crate) fn head_weight(&self, embedding: &Embedding, head: Option<&Linear>) -> FrozenWeight {
        match (&self.head, head) {
            (Some(matrix), _) => FrozenWeight::Stored {
                matrix: matrix.clone(),
                device: embedding.weight.device(),
            },
            (None, Some(head)) => head.weight.val().into(),
            (None, None) => embedding.weight.val().transpose().into(),
        }
    }

    /// Logits of the frozen head: `[rows, hidden]` -> `[rows, vocab]`. `embedding` and `head` serve if it is not stored.
    pub(crate) fn logits(
        &self,
        hidden: Tensor<2>,
        embedding: &Embedding,
        head: Option<&Linear>,
    ) -> Tensor<2> {
        match (&self.head, head) {
            (Some(_), _) => fused::frozen_product(hidden, &self.head_weight(embedding, head)),
            (None, Some(head)) => head.forward(hidden),
            (None, None) => tied_logits(hidden, embedding.weight.val()),
        }
    }

    /// The number of values of all of them.
    pub(crate) fn num_values(&self) -> usize {
        let size = |matrix: &StoredMatrix| matrix.in_size() * matrix.out_size();
        self.matrices().map(size).sum()
    }

    /// Adds all of them, as they are stored, to a digest.
    pub(crate) fn update(&self, digest: &mut Sha256) {
        for matrix in self.matrices() {
            digest.update(matrix.dtype().to_string());
            digest.update(matrix.out_size().to_le_bytes());
            digest.update(matrix.in_size().to_le_bytes());
            digest.update(matrix.bytes());
        }
    }

    /// Each once: a head that is the embedding does not count.
    fn matrices(&self) -> impl Iterator<Item = &StoredMatrix> {
        let head = self.head.as_ref().filter(|head| {
            let embedding = self.embedding.as_ref();
            embedding.is_none_or(|embedding| !std::ptr::eq(embedding.bytes(), head.bytes()))
        });
        let modules = self.layers.values().flat_map(BTreeMap::values);
        modules.chain(&self.embedding).chain(head)
    }
}

/// Empties a tensor in whose place a stored weight is used.
pub(crate) fn replace(stored: Option<&StoredMatrix>, weight: &mut Param<Tensor<2>>) {
    if stored.is_some() {
        *weight = Param::from_tensor(Tensor::empty([0, 0], &weight.lazy_device()));
    }
}

/// Logits of a head that is the embedding, `[vocab, hidden]`.
fn tied_logits(hidden: Tensor<2>, embedding: Tensor<2>) -> Tensor<2> {
    /// For a few rows, walking along the rows of the embedding once beats walking across them.
    const FEW_ROWS: std::ops::RangeInclusive<usize> = 2..=32;
    let [num_rows, _] = hidden.dims();
    if FEW_ROWS.contains(&num_rows) {
        embedding.matmul(hidden.transpose()).transpose()
    } else {
        hidden.matmul(embedding.transpose())
    }
}
