//! `memory.safetensors`: the memories of an adapter's groups, and their use for a next token.

use std::collections::BTreeSet;
use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData, f16};
use chameleon_hypernet::memory::{GroupMemory, KeyProjection, MemoryGate};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::config::{AdapterConfig, MemoryDescription};
use super::error::AdapterError;
use super::read;
use super::tensors::{check_names, finite_f32, mismatch};
use crate::adapter::group_memory::{GroupMemories, MemoryConfig};
use crate::families::indices::index_tensor;

/// The memories of an adapter's groups.
#[derive(Debug, Clone)]
pub struct AdapterMemory {
    /// Settings, size and gate.
    pub description: MemoryDescription,
    /// One memory for each group.
    pub memories: GroupMemories,
}

/// The next tokens of the entries that are similar to a state.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryMatch {
    /// The weight of the memory in the prediction, 0 to 1.
    pub weight: f64,
    /// Probabilities of the next token, `[vocab]`.
    pub probs: Vec<f32>,
}

impl AdapterMemory {
    /// A memory with its description.
    pub fn new(config: MemoryConfig, gate: MemoryGate, memories: GroupMemories) -> Self {
        Self {
            description: MemoryDescription {
                config,
                num_entries: memories.num_entries(),
                gate,
            },
            memories,
        }
    }

    /// Searches the memory of a group by a state.
    ///
    /// # Shapes
    ///
    /// - `state`: `[1, hidden]`, an input state of the memory's layer
    ///
    /// # Panics
    ///
    /// When there is no such group, or the state has another width.
    pub fn search(&self, group_idx: usize, state: Tensor<2>, vocab_size: usize) -> MemoryMatch {
        let device = state.device();
        let gate = &self.description.gate;
        let queries = self.memories.projection.keys(state);
        let similarities = self.memories.groups[group_idx].similarities(queries);
        let attention = similarities.attention(gate.temperature);
        let features = attention.gate_features();
        let logit = gate.logits(&features, index_tensor([group_idx], &device));
        // Beyond this, the weight is 0 or 1 in f32.
        let logit = logit.into_scalar::<f64>().clamp(-30.0, 30.0);
        let probs = attention.distribution(vocab_size).into_data();
        MemoryMatch {
            weight: 1.0 / (1.0 + (-logit).exp()),
            probs: probs
                .convert::<f32>()
                .try_into_vec()
                .expect("the data was just converted to f32"),
        }
    }
}

const MEAN: &str = "projection.mean";
const MAP: &str = "projection.map";
const KEYS: &str = "keys";
const NEXT_TOKENS: &str = "next_tokens";
const OFFSETS: &str = "offsets";

/// Above any fitted value, and products with states stay finite.
const LARGEST: f32 = 1e6;
/// Keys have length one, before they are rounded.
const LONGEST_SQUARED: f32 = 1.01;

/// # Panics
///
/// When a tensor cannot be read back from its device.
pub(super) fn memory_bytes(memory: &AdapterMemory) -> Vec<u8> {
    let GroupMemories { projection, groups } = &memory.memories;
    let hidden_size = projection.mean.dims()[0];
    let key_size = projection.key_size();
    let (mut keys, mut next_tokens) = (Vec::new(), Vec::new());
    let mut offsets = vec![0_u8; 8];
    let mut num_entries = 0;
    for group in groups {
        let halves = group.keys().to_data().convert::<f16>();
        keys.extend(halves.iter::<f16>().flat_map(f16::to_le_bytes));
        let tokens = group.next_tokens().to_data();
        next_tokens.extend(tokens.iter::<u32>().flat_map(u32::to_le_bytes));
        num_entries += group.num_entries();
        offsets.extend((num_entries as u64).to_le_bytes());
    }
    let floats = |data: TensorData| -> Vec<u8> {
        let data = data.convert::<f32>();
        data.iter::<f32>().flat_map(f32::to_le_bytes).collect()
    };
    let tensors = [
        (
            MEAN,
            Dtype::F32,
            vec![hidden_size],
            floats(projection.mean.val().into_data()),
        ),
        (
            MAP,
            Dtype::F32,
            vec![hidden_size, key_size],
            floats(projection.map.val().into_data()),
        ),
        (KEYS, Dtype::F16, vec![num_entries, key_size], keys),
        (NEXT_TOKENS, Dtype::U32, vec![num_entries], next_tokens),
        (OFFSETS, Dtype::U64, vec![groups.len() + 1], offsets),
    ];
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes)
            .expect("every tensor is as long as its shape says");
        (*name, view)
    });
    safetensors::serialize(views, None).expect("names are unique")
}

pub(super) fn load_memory(
    path: &Path,
    description: MemoryDescription,
    adapter: &AdapterConfig,
    device: &Device,
) -> Result<AdapterMemory, AdapterError> {
    let bytes = read(path)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|source| AdapterError::Tensors {
        path: path.to_owned(),
        source,
    })?;
    let expected = [MEAN, MAP, KEYS, NEXT_TOKENS, OFFSETS].map(str::to_owned);
    let found = file.names().into_iter().map(str::to_owned).collect();
    check_names(path, &BTreeSet::from(expected), &found)?;
    let file = MemoryFile { path, file };

    let hidden_size = adapter.base.sizes.hidden_size;
    let key_size = description.config.key_size;
    let mean = file.projection(MEAN, &[hidden_size])?;
    let map = file.projection(MAP, &[hidden_size, key_size])?;
    let offsets = file.offsets(adapter.num_clusters, description.config.max_entries)?;
    let num_entries = offsets[adapter.num_clusters];
    if num_entries != description.num_entries {
        let expected = description.num_entries;
        return Err(file.mismatch(format!(
            "`{OFFSETS}` ends at {num_entries}, the configuration says {expected}"
        )));
    }
    let next_tokens = file.next_tokens(num_entries, adapter.base.sizes.vocab_size)?;
    let keys = file.keys(num_entries, key_size)?;
    let groups = offsets.windows(2).map(|ends| {
        let (first, end) = (ends[0], ends[1]);
        let keys = keys[first * key_size..end * key_size].to_vec();
        let keys = TensorData::new(keys, [end - first, key_size]);
        GroupMemory::new(
            Tensor::from_data(keys, device),
            index_tensor(next_tokens[first..end].iter().copied(), device),
        )
    });
    Ok(AdapterMemory {
        memories: GroupMemories {
            projection: KeyProjection::stored(
                Tensor::from_data(TensorData::new(mean, [hidden_size]), device),
                Tensor::from_data(TensorData::new(map, [hidden_size, key_size]), device),
            ),
            groups: groups.collect(),
        },
        description,
    })
}

/// A file whose contents are validated.
struct MemoryFile<'a> {
    path: &'a Path,
    file: SafeTensors<'a>,
}

impl MemoryFile<'_> {
    fn view(
        &self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
    ) -> Result<TensorView<'_>, AdapterError> {
        let view = self.file.tensor(name);
        let view = view.map_err(|source| AdapterError::Tensors {
            path: self.path.to_owned(),
            source,
        })?;
        if view.dtype() == dtype && view.shape() == shape {
            return Ok(view);
        }
        Err(self.mismatch(format!(
            "`{name}` is {:?} {:?}, expected {dtype:?} {shape:?}",
            view.dtype(),
            view.shape()
        )))
    }

    fn projection(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, AdapterError> {
        let view = self.view(name, Dtype::F32, shape)?;
        let values = finite_f32(self.path, name, &view)?;
        if values.iter().any(|value| value.abs() > LARGEST) {
            return Err(self.mismatch(format!("`{name}` holds a number beyond {LARGEST}")));
        }
        Ok(values)
    }

    /// The offset of each group, and the end of the last one.
    fn offsets(&self, num_groups: usize, max_entries: usize) -> Result<Vec<usize>, AdapterError> {
        let view = self.view(OFFSETS, Dtype::U64, &[num_groups + 1])?;
        let offsets: Option<Vec<usize>> = chunks(view.data())
            .map(|bytes| usize::try_from(u64::from_le_bytes(bytes)).ok())
            .collect();
        let is_group = |ends: &[usize]| ends[0] < ends[1] && ends[1] - ends[0] <= max_entries;
        offsets
            .filter(|offsets| offsets[0] == 0 && offsets.windows(2).all(is_group))
            .ok_or_else(|| {
                self.mismatch(format!(
                    "`{OFFSETS}` does not rise from 0 by 1 to {max_entries} for each group"
                ))
            })
    }

    fn next_tokens(
        &self,
        num_entries: usize,
        vocab_size: usize,
    ) -> Result<Vec<usize>, AdapterError> {
        let view = self.view(NEXT_TOKENS, Dtype::U32, &[num_entries])?;
        let tokens: Vec<usize> = chunks(view.data())
            .map(|bytes| u32::from_le_bytes(bytes) as usize)
            .collect();
        match tokens.iter().find(|&&token| token >= vocab_size) {
            Some(token) => Err(self.mismatch(format!(
                "`{NEXT_TOKENS}` holds {token}, and the vocabulary has {vocab_size} tokens"
            ))),
            None => Ok(tokens),
        }
    }

    fn keys(&self, num_entries: usize, key_size: usize) -> Result<Vec<f32>, AdapterError> {
        let view = self.view(KEYS, Dtype::F16, &[num_entries, key_size])?;
        let keys: Vec<f32> = chunks(view.data())
            .map(|bytes| f16::from_le_bytes(bytes).to_f32())
            .collect();
        if !keys.iter().all(|value| value.is_finite()) {
            return Err(AdapterError::NotFinite {
                path: self.path.to_owned(),
                name: KEYS.to_owned(),
            });
        }
        let is_short = |key: &[f32]| key.iter().map(|x| x * x).sum::<f32>() <= LONGEST_SQUARED;
        if !keys.chunks_exact(key_size).all(is_short) {
            return Err(self.mismatch(format!("`{KEYS}` holds one that is longer than 1")));
        }
        Ok(keys)
    }

    fn mismatch(&self, reason: String) -> AdapterError {
        mismatch(self.path, reason)
    }
}

/// Values of `N` bytes.
fn chunks<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().copied()
}
