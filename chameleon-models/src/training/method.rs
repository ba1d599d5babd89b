//! What is trained and compared: a head, whose conditions it is given, and a memory beside it.

use std::fmt;
use std::str::FromStr;

use chameleon_hypernet::{ConditionControl, GeneratorKind};
use serde::{Deserialize, Serialize};

/// One way to adapt a model: three independent choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Method {
    /// What is trained.
    pub head: Head,
    /// Which conditions a generated head receives.
    pub control: ConditionControl,
    /// Which memory a text receives, if any.
    pub memory: Option<MemoryControl>,
}

/// The trained adaptation of the head, without its sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// Nothing.
    Frozen,
    /// LoRA.
    Lora,
    /// LoRA with as many trainable parameters as a generated head.
    ParameterMatchedLora(GeneratorKind),
    /// One LoRA for each cluster.
    Experts,
    /// Factors generated from the condition of a group.
    Generated(GeneratorKind),
    /// LoRA, with attention to the exemplars of each group.
    Attention,
    /// LoRA, adapted to each group by learned steps on its exemplars.
    Steps,
}

/// Which memory a text receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryControl {
    /// That of its group.
    None,
    /// That of another group, drawn for each text.
    Redrawn,
    /// One for all texts, drawn from all groups.
    Constant,
}

impl Method {
    /// Every method, in the order of tables.
    pub const ALL: &'static [Self] = &[
        Self::FROZEN,
        Self::LORA,
        Self::LORA.with_memory(MemoryControl::None),
        Self::LORA.with_memory(MemoryControl::Redrawn),
        Self::LORA.with_memory(MemoryControl::Constant),
        Self::MATCHED_LORA,
        Self::MATCHED_LORA_DENSE,
        Self::of(Head::Experts),
        Self::DENSE,
        Self::DENSE.with_control(ConditionControl::Redrawn),
        Self::DENSE.with_control(ConditionControl::Constant),
        Self::CORE,
        Self::CORE.with_control(ConditionControl::Redrawn),
        Self::CORE.with_control(ConditionControl::Constant),
        Self::CORE.with_memory(MemoryControl::None),
        Self::CORE.with_memory(MemoryControl::Redrawn),
        Self::CORE.with_memory(MemoryControl::Constant),
    ];

    /// The model as it is.
    pub const FROZEN: Self = Self::of(Head::Frozen);
    /// LoRA for all groups.
    pub const LORA: Self = Self::of(Head::Lora);
    /// LoRA with as many trainable parameters as [`CORE`](Self::CORE).
    pub const MATCHED_LORA: Self = Self::of(Head::ParameterMatchedLora(GeneratorKind::Core));
    /// LoRA with as many trainable parameters as [`DENSE`](Self::DENSE).
    pub const MATCHED_LORA_DENSE: Self = Self::of(Head::ParameterMatchedLora(GeneratorKind::Dense));
    /// The paper's hypernetwork.
    pub const DENSE: Self = Self::of(Head::Generated(GeneratorKind::Dense));
    /// Our hypernetwork.
    pub const CORE: Self = Self::of(Head::Generated(GeneratorKind::Core));

    pub(crate) const fn of(head: Head) -> Self {
        Self {
            head,
            control: ConditionControl::None,
            memory: None,
        }
    }

    /// The same head with other conditions.
    #[must_use]
    pub const fn with_control(self, control: ConditionControl) -> Self {
        Self { control, ..self }
    }

    /// The same head given the conditions of other groups or batches.
    #[must_use]
    pub const fn redrawn(self) -> Self {
        self.with_control(ConditionControl::Redrawn)
    }

    /// The same adapter with a memory.
    #[must_use]
    pub const fn with_memory(self, memory: MemoryControl) -> Self {
        Self {
            memory: Some(memory),
            ..self
        }
    }

    /// The method whose training this one uses: itself, or the same adapter without its memory.
    #[must_use]
    pub fn adapter(self) -> Self {
        Self {
            memory: None,
            ..self
        }
    }

    /// Whether it is a control: it receives wrong conditions or memories.
    pub fn is_control(self) -> bool {
        self.control != ConditionControl::None
            || self
                .memory
                .is_some_and(|memory| memory != MemoryControl::None)
    }

    /// Whether it needs a second group to take a condition or memory from.
    pub fn draws_another_group(self) -> bool {
        self.control == ConditionControl::Redrawn || self.memory == Some(MemoryControl::Redrawn)
    }

    /// A short description.
    pub fn summary(self) -> &'static str {
        match (self.head, self.control, self.memory) {
            (Head::Generated(GeneratorKind::Core), _, Some(memory)) => match memory {
                MemoryControl::None => "`core` with a memory of each group's training texts",
                MemoryControl::Redrawn => "`core` with the memories of other groups",
                MemoryControl::Constant => "`core` with one memory of all groups",
            },
            (_, _, Some(memory)) => match memory {
                MemoryControl::None => "`lora` with a memory of each group's training texts",
                MemoryControl::Redrawn => "`lora` with the memories of other groups",
                MemoryControl::Constant => "`lora` with one memory of all groups",
            },
            (Head::Frozen, ..) => "The base model",
            (Head::Lora, ..) => "LoRA of the same rank",
            (Head::ParameterMatchedLora(GeneratorKind::Core), ..) => {
                "LoRA with as many trainable parameters as `core`"
            }
            (Head::ParameterMatchedLora(_), ..) => {
                "LoRA with as many trainable parameters as `dense`"
            }
            (Head::Experts, ..) => "One LoRA for each group",
            (Head::Attention, ..) => "LoRA with attention to the exemplars of each group",
            (Head::Steps, ..) => "LoRA after learned steps on the exemplars of each group",
            (Head::Generated(GeneratorKind::Core), control, None) => match control {
                ConditionControl::Redrawn => "`core` with the conditions of other groups",
                ConditionControl::Constant => "`core` with one condition for all groups",
                _ => "The core hypernetwork",
            },
            (Head::Generated(_), control, None) => match control {
                ConditionControl::Redrawn => "`dense` with the conditions of other groups",
                ConditionControl::Constant => "`dense` with one condition for all groups",
                _ => "The dense hypernetwork",
            },
        }
    }

    /// The position in tables.
    pub fn position(self) -> usize {
        Self::ALL
            .iter()
            .position(|&method| method == self)
            .unwrap_or(Self::ALL.len())
    }
}

impl fmt::Display for Method {
    /// `core`, `core-redrawn`, `core-memory-constant`, ...
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = |redrawn: bool| if redrawn { "-redrawn" } else { "-constant" };
        f.write_str(match self.head {
            Head::Frozen => "frozen",
            Head::Lora => "lora",
            Head::ParameterMatchedLora(GeneratorKind::Core) => "lora-equal",
            Head::ParameterMatchedLora(_) => "lora-equal-dense",
            Head::Experts => "experts",
            Head::Attention => "attention",
            Head::Steps => "steps",
            Head::Generated(GeneratorKind::Core) => "core",
            Head::Generated(_) => "dense",
        })?;
        if self.control != ConditionControl::None {
            f.write_str(suffix(self.control == ConditionControl::Redrawn))?;
        }
        match self.memory {
            None => Ok(()),
            Some(MemoryControl::None) => f.write_str("-memory"),
            Some(memory) => {
                f.write_str("-memory")?;
                f.write_str(suffix(memory == MemoryControl::Redrawn))
            }
        }
    }
}

/// A string that is not the name of a method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a method")]
pub struct UnknownMethod {
    /// The name.
    pub name: String,
}

impl FromStr for Method {
    type Err = UnknownMethod;

    /// Reads what [`Display`](fmt::Display) writes; `-shuffled` is an older spelling of `-redrawn`.
    fn from_str(name: &str) -> Result<Self, UnknownMethod> {
        let spelled = name
            .strip_suffix("-shuffled")
            .map(|stem| format!("{stem}-redrawn"));
        let wanted = spelled.as_deref().unwrap_or(name);
        Self::ALL
            .iter()
            .copied()
            .find(|method| method.to_string() == wanted)
            .ok_or_else(|| UnknownMethod {
                name: name.to_owned(),
            })
    }
}

impl From<Method> for String {
    fn from(method: Method) -> Self {
        method.to_string()
    }
}

impl TryFrom<String> for Method {
    type Error = UnknownMethod;

    fn try_from(name: String) -> Result<Self, UnknownMethod> {
        name.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_as_the_method_that_has_it() {
        for &method in Method::ALL {
            assert_eq!(method.to_string().parse(), Ok(method));
        }
        assert_eq!(Method::ALL[16].to_string(), "core-memory-constant");
        assert!("core-nothing".parse::<Method>().is_err());
    }

    #[test]
    fn the_older_spelling_of_redrawn_controls_is_read() {
        assert_eq!("core-shuffled".parse::<Method>(), "core-redrawn".parse());
        assert_eq!(
            "lora-memory-shuffled".parse::<Method>(),
            "lora-memory-redrawn".parse()
        );
    }
}
