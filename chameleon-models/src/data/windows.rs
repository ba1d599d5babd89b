//! How long the windows are that documents are cut into.

use super::error::DataError;

/// How documents are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowOptions {
    seq_len: usize,
    prefix: usize,
    min_scored: usize,
    answer_end: Option<u32>,
}

impl WindowOptions {
    /// Fewest scored tokens of a document's last window, unless a full window scores fewer.
    pub const DEFAULT_MIN_SCORED: usize = 8;

    /// Windows of `seq_len` tokens, the first `prefix` of which are the conditioning span.
    ///
    /// # Errors
    /// [`DataError::WindowSizes`] unless `1 <= prefix < seq_len`.
    pub fn new(seq_len: usize, prefix: usize) -> Result<Self, DataError> {
        let min_scored = Self::DEFAULT_MIN_SCORED.min(seq_len.saturating_sub(prefix));
        Self::checked(seq_len, prefix, min_scored)
    }

    /// The same windows, the last of a document being kept from `min_scored` scored tokens on.
    ///
    /// # Errors
    /// [`DataError::WindowSizes`] unless `1 <= min_scored` and `prefix + min_scored <= seq_len`.
    pub fn with_min_scored(self, min_scored: usize) -> Result<Self, DataError> {
        Ok(Self {
            answer_end: self.answer_end,
            ..Self::checked(self.seq_len, self.prefix, min_scored)?
        })
    }

    /// The same windows, with this token behind every answer that is not cut off and does not write its end itself:
    /// a model learns from it where to stop.
    #[must_use]
    pub fn with_answer_end(self, token_id: u32) -> Self {
        Self {
            answer_end: Some(token_id),
            ..self
        }
    }

    /// Tokens of a full window.
    pub fn seq_len(self) -> usize {
        self.seq_len
    }

    /// Tokens of the conditioning span.
    pub fn prefix(self) -> usize {
        self.prefix
    }

    /// Fewest tokens of a window.
    pub fn min_len(self) -> usize {
        self.prefix + self.min_scored
    }

    /// Fewest scored tokens of a window.
    pub(super) fn min_scored(self) -> usize {
        self.min_scored
    }

    /// The token behind an answer that does not write its end.
    pub(super) fn answer_end(self) -> Option<u32> {
        self.answer_end
    }

    fn checked(seq_len: usize, prefix: usize, min_scored: usize) -> Result<Self, DataError> {
        let fits = prefix
            .checked_add(min_scored)
            .is_some_and(|needed| needed <= seq_len);
        if prefix == 0 || min_scored == 0 || !fits {
            return Err(DataError::WindowSizes {
                seq_len,
                prefix,
                min_scored,
            });
        }
        Ok(Self {
            seq_len,
            prefix,
            min_scored,
            answer_end: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_leave_nothing_are_refused() {
        for (seq_len, prefix) in [(4, 0), (4, 4), (4, 5), (0, 0), (1, 1)] {
            assert!(
                WindowOptions::new(seq_len, prefix).is_err(),
                "{seq_len} {prefix}"
            );
        }
        let options = WindowOptions::new(4, 1).unwrap();
        assert!(options.with_min_scored(0).is_err());
        assert!(options.with_min_scored(4).is_err());
        assert!(options.with_min_scored(usize::MAX).is_err());
    }
}
