//! A text of any length -> its tokens, without ever holding more than a piece of it.
//!
//! Pieces overlap. Where two of them meet, both have tokens that end at the same byte; one is used before it, the
//! other behind it. Tokens thus are those of the whole text as far as they depend on nothing further away than
//! [`MARGIN`]: tokenizers that cut at white space or at words do.

use rayon::prelude::*;

use super::error::DataError;
use super::tokenised::TokenisedText;

/// Bytes that a piece looks at on both sides beyond its own.
const MARGIN: usize = 4 << 10;
/// Bytes of a piece.
const PIECE: usize = 32 << 10;
/// Bytes that are tokenised at once, a piece on each processor.
const BATCH: usize = 16 * PIECE;

/// Receives a text piece by piece and returns its tokens in order.
pub(super) struct PieceTokeniser<'a> {
    tokenise: &'a (dyn Fn(&str) -> Result<TokenisedText, DataError> + Sync),
    /// What is not done yet, and behind it as much as its first tokens depend on.
    text: String,
    /// Bytes at the start of `text` whose tokens are out; `None` before the first token.
    done: Option<usize>,
}

impl<'a> PieceTokeniser<'a> {
    pub(super) fn new(
        tokenise: &'a (dyn Fn(&str) -> Result<TokenisedText, DataError> + Sync),
    ) -> Self {
        Self {
            tokenise,
            text: String::new(),
            done: None,
        }
    }

    /// Goes on with the text; `out` gets the tokens that are certain, with the bytes each of them stands for.
    pub(super) fn push(
        &mut self,
        text: &str,
        out: &mut dyn FnMut(TokenisedText) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.floor_char_boundary(BATCH).max(1);
            let (next, tail) = rest.split_at(rest.ceil_char_boundary(end));
            self.text.push_str(next);
            rest = tail;
            if self.text.len() >= self.done.unwrap_or(0) + BATCH + MARGIN {
                let until = self.text.floor_char_boundary(self.text.len() - MARGIN);
                out(self.settle(until, Ending::Open)?)?;
            }
        }
        Ok(())
    }

    /// The text ends here.
    pub(super) fn finish(
        mut self,
        out: &mut dyn FnMut(TokenisedText) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        if !self.text.is_empty() {
            let until = self.text.len();
            out(self.settle(until, Ending::Here)?)?;
        }
        Ok(())
    }

    /// The tokens up to about `until`.
    fn settle(&mut self, until: usize, ending: Ending) -> Result<TokenisedText, DataError> {
        let begin = self.done.unwrap_or(0);
        let num_pieces = (until - begin).div_ceil(PIECE).max(1);
        let edges: Vec<usize> = (0..=num_pieces)
            .map(|idx| {
                let even = begin + (until - begin) * idx / num_pieces;
                self.text.floor_char_boundary(even)
            })
            .collect();
        let pieces = edges
            .par_windows(2)
            .map(|edge| self.piece(edge[0], edge[1]))
            .collect::<Vec<_>>()
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        let mut found = Stretch::default();
        let mut done = self.done;
        for (idx, piece) in pieces.iter().enumerate() {
            let edge = edges[idx + 1];
            let end = match (pieces.get(idx + 1), ending) {
                (Some(next), _) => piece.common_end(next, edge),
                (None, Ending::Open) => piece.last_end(edge),
                (None, Ending::Here) => edge,
            };
            let start = done.map_or(0, |done| piece.num_tokens_until(done));
            let stop = match (idx + 1 == num_pieces, ending) {
                (true, Ending::Here) => piece.ends.len(),
                _ => piece.num_tokens_until(end),
            };
            if start < stop {
                found.extend(piece, start..stop, begin);
                done = Some(end);
            }
        }
        let done = done.unwrap_or(0);
        let kept = self.text.floor_char_boundary(done.saturating_sub(MARGIN));
        self.text.drain(..kept);
        self.done = Some(done - kept);
        Ok(TokenisedText::new(found.token_ids, found.ends))
    }

    fn piece(&self, start: usize, end: usize) -> Result<Stretch, DataError> {
        let start = self.text.floor_char_boundary(start.saturating_sub(MARGIN));
        let end = self
            .text
            .ceil_char_boundary((end + MARGIN).min(self.text.len()));
        let found = (self.tokenise)(&self.text[start..end])?;
        let ends = found.byte_ends().iter().map(|end| start + end);
        Ok(Stretch {
            ends: ends.collect(),
            token_ids: found.token_ids().to_vec(),
        })
    }
}

/// Whether more text follows.
#[derive(Clone, Copy)]
enum Ending {
    Open,
    Here,
}

/// Tokens with the byte at which each ends.
#[derive(Default)]
struct Stretch {
    token_ids: Vec<u32>,
    ends: Vec<usize>,
}

impl Stretch {
    /// How many tokens end at `position` or before.
    fn num_tokens_until(&self, position: usize) -> usize {
        self.ends.partition_point(|&end| end <= position)
    }

    /// The last end of a token at `position` or before; `position` if there is none.
    fn last_end(&self, position: usize) -> usize {
        match self.num_tokens_until(position).checked_sub(1) {
            Some(idx) => self.ends[idx],
            None => position,
        }
    }

    /// The last byte, at `position` or before, at which a token ends here and in `next`.
    fn common_end(&self, next: &Self, position: usize) -> usize {
        let nearest = self.num_tokens_until(position);
        let shared = self.ends[..nearest]
            .iter()
            .rev()
            .take_while(|&&end| end + MARGIN / 2 > position)
            .find(|end| next.ends.binary_search(end).is_ok());
        shared.copied().unwrap_or_else(|| self.last_end(position))
    }

    fn extend(&mut self, other: &Self, tokens: std::ops::Range<usize>, begin: usize) {
        self.token_ids
            .extend_from_slice(&other.token_ids[tokens.clone()]);
        let ends = other.ends[tokens].iter();
        self.ends.extend(ends.map(|end| end.saturating_sub(begin)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Words with the space before them, line breaks alone, and a first token that stands for nothing, as some
    /// tokenizers write it.
    #[expect(
        clippy::unnecessary_wraps,
        reason = "stands in for a tokenizer, which may fail"
    )]
    fn words(text: &str) -> Result<TokenisedText, DataError> {
        let (mut token_ids, mut ends) = (vec![1], vec![0]);
        let mut start = 0;
        for (at, character) in text.char_indices().chain([(text.len(), ' ')]) {
            if at > start && (character.is_whitespace() || text[start..at].ends_with('\n')) {
                let hash = text[start..at].bytes();
                token_ids.push(hash.fold(7, |hash, byte| hash * 31 % 65_537 + u32::from(byte)));
                ends.push(at);
                start = at;
            }
        }
        if start < text.len() {
            token_ids.push(2);
            ends.push(text.len());
        }
        Ok(TokenisedText::new(token_ids, ends))
    }

    fn in_pieces<'a>(bits: impl Iterator<Item = &'a str>) -> (Vec<u32>, Vec<usize>) {
        let mut tokeniser = PieceTokeniser::new(&words);
        let (mut token_ids, mut ends, mut base) = (Vec::new(), Vec::new(), 0);
        let mut out = |found: TokenisedText| {
            token_ids.extend_from_slice(found.token_ids());
            ends.extend(found.byte_ends().iter().map(|end| base + end));
            base = ends.last().copied().unwrap_or(0);
            Ok(())
        };
        for bit in bits {
            tokeniser.push(bit, &mut out).unwrap();
        }
        tokeniser.finish(&mut out).unwrap();
        (token_ids, ends)
    }

    fn long_text(num_words: usize) -> String {
        let word = |idx: usize| match idx % 7 {
            0 => "Über\n".to_owned(),
            1 => "漢字 ".to_owned(),
            _ => format!("{} ", idx * 7919 % 100_003),
        };
        (0..num_words).map(word).collect()
    }

    #[test]
    fn tokens_in_pieces_are_those_of_the_whole_text() {
        let text = long_text(300_000);
        let whole = words(&text).unwrap();
        for size in [1000, 70_000, text.len()] {
            let mut rest = text.as_str();
            let bits = std::iter::from_fn(|| {
                let (bit, tail) = rest.split_at(rest.floor_char_boundary(size));
                rest = tail;
                (!bit.is_empty()).then_some(bit)
            });
            let (token_ids, ends) = in_pieces(bits);
            assert_eq!(token_ids, whole.token_ids());
            assert_eq!(ends, whole.byte_ends());
        }
    }

    #[test]
    fn a_word_longer_than_any_piece_is_no_endless_loop() {
        let text = format!("{} {}", "x".repeat(3 * BATCH), long_text(10));
        let (token_ids, ends) = in_pieces([text.as_str()].into_iter());
        assert_eq!(ends.last(), Some(&text.len()));
        assert!(!token_ids.is_empty());
    }

    proptest! {
        #[test]
        fn short_texts_are_not_cut(text in "[a-c \nä]{1,40}") {
            let whole = words(&text).unwrap();
            let found = in_pieces([text.as_str()].into_iter());
            prop_assert_eq!(found, (whole.token_ids().to_vec(), whole.byte_ends().to_vec()));
        }
    }
}
