//! The memory of a row's group, mixed into the prediction of its next token.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use burn::tensor::Tensor;

use super::adapters::LoadedAdapter;
use super::logprobs::log_sum_exp;
use crate::adapter::{AdapterMemory, MemoryMatch};

/// The memory of one row's group.
#[derive(Clone)]
pub(super) struct RowMemory {
    adapter: Arc<LoadedAdapter>,
    group_idx: usize,
    /// The memory's share of a prediction is multiplied by this, 0 to 1.
    strength: f64,
}

impl RowMemory {
    /// The memory of a group; `None` if its adapter has none or the scale of the adapter is zero or below.
    pub(super) fn of(adapter: &Arc<LoadedAdapter>, group_idx: usize, scale: f64) -> Option<Self> {
        let strength = scale.clamp(0.0, 1.0);
        (adapter.adapter.memory.is_some() && strength > 0.0).then(|| Self {
            adapter: Arc::clone(adapter),
            group_idx,
            strength,
        })
    }

    /// The layer whose input states are the queries of the memory.
    pub(super) fn layer_idx(&self) -> usize {
        self.memory().description.config.layer_idx
    }

    /// Replaces the logits of a row by logarithms of the probabilities that model and memory predict together.
    ///
    /// Rows are searched one at a time, so that the result of one does not depend on the others.
    ///
    /// # Shapes
    ///
    /// - `entering`: of each tapped layer, `[rows, hidden]`
    /// - `logits`: `[vocab]`
    pub(super) fn mix_into(
        &self,
        entering: &BTreeMap<usize, Tensor<2>>,
        row_idx: usize,
        logits: &mut [f32],
    ) {
        let states = entering[&self.layer_idx()].clone();
        let state = states.narrow(0, row_idx, 1);
        let mut matched = self.memory().search(self.group_idx, state, logits.len());
        matched.weight *= self.strength;
        mix(logits, &matched);
    }

    fn memory(&self) -> &AdapterMemory {
        let memory = self.adapter.adapter.memory.as_ref();
        memory.expect("only a row of an adapter with a memory has one")
    }
}

impl fmt::Debug for RowMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowMemory")
            .field("group_idx", &self.group_idx)
            .field("strength", &self.strength)
            .finish_non_exhaustive()
    }
}

fn mix(logits: &mut [f32], matched: &MemoryMatch) {
    let total = f64::from(log_sum_exp(logits));
    let model_part = (-matched.weight).ln_1p();
    for (logit, &prob) in logits.iter_mut().zip(&matched.probs) {
        let of_model = f64::from(*logit) - total + model_part;
        let mixed = if prob > 0.0 {
            let of_memory = f64::from(prob) * matched.weight;
            (of_model.exp() + of_memory).max(f64::MIN_POSITIVE).ln()
        } else {
            of_model
        };
        #[expect(clippy::cast_possible_truncation, reason = "logits are f32 as well")]
        let mixed = mixed as f32;
        *logit = mixed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mixture_is_of_probabilities_and_sums_to_one() {
        let mut logits = [1.0, -2.0, 0.5, -200.0];
        let total = log_sum_exp(&logits);
        let model = logits.map(|logit| (logit - total).exp());
        let matched = MemoryMatch {
            weight: 0.25,
            probs: vec![0.0, 0.6, 0.0, 0.4],
        };
        mix(&mut logits, &matched);
        let probs = logits.map(f32::exp);
        for ((&found, &model), &prob) in probs.iter().zip(&model).zip(&matched.probs) {
            let expected = 0.75 * model + 0.25 * prob;
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        assert!((probs.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
