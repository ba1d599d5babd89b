//! The families of models that are known.

use std::fmt;

use crate::families::{gpt2, llama};
use crate::files::name_table::NameTable;

/// A family of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// Llama 2 and 3, SmolLM2, TinyLlama and others of the same build.
    Llama,
    /// GPT-2.
    Gpt2,
}

impl Architecture {
    /// All families, for messages.
    pub const NAMES: &'static str = "llama and gpt2";

    /// The name in `model_type` and in `general.architecture`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Gpt2 => "gpt2",
        }
    }

    /// The family of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Llama, Self::Gpt2]
            .into_iter()
            .find(|architecture| architecture.name() == name)
    }

    /// What its tensors are called.
    pub(crate) fn names(self) -> &'static NameTable {
        match self {
            Self::Llama => &llama::NAMES,
            Self::Gpt2 => &gpt2::NAMES,
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
