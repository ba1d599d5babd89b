//! What an adapter does with the exemplars of a group.

use burn::module::Module as _;
use chameleon_core::LoraFactors;
use chameleon_hypernet::{GroupLayers, LayerFactors, SharedLayers};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::adapter::adaptation::{AdapterModule, HeadAdapter};
use crate::adapter::exemplar_states::ExemplarStates;
use crate::families::language_model::LanguageModel;

/// What an adapter does with the exemplars of a group: answered requests of one customer, say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// The sections of `adapter_config.json`, of which at most one is there.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct ExemplarSections {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    attention: Option<AttentionConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    steps: Option<StepsConfig>,
}

impl ExemplarSections {
    #[expect(clippy::ref_option, reason = "serde passes the field by reference")]
    pub(super) fn serialize<S: Serializer>(
        exemplars: &Option<ExemplarUse>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let sections = match *exemplars {
            None => Self::default(),
            Some(ExemplarUse::Attention(attention)) => Self {
                attention: Some(attention),
                steps: None,
            },
            Some(ExemplarUse::Steps(steps)) => Self {
                attention: None,
                steps: Some(steps),
            },
        };
        Serialize::serialize(&sections, serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<ExemplarUse>, D::Error> {
        let sections: Self = Deserialize::deserialize(deserializer)?;
        match (sections.attention, sections.steps) {
            (None, None) => Ok(None),
            (Some(attention), None) => Ok(Some(ExemplarUse::Attention(attention))),
            (None, Some(steps)) => Ok(Some(ExemplarUse::Steps(steps))),
            (Some(_), Some(_)) => Err(D::Error::custom(
                "`attention` and `steps` exclude each other",
            )),
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
        self.clone()
            .valid()
            .trained_group_layers(model, exemplars, how)
    }

    /// Like [`group_layers`](Self::group_layers), with gradients. With attention these reach the factors of the layers,
    /// both through the requests and through the exemplars; with steps, the start and the sizes of the steps.
    ///
    /// # Panics
    ///
    /// As [`group_layers`](Self::group_layers), and when cores are generated.
    pub fn trained_group_layers(
        &self,
        model: &LanguageModel,
        exemplars: &ExemplarStates,
        how: ExemplarUse,
    ) -> GroupLayers {
        match how {
            ExemplarUse::Attention(_) => {
                let layers = self.shared_layers().for_all_groups();
                let context = exemplars.context(model, &layers.for_batch());
                layers.with_context(context)
            }
            ExemplarUse::Steps(steps) => {
                let directions = self.step_directions(model, exemplars, steps.num_steps);
                self.layers_along(&directions).for_all_groups()
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Config {
        seed: u64,
        #[serde(flatten, with = "ExemplarSections")]
        exemplars: Option<ExemplarUse>,
    }

    #[test]
    fn one_section_or_none_is_written_and_read() {
        let attention = ExemplarUse::Attention(AttentionConfig { num_exemplars: 3 });
        for (exemplars, json) in [
            (None, r#"{"seed":1}"#),
            (
                Some(attention),
                r#"{"seed":1,"attention":{"num_exemplars":3}}"#,
            ),
            (
                Some(ExemplarUse::Steps(StepsConfig::default())),
                r#"{"seed":1,"steps":{"num_steps":4,"num_exemplars":16}}"#,
            ),
        ] {
            let config = Config { seed: 1, exemplars };
            assert_eq!(serde_json::to_string(&config).unwrap(), json);
            assert_eq!(serde_json::from_str::<Config>(json).unwrap(), config);
        }
        for broken in [
            r#"{"seed":1,"attention":3}"#,
            r#"{"seed":1,"attention":{"num_exemplars":1},"steps":{"num_steps":1,"num_exemplars":1}}"#,
        ] {
            assert!(serde_json::from_str::<Config>(broken).is_err(), "{broken}");
        }
    }
}
