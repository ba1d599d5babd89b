//! What an adapter does with the exemplars of a group.

use burn::module::Module as _;
use chameleon_core::LoraFactors;
use chameleon_hypernet::{GroupLayers, LayerFactors, SharedLayers};
use serde::{Deserialize, Serialize};

use crate::adapter::adaptation::{AdapterModule, HeadAdapter};
use crate::adapter::exemplar_states::ExemplarStates;
use crate::families::language_model::LanguageModel;

/// What an adapter does with the exemplars of a group: answered requests of one customer, say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExemplarUse {
    /// Requests attend to the exemplars in the adapted layers.
    Attention(AttentionConfig),
    /// The factors of the layers take learned gradient steps down the loss of the exemplars.
    Steps(StepsConfig),
}

/// Requests attend to the exemplars of their group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttentionConfig {
    /// Exemplars of a group in most training steps.
    pub num_exemplars: usize,
}

/// Learned gradient steps from the factors of the layers, down the loss of a group's exemplars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepsConfig {
    /// Steps that were learned, and are taken.
    pub num_steps: usize,
    /// Exemplars of a group in most training steps.
    pub num_exemplars: usize,
}

impl Default for StepsConfig {
    fn default() -> Self {
        Self {
            num_steps: 4,
            num_exemplars: 16,
        }
    }
}

impl ExemplarUse {
    /// Exemplars of a group in most training steps.
    pub fn num_exemplars(self) -> usize {
        match self {
            Self::Attention(AttentionConfig { num_exemplars })
            | Self::Steps(StepsConfig { num_exemplars, .. }) => num_exemplars,
        }
    }

    /// The learned steps, if there are any.
    pub fn steps(self) -> Option<StepsConfig> {
        match self {
            Self::Steps(steps) => Some(steps),
            Self::Attention(_) => None,
        }
    }
}

impl AdapterModule {
    /// The layers of a group, from its exemplars. Nothing is recorded for gradients.
    ///
    /// # Panics
    ///
    /// When no layer is adapted, or steps are taken that were not learned.
    pub fn group_layers(
        &self,
        model: &LanguageModel,
        exemplars: &ExemplarStates,
        how: ExemplarUse,
    ) -> GroupLayers {
        let plain = self.clone().valid();
        match how {
            ExemplarUse::Attention(_) => plain.layers_with_context(model, exemplars),
            ExemplarUse::Steps(steps) => plain
                .layers_after_steps(model, exemplars, steps.num_steps)
                .for_all_groups(),
        }
    }

    /// The layers of a group, whose requests attend to these exemplars. Gradients reach the factors of the layers, both
    /// through the requests and through the exemplars.
    ///
    /// # Panics
    ///
    /// When no layer is adapted, or cores are generated.
    pub fn layers_with_context(
        &self,
        model: &LanguageModel,
        exemplars: &ExemplarStates,
    ) -> GroupLayers {
        let layers = self.shared_layers().for_all_groups();
        let context = exemplars.context(model, &layers.for_batch());
        layers.with_context(context)
    }

    /// The changes of the layers for a batch without exemplars.
    ///
    /// # Panics
    ///
    /// When no layer is adapted, or cores are generated.
    pub(crate) fn start_factors(&self) -> LayerFactors {
        self.shared_layers().for_all_groups().for_batch()
    }

    /// The factors of the head, which exemplars leave as they are.
    ///
    /// # Panics
    ///
    /// When the head is not adapted by one LoRA.
    pub fn shared_head(&self) -> LoraFactors {
        match &self.head {
            HeadAdapter::Lora(head) => head.factors(),
            HeadAdapter::Experts(_) | HeadAdapter::Hyper(_) => {
                panic!("exemplars are used beside a LoRA at the head")
            }
        }
    }

    pub(super) fn shared_layers(&self) -> SharedLayers {
        let layers = self.layers.as_ref().expect("layers are adapted");
        layers.shared()
    }
}
