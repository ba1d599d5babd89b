//! A token sequence cut into what may be looked at and what is scored.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

/// Token ids that many sequences share, wherever they lie.
pub trait TokenStore: Debug + Send + Sync {
    /// All of them.
    fn token_ids(&self) -> &[u32];
}

/// Token ids with one boundary: everything before it is the *conditioning span*, which is known
/// before any answer exists; everything from it on is the *scored span*.
///
/// The condition of a group and its clusters are computed from [`conditioning`](Self::conditioning)
/// alone, losses from [`scored`](Self::scored) alone. Because a token is on exactly one side, a
/// condition cannot contain an answer.
#[derive(Debug, Clone)]
pub struct SplitSequence {
    token_ids: Ids,
    boundary: usize,
}

#[derive(Debug, Clone)]
enum Ids {
    Own(Vec<u32>),
    Stored {
        store: Arc<dyn TokenStore>,
        range: Range<usize>,
    },
}

impl SplitSequence {
    /// Cuts `token_ids` before position `boundary`.
    ///
    /// # Errors
    ///
    /// [`SequenceError::EmptySpan`] unless both spans hold at least one token.
    pub fn new(token_ids: Vec<u32>, boundary: usize) -> Result<Self, SequenceError> {
        check(boundary, token_ids.len())?;
        Ok(Self {
            token_ids: Ids::Own(token_ids),
            boundary,
        })
    }

    /// The sequence that lies in `range` of a store; cloning it copies no token.
    ///
    /// # Errors
    ///
    /// [`SequenceError::EmptySpan`] unless both spans hold at least one token.
    ///
    /// # Panics
    ///
    /// When the range reaches past the end of the store.
    pub fn stored(
        store: Arc<dyn TokenStore>,
        range: Range<usize>,
        boundary: usize,
    ) -> Result<Self, SequenceError> {
        assert!(
            range.end <= store.token_ids().len(),
            "a store of {} tokens has no range {range:?}",
            store.token_ids().len()
        );
        check(boundary, range.len())?;
        Ok(Self {
            token_ids: Ids::Stored { store, range },
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
            token_ids: self.token_ids.clone(),
            boundary,
        })
    }

    /// All tokens in order.
    pub fn token_ids(&self) -> &[u32] {
        match &self.token_ids {
            Ids::Own(token_ids) => token_ids,
            Ids::Stored { store, range } => &store.token_ids()[range.clone()],
        }
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
        match &self.token_ids {
            Ids::Own(token_ids) => token_ids.len(),
            Ids::Stored { range, .. } => range.len(),
        }
    }

    /// Positions whose hidden state predicts a scored token: the token at `p + 1` is predicted
    /// at `p`.
    pub fn predicting_positions(&self) -> std::ops::Range<usize> {
        self.boundary - 1..self.len() - 1
    }
}

/// Sequences are equal by their tokens and boundary, wherever the tokens lie.
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

    #[derive(Debug)]
    struct Numbers(Vec<u32>);

    impl TokenStore for Numbers {
        fn token_ids(&self) -> &[u32] {
            &self.0
        }
    }

    #[test]
    fn a_stored_sequence_is_the_one_of_its_tokens() {
        let store = Arc::new(Numbers((0..10).collect()));
        let stored = SplitSequence::stored(store, 5..9, 3).unwrap();
        let own = SplitSequence::new(vec![5, 6, 7, 8], 3).unwrap();
        assert_eq!(stored, own);
        assert_eq!(stored.len(), 4);
        assert_eq!(stored.scored(), [8]);
        assert_ne!(stored.with_boundary(2).unwrap(), own);
        assert_eq!(stored.with_boundary(2).unwrap().conditioning(), [5, 6]);
    }

    #[test]
    fn an_empty_span_is_refused() {
        for boundary in [0, 2, 3] {
            assert!(SplitSequence::new(vec![1, 2], boundary).is_err());
            let store = Arc::new(Numbers(vec![9, 1, 2]));
            assert!(SplitSequence::stored(store, 1..3, boundary).is_err());
            let whole = SplitSequence::new(vec![1, 2], 1).unwrap();
            assert!(whole.with_boundary(boundary).is_err());
        }
    }
}
