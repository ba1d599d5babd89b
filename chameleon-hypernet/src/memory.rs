//! The memory of a group: keys computed from its texts, and the token that followed each.
//!
//! An entry is a position in a text. Its *key* is a short vector of length one, computed from the frozen model's state
//! there ([`KeyProjection`]); its value is the token that followed. At a new position, attention over the keys gives a
//! distribution of the next token, and a [`MemoryGate`] gives the weight of that distribution in the prediction:
//!
//! ```text
//! p(token) = (1 - g) * p_model(token) + g * p_memory(token)
//! p_memory(token) = sum of softmax(temperature * query·key_i) over the entries whose next token it is
//! ```
//!
//! This is the continuous cache of Grave, Joulin and Usunier (2017) and the nearest neighbours of Khandelwal et al.
//! (2020), with the groups of the clustering in place of an index over everything: only the entries of one group are
//! compared, so a lookup is one narrow matrix product. Written as factors, the keys are an `a` of as many columns
//! as there are entries and the one-hot next tokens a `b`, with a softmax in between.
//!
//! Only the few parameters of the gate are trained.

mod gate;
mod projection;

use burn::tensor::{IndexingUpdateOp, Int, Tensor, assert_shape, f16};

pub use gate::{GateFeatures, GateFit, GateObservations, MemoryGate};
pub use projection::{KeyProjection, StateDirections};

/// The entries of one group.
#[derive(Debug, Clone)]
pub struct GroupMemory {
    keys: Tensor<2>,
    next_tokens: Tensor<1, Int>,
}

impl GroupMemory {
    /// A memory of these entries.
    ///
    /// # Shapes
    ///
    /// - `keys`: `[entries, key]`, rows of length one; `next_tokens`: `[entries]`
    ///
    /// # Panics
    ///
    /// When there is no entry, or the shapes disagree.
    pub fn new(keys: Tensor<2>, next_tokens: Tensor<1, Int>) -> Self {
        let [num_entries, _] = keys.dims();
        assert!(num_entries > 0, "a memory has at least one entry");
        assert_shape!(next_tokens, [num_entries]);
        Self { keys, next_tokens }
    }

    /// The number of entries.
    pub fn num_entries(&self) -> usize {
        self.keys.dims()[0]
    }

    /// The same with keys rounded to f16, as a file stores them.
    #[must_use]
    pub fn rounded(&self) -> Self {
        let keys = self.keys.to_data().convert::<f16>().convert::<f32>();
        Self {
            keys: Tensor::from_data(keys, &self.keys.device()),
            next_tokens: self.next_tokens.clone(),
        }
    }

    /// `[entries, key]`
    pub fn keys(&self) -> &Tensor<2> {
        &self.keys
    }

    /// `[entries]`
    pub fn next_tokens(&self) -> &Tensor<1, Int> {
        &self.next_tokens
    }

    /// The similarity of queries to every entry, from which attention at any temperature follows.
    ///
    /// # Shapes
    ///
    /// - `queries`: `[rows, key]`, of length one
    ///
    /// # Panics
    ///
    /// When queries and keys differ in width.
    pub fn similarities(&self, queries: Tensor<2>) -> Similarities<'_> {
        let [_, key_size] = self.keys.dims();
        assert_shape!(queries, [_, key_size]);
        Similarities {
            memory: self,
            cosines: queries.matmul(self.keys.clone().transpose()),
        }
    }
}

/// Queries compared with every entry of a memory.
#[derive(Debug, Clone)]
pub struct Similarities<'a> {
    memory: &'a GroupMemory,
    /// `[rows, entries]`, -1 to 1
    cosines: Tensor<2>,
}

impl Similarities<'_> {
    /// Attention over all entries.
    pub fn attention(&self, temperature: f64) -> MemoryAttention {
        let [num_rows, num_entries] = self.cosines.dims();
        let (nearest, nearest_idx) = self.cosines.clone().max_dim_with_indices(1); // [rows, 1]
        let weights = ((self.cosines.clone() - nearest.clone()) * temperature).exp();
        let sum = weights.clone().sum_dim(1);
        let nearest_tokens = self
            .memory
            .next_tokens
            .clone()
            .select(0, nearest_idx.reshape([num_rows]));
        MemoryAttention {
            next_tokens: self.memory.next_tokens.clone(),
            // Zero if all entries are as near as the nearest.
            density: (sum.clone().log() - (num_entries as f64).ln()).squeeze_dim(1),
            weights: weights / sum,
            nearest: nearest.squeeze_dim(1),
            nearest_tokens,
        }
    }
}

/// Attention of queries over the entries of a memory.
#[derive(Debug, Clone)]
pub struct MemoryAttention {
    /// `[entries]`
    next_tokens: Tensor<1, Int>,
    /// `[rows, entries]`, each row sums to one
    weights: Tensor<2>,
    /// `[rows]`, cosine of the nearest entry
    nearest: Tensor<1>,
    /// `[rows]`, log of the part of the entries that is as near as the nearest
    density: Tensor<1>,
    /// `[rows]`, next token of the nearest entry
    nearest_tokens: Tensor<1, Int>,
}

impl MemoryAttention {
    /// The memory's probability of a token of each row.
    ///
    /// # Shapes
    ///
    /// - `tokens`: `[rows]`
    /// - output: `[rows]`, 0 to 1
    ///
    /// # Panics
    ///
    /// When there is not one token for each row.
    pub fn prob_of(&self, tokens: Tensor<1, Int>) -> Tensor<1> {
        let [num_rows, num_entries] = self.weights.dims();
        assert_shape!(tokens, [num_rows]);
        let is_it = tokens
            .unsqueeze_dim::<2>(1)
            .expand([num_rows, num_entries])
            .equal(
                self.next_tokens
                    .clone()
                    .unsqueeze_dim::<2>(0)
                    .expand([num_rows, num_entries]),
            );
        self.weights
            .clone()
            .mask_fill(is_it.bool_not(), 0.0)
            .sum_dim(1)
            .squeeze_dim(1)
    }

    /// The memory's distribution over the vocabulary.
    ///
    /// # Shapes
    ///
    /// - output: `[rows, vocab]`
    ///
    /// # Panics
    ///
    /// When an entry's token is not in the vocabulary.
    pub fn distribution(&self, vocab_size: usize) -> Tensor<2> {
        let [num_rows, num_entries] = self.weights.dims();
        let tokens = self
            .next_tokens
            .clone()
            .unsqueeze_dim::<2>(0)
            .expand([num_rows, num_entries]);
        Tensor::zeros([num_rows, vocab_size], &self.weights.device()).scatter(
            1,
            tokens,
            self.weights.clone(),
            IndexingUpdateOp::Add,
        )
    }

    /// The input of a gate.
    pub fn gate_features(&self) -> GateFeatures {
        GateFeatures::new(
            self.nearest.clone(),
            self.density.clone(),
            self.prob_of(self.nearest_tokens.clone()),
        )
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tolerance};

    use super::*;
    use crate::testing::{normal, values};

    fn memory() -> GroupMemory {
        let keys = normal([5, 3], 1);
        let length = keys.clone().powi_scalar(2).sum_dim(1).sqrt();
        GroupMemory::new(
            keys / length,
            Tensor::from_ints([4, 2, 4, 0, 2], &Device::flex()),
        )
    }

    /// Softmax and sum, entry by entry, on the host.
    fn plain_prob(query: &[f32], temperature: f32, token: i64) -> f32 {
        let memory = memory();
        let keys = values(memory.keys().clone());
        let tokens: Vec<i64> = memory.next_tokens().to_data().iter::<i64>().collect();
        let weights: Vec<f32> = keys
            .chunks(3)
            .map(|key| {
                let cosine: f32 = key
                    .iter()
                    .zip(query)
                    .map(|(left, right)| left * right)
                    .sum();
                (cosine * temperature).exp()
            })
            .collect();
        let own: f32 = weights
            .iter()
            .zip(&tokens)
            .filter(|&(_, &found)| found == token)
            .map(|(weight, _)| weight)
            .sum();
        own / weights.iter().sum::<f32>()
    }

    #[test]
    fn probabilities_are_a_softmax_summed_by_token() {
        let queries = Tensor::from_floats([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8]], &Device::flex());
        let attention = memory().similarities(queries.clone()).attention(3.0);
        let found = values(attention.prob_of(Tensor::from_ints([2, 4], &Device::flex())));
        let rows = values(queries);
        let expected = [
            plain_prob(&rows[..3], 3.0, 2),
            plain_prob(&rows[3..], 3.0, 4),
        ];
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn the_distribution_holds_every_probability_and_sums_to_one() {
        let attention = memory().similarities(normal([4, 3], 2)).attention(2.0);
        let distribution = attention.distribution(6);
        let sums = distribution.clone().sum_dim(1);
        sums.to_data().assert_approx_eq::<f32>(
            &Tensor::<2>::ones([4, 1], &Device::flex()).to_data(),
            Tolerance::absolute(1e-5),
        );
        for token in 0..6_i32 {
            let column = distribution
                .clone()
                .narrow(1, usize::try_from(token).unwrap(), 1);
            let prob = attention.prob_of(Tensor::from_ints([token; 4], &Device::flex()));
            column
                .squeeze_dim::<1>(1)
                .to_data()
                .assert_approx_eq::<f32>(&prob.to_data(), Tolerance::absolute(1e-5));
        }
    }

    #[test]
    fn a_sharp_memory_repeats_its_nearest_entry() {
        let memory = memory();
        let query = memory.keys().clone().slice([3..4]);
        let attention = memory.similarities(query).attention(1e4);
        let prob = attention.prob_of(Tensor::from_ints([0], &Device::flex()));
        assert!(values(prob)[0] > 0.999);
        let features = values(attention.gate_features().columns());
        assert!(features.iter().all(|value| value.is_finite()));
    }
}
