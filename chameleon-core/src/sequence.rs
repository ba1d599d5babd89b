//! A token sequence cut into what may be looked at and what is scored.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Token ids that many sequences may share: a vector, or a mapped file that another crate owns.
pub type TokenBuffer = Arc<dyn AsRef<[u32]> + Send + Sync>;

/// Token ids with one boundary: everything before it is the *conditioning span*, which is known
/// before any answer exists; everything from it on is the *scored span*.
///
/// The condition of a group and its clusters are computed from [`conditioning`](Self::conditioning)
/// alone, losses from [`scored`](Self::scored) alone. Because a token is on exactly one side, a
/// condition cannot contain an answer.
///
/// A sequence is a range of a buffer, so cloning it copies no token.
#[derive(Clone)]
pub struct SplitSequence {
    buffer: TokenBuffer,
    range: Range<usize>,
    boundary: usize,
}

impl SplitSequence {
    /// Cuts `token_ids` before position `boundary`.
    ///
    /// # Errors
    ///
    /// [`SequenceError::EmptySpan`] unless both spans hold at least one token.
    pub fn new(token_ids: Vec<u32>, boundary: usize) -> Result<Self, SequenceError> {
        let range = 0..token_ids.len();
        Self::in_buffer(Arc::new(token_ids), range, boundary)
    }

    /// The sequence in `range` of a shared buffer, cut before its position `boundary`.
    ///
    /// # Errors
    ///
    /// [`SequenceError::EmptySpan`] unless both spans hold at least one token.
    ///
    /// # Panics
    ///
    /// When the range reaches past the end of the buffer.
    pub fn in_buffer(
        buffer: TokenBuffer,
        range: Range<usize>,
        boundary: usize,
    ) -> Result<Self, SequenceError> {
        let buffer_len = (*buffer).as_ref().len();
        assert!(
            range.start <= range.end && range.end <= buffer_len,
            "range {range:?} of a buffer of {buffer_len} tokens"
        );
        check(boundary, range.len())?;
        Ok(Self {
            buffer,
            range,
            boundary,
        })
    }

    /// The same tokens, cut elsewhere.
    ///
    /// # Errors
    ///
    /// [`SequenceError::EmptySpan`] unless both spans hold at least one token.
    pub fn with_boundary(&self, boundary: usize) -> Result<Self, SequenceError> {
        check(boundary, self.len())?;
        Ok(Self {
            boundary,
            ..self.clone()
        })
    }

    /// All tokens in order.
    pub fn token_ids(&self) -> &[u32] {
        &(*self.buffer).as_ref()[self.range.clone()]
    }

    /// The tokens that may be looked at.
    pub fn conditioning(&self) -> &[u32] {
        &self.token_ids()[..self.boundary]
    }

    /// The tokens to predict.
    pub fn scored(&self) -> &[u32] {
        &self.token_ids()[self.boundary..]
    }

    /// Index of the first scored token.
    pub fn boundary(&self) -> usize {
        self.boundary
    }

    /// Number of tokens in both spans.
    #[expect(clippy::len_without_is_empty, reason = "a sequence is never empty")]
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Positions whose hidden state predicts a scored token: the token at `p + 1` is predicted
    /// at `p`.
    pub fn predicting_positions(&self) -> Range<usize> {
        self.boundary - 1..self.len() - 1
    }
}

impl fmt::Debug for SplitSequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SplitSequence")
            .field("token_ids", &self.token_ids())
            .field("boundary", &self.boundary)
            .finish()
    }
}

/// Sequences are equal when their tokens and boundaries are, whatever buffers hold the tokens.
impl PartialEq for SplitSequence {
    fn eq(&self, other: &Self) -> bool {
        self.boundary == other.boundary && self.token_ids() == other.token_ids()
    }
}

impl Eq for SplitSequence {}

fn check(boundary: usize, len: usize) -> Result<(), SequenceError> {
    if boundary == 0 || boundary >= len {
        return Err(SequenceError::EmptySpan { boundary, len });
    }
    Ok(())
}

/// Why a sequence cannot be cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SequenceError {
    /// One of the two spans would hold no token.
    #[error("a boundary at {boundary} leaves an empty span in a sequence of {len} tokens")]
    EmptySpan {
        /// The requested position of the cut.
        boundary: usize,
        /// Tokens in the sequence.
        len: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spans_partition_the_sequence() {
        let sequence = SplitSequence::new(vec![5, 6, 7, 8], 3).unwrap();
        assert_eq!(sequence.conditioning(), [5, 6, 7]);
        assert_eq!(sequence.scored(), [8]);
        assert_eq!(sequence.predicting_positions(), 2..3);
    }

    #[test]
    fn a_range_of_a_buffer_equals_the_sequence_of_its_tokens() {
        let buffer: TokenBuffer = Arc::new((0..10).collect::<Vec<u32>>());
        let shared = SplitSequence::in_buffer(buffer.clone(), 5..9, 3).unwrap();
        let own = SplitSequence::new(vec![5, 6, 7, 8], 3).unwrap();
        assert_eq!(shared, own);
        assert_eq!(shared.len(), 4);
        assert_eq!(shared.scored(), [8]);
        assert_ne!(shared.with_boundary(2).unwrap(), own);
        assert_eq!(shared.with_boundary(2).unwrap().conditioning(), [5, 6]);
        let clone = shared.clone();
        assert!(std::ptr::eq(clone.token_ids(), &(*buffer).as_ref()[5..9]));
    }

    #[test]
    fn an_empty_span_is_refused() {
        for boundary in [0, 2, 3] {
            assert!(SplitSequence::new(vec![1, 2], boundary).is_err());
            let buffer = Arc::new(vec![9, 1, 2]);
            assert!(SplitSequence::in_buffer(buffer, 1..3, boundary).is_err());
            let whole = SplitSequence::new(vec![1, 2], 1).unwrap();
            assert!(whole.with_boundary(boundary).is_err());
        }
    }
}
