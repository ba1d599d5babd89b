//! Exemplars in memory, before and after they have an id.

use serde::{Deserialize, Serialize};

/// An answered request, or a plain text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exemplar {
    /// Its id, unique within its key. Later exemplars have larger ids.
    pub id: u64,
    /// The request; may be empty if the answer is not.
    pub prompt: String,
    /// The answer; empty for a plain text, which is then the prompt.
    pub answer: String,
}

impl Exemplar {
    /// Bytes of both texts.
    pub fn num_bytes(&self) -> usize {
        self.prompt.len().saturating_add(self.answer.len())
    }

    /// Whether both texts are empty or white space.
    pub(super) fn is_blank(&self) -> bool {
        are_blank(&self.prompt, &self.answer)
    }
}

/// An exemplar that does not have an id yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewExemplar {
    /// The request; may be empty if the answer is not.
    pub prompt: String,
    /// The answer; empty for a plain text, which is then the prompt.
    pub answer: String,
}

impl NewExemplar {
    /// Bytes of both texts.
    pub fn num_bytes(&self) -> usize {
        self.prompt.len().saturating_add(self.answer.len())
    }

    /// Whether both texts are empty or white space.
    pub(super) fn is_blank(&self) -> bool {
        are_blank(&self.prompt, &self.answer)
    }

    pub(super) fn with_id(self, id: u64) -> Exemplar {
        Exemplar {
            id,
            prompt: self.prompt,
            answer: self.answer,
        }
    }
}

/// All exemplars of one key at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupExemplars {
    /// The key of the group.
    pub key: String,
    /// Changes with every change of the exemplars, and is unique among all groups in the process.
    pub revision: u64,
    /// The exemplars, oldest first.
    pub exemplars: Vec<Exemplar>,
}

impl GroupExemplars {
    /// Bytes of all texts.
    pub fn num_bytes(&self) -> usize {
        num_bytes(&self.exemplars)
    }
}

/// Bytes of all texts of these exemplars.
pub(super) fn num_bytes(exemplars: &[Exemplar]) -> usize {
    exemplars.iter().map(Exemplar::num_bytes).sum()
}

fn are_blank(prompt: &str, answer: &str) -> bool {
    prompt.trim().is_empty() && answer.trim().is_empty()
}
