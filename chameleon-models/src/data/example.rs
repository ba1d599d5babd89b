//! The unit of training and scoring: tokens with a conditioning and a scored span.

use std::ops::Range;

use chameleon_core::SplitSequence;

use super::cut::Dropped;

/// One window of one document, or one prompt with its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The tokens, and where the scored ones begin.
    pub sequence: SplitSequence,
    /// Positions of the tokens that the prompt embedding is computed from: all of the conditioning span, or the
    /// instruction in it.
    pub prompt: Range<usize>,
    /// Index of the document among those of its corpus.
    pub document_idx: usize,
    /// Index into [`TokenisedCorpus::label_names`](super::TokenisedCorpus::label_names).
    pub label_idx: Option<usize>,
    /// Bytes of text of the scored tokens: the denominator of bits per byte.
    pub scored_bytes: usize,
}

impl Example {
    /// A sequence whose whole conditioning span is its prompt.
    pub fn of_prefix(
        sequence: SplitSequence,
        document_idx: usize,
        label_idx: Option<usize>,
        scored_bytes: usize,
    ) -> Self {
        Self {
            prompt: 0..sequence.boundary(),
            sequence,
            document_idx,
            label_idx,
            scored_bytes,
        }
    }

    /// The tokens that the prompt embedding is computed from, at least one.
    pub fn prompt_token_ids(&self) -> &[u32] {
        &self.sequence.token_ids()[self.prompt.clone()]
    }
}

/// Counts of text that is in no example.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Documents that gave no example.
    pub too_short: usize,
    /// Exchanges whose prompt leaves no room for an answer.
    pub long_prompts: usize,
    /// Answers that were cut off at the end of the window.
    pub cut_answers: usize,
    /// Last windows that were dropped from documents that gave examples.
    pub tails: usize,
    /// Tokens of all of these.
    pub num_tokens: usize,
}

/// The examples of a corpus, in the order of its documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examples {
    /// The examples; at least one.
    pub examples: Vec<Example>,
    /// What was too short.
    pub skipped: Skipped,
}

impl Skipped {
    /// Counts the dropped text of one document.
    pub(super) fn add(&mut self, dropped: Dropped, num_tokens: usize) {
        self.num_tokens += num_tokens;
        match dropped {
            Dropped::Nothing => {}
            Dropped::TooShort => self.too_short += 1,
            Dropped::Tail => self.tails += 1,
            Dropped::LongPrompt => self.long_prompts += 1,
            Dropped::CutAnswer => self.cut_answers += 1,
        }
    }
}
