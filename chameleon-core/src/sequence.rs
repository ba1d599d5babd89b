//! A token sequence cut into what may be looked at and what is scored.

/// Token ids with one boundary: everything before it is the *conditioning span*, which is known
/// before any answer exists; everything from it on is the *scored span*.
///
/// The condition of a group and its clusters are computed from [`conditioning`](Self::conditioning)
/// alone, losses from [`scored`](Self::scored) alone. Because a token is on exactly one side, a
/// condition cannot contain an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitSequence {
    token_ids: Vec<u32>,
    boundary: usize,
}

impl SplitSequence {
    /// Cuts `token_ids` before position `boundary`.
    ///
    /// # Errors
    ///
    /// [`SequenceError::EmptySpan`] unless both spans hold at least one token.
    pub fn new(token_ids: Vec<u32>, boundary: usize) -> Result<Self, SequenceError> {
        if boundary == 0 || boundary >= token_ids.len() {
            return Err(SequenceError::EmptySpan {
                boundary,
                len: token_ids.len(),
            });
        }
        Ok(Self {
            token_ids,
            boundary,
        })
    }

    /// All tokens in order.
    pub fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// The tokens that may be looked at.
    pub fn conditioning(&self) -> &[u32] {
        &self.token_ids[..self.boundary]
    }

    /// The tokens to predict.
    pub fn scored(&self) -> &[u32] {
        &self.token_ids[self.boundary..]
    }

    /// Index of the first scored token.
    pub fn boundary(&self) -> usize {
        self.boundary
    }

    /// Number of tokens in both spans.
    #[expect(clippy::len_without_is_empty, reason = "a sequence is never empty")]
    pub fn len(&self) -> usize {
        self.token_ids.len()
    }

    /// Positions whose hidden state predicts a scored token: the token at `p + 1` is predicted
    /// at `p`.
    pub fn predicting_positions(&self) -> std::ops::Range<usize> {
        self.boundary - 1..self.token_ids.len() - 1
    }
}

/// Why a sequence cannot be cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SequenceError {
    /// One of the two spans would hold no token.
    #[error("a boundary at {boundary} leaves an empty span in a sequence of {len} tokens")]
    EmptySpan {
        /// Where the cut was asked for.
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
    fn an_empty_span_is_refused() {
        for boundary in [0, 2, 3] {
            assert!(SplitSequence::new(vec![1, 2], boundary).is_err());
        }
    }
}
