//! Tokens, and the text that each of them stands for.

use std::ops::Range;

/// The tokens of a text, and where in the text each of them ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenisedText {
    token_ids: Vec<u32>,
    byte_ends: Vec<usize>,
}

impl TokenisedText {
    /// Tokens with the byte position in the text at which each one ends.
    ///
    /// An end before that of an earlier token (a special token, which stands for no text, often claims position 0)
    /// counts as the end of the earlier one. A character divided among tokens belongs to the first whose end covers
    /// it, so the bytes of consecutive ranges always sum to those of the whole.
    ///
    /// # Panics
    /// If there are more or fewer ends than tokens.
    pub fn new(token_ids: Vec<u32>, mut byte_ends: Vec<usize>) -> Self {
        assert_eq!(token_ids.len(), byte_ends.len(), "one end for each token");
        let mut last = 0;
        for end in &mut byte_ends {
            last = last.max(*end);
            *end = last;
        }
        Self {
            token_ids,
            byte_ends,
        }
    }

    /// The tokens.
    pub fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// Where in the text each token ends, never before the one before it.
    pub(super) fn byte_ends(&self) -> &[usize] {
        &self.byte_ends
    }

    /// How many bytes of text the tokens of `range` stand for.
    ///
    /// # Panics
    /// If `range` reaches past the last token.
    pub fn num_bytes(&self, range: Range<usize>) -> usize {
        let end_of = |num_tokens: usize| match num_tokens {
            0 => 0,
            _ => self.byte_ends[num_tokens - 1],
        };
        end_of(range.end) - end_of(range.start)
    }

    /// Position of the first token that stands for a byte at `position` or behind it; the number of tokens if none
    /// does.
    pub(super) fn token_at(&self, position: usize) -> usize {
        self.byte_ends.partition_point(|&end| end <= position)
    }

    /// The tokens that stand for a byte of `range`.
    pub(super) fn tokens_of(&self, range: &Range<usize>) -> Range<usize> {
        let start = self.token_at(range.start);
        let end = match range.end.checked_sub(1) {
            Some(last) => (self.token_at(last) + 1).min(self.token_ids.len()),
            None => start,
        };
        start..end.max(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_tokens_stand_for_no_bytes() {
        let text = TokenisedText::new(vec![1, 10, 11, 2], vec![0, 3, 5, 0]);
        assert_eq!(text.num_bytes(0..1), 0);
        assert_eq!(text.num_bytes(1..4), 5);
        assert_eq!(text.num_bytes(2..4), 2);
        assert_eq!(text.num_bytes(3..4), 0);
    }
}
