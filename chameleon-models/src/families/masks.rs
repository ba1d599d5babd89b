//! What each query of a pass does not see.

use std::collections::BTreeMap;

use burn::tensor::{Bool, Device, Tensor, TensorData};
use chameleon_core::fused::ScoreRule;

/// The mask of each query; built once for a forward pass and shared by its layers.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one or a few exist in a pass")]
pub(crate) enum AttentionMask {
    /// Later tokens, in a pass over whole sequences.
    Causal,
    /// Given slots: `true` is masked; `[batch, 1, seq, slots]`.
    Hidden(Tensor<4, Bool>),
}

/// The masks of some queries, one for each window that the layers have; built when the first such layer asks.
#[derive(Debug)]
pub(crate) struct Masks {
    /// Rows of queries, each with the last slot that it sees.
    last_slots: Vec<Vec<usize>>,
    /// Slots of a row; `None` if all keys are those of the queries.
    num_slots: Option<usize>,
    device: Device,
    by_window: BTreeMap<Option<usize>, AttentionMask>,
}

impl Masks {
    pub(crate) fn new(
        last_slots: Vec<Vec<usize>>,
        num_slots: Option<usize>,
        device: &Device,
    ) -> Self {
        Self {
            last_slots,
            num_slots,
            device: device.clone(),
            by_window: BTreeMap::new(),
        }
    }

    /// The mask of a layer with this rule.
    pub(crate) fn of(&mut self, rule: &ScoreRule) -> &AttentionMask {
        // A window that reaches everything that any query sees is none.
        let farthest = self
            .last_slots
            .iter()
            .flatten()
            .max()
            .map_or(0, |last| last + 1);
        let window = rule.window.filter(|&window| window < farthest);
        if !self.by_window.contains_key(&window) {
            let mask = self.build(&ScoreRule { window, ..*rule });
            self.by_window.insert(window, mask);
        }
        &self.by_window[&window]
    }

    /// The same as a tensor: what the queries of a layer with this rule do not see, `[batch or 1, 1, seq, slots]`.
    pub(crate) fn hidden(&mut self, rule: &ScoreRule) -> Tensor<4, Bool> {
        match self.of(rule) {
            AttentionMask::Hidden(hidden) => hidden.clone(),
            AttentionMask::Causal => {
                let seq_len = self.seq_len();
                Tensor::<2, Bool>::tril_mask([seq_len, seq_len], 0, &self.device).unsqueeze()
            }
        }
    }

    fn seq_len(&self) -> usize {
        self.last_slots.first().map_or(0, Vec::len)
    }

    fn build(&self, rule: &ScoreRule) -> AttentionMask {
        if self.num_slots.is_none() && rule.window.is_none() {
            // A prompt attends only to itself, and not to the empty slots.
            return AttentionMask::Causal;
        }
        let num_slots = self.num_slots.unwrap_or(self.seq_len());
        AttentionMask::Hidden(hidden_slots(
            &self.last_slots,
            num_slots,
            rule,
            &self.device,
        ))
    }
}

/// The slots that queries do not see, `[batch, 1, seq, slots]`, from the last slot that each of them sees.
fn hidden_slots(
    last_slots: &[Vec<usize>],
    num_slots: usize,
    rule: &ScoreRule,
    device: &Device,
) -> Tensor<4, Bool> {
    let seq_len = last_slots.first().map_or(0, Vec::len);
    let hidden: Vec<bool> = last_slots
        .iter()
        .flatten()
        .flat_map(|&last| {
            let seen = rule.first_key(last)..=last;
            (0..num_slots).map(move |slot| !seen.contains(&slot))
        })
        .collect();
    let data = TensorData::new(hidden, [last_slots.len(), 1, seq_len, num_slots]);
    Tensor::from_data(data, device)
}
