//! From token ids to rows: the input tokens, the scored tokens and the tokens averaged into an embedding.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::masked::Visibility;
use crate::training::grouped_examples::StateRequest;
use crate::training::recipes::quirks::{Quirk, Quirks};

/// The id that the published masks and losses treat as padding.
pub(crate) const TESTED_ID: u32 = 0;

/// Which tokens of a row are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PublishedLoss {
    /// The last one, the script's default.
    #[default]
    Last,
    /// Every token but the first, each predicted from the earlier ones.
    Full,
}

/// How rows are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowOptions {
    /// Which tokens are scored.
    pub loss: PublishedLoss,
    /// The deviations from common practice.
    pub quirks: Quirks,
    /// Largest number of tokens of a row, and with padding the length of every row.
    pub seq_len: usize,
    /// The padding token.
    pub pad_id: u32,
}

/// A tokenised text, and its condition without [`Quirk::Leak`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedText {
    /// All of its tokens.
    pub token_ids: Vec<u32>,
    /// Positions of the tokens that condition it, which may be past its end.
    pub prompt: Range<usize>,
    /// Position of the first token that is scored, at or after the end of `prompt`.
    pub scored_from: usize,
}

impl PublishedText {
    /// A text that is conditioned on its first `prefix` tokens.
    pub fn of_prefix(token_ids: Vec<u32>, prefix: usize) -> Self {
        Self {
            token_ids,
            prompt: 0..prefix,
            scored_from: prefix,
        }
    }
}

/// One row of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedRow {
    /// The input tokens.
    token_ids: Vec<u32>,
    /// Positions whose states predict a target.
    positions: Vec<usize>,
    /// The target token of each of them.
    targets: Vec<u32>,
    /// Tokens whose embeddings are averaged; may be empty.
    pooled: Vec<u32>,
    /// How many of `targets` are padding.
    num_scored_padding: usize,
    /// Its index in the data.
    source_idx: usize,
}

/// Makes rows of tokenised texts. Texts without a scored token are left out.
pub fn published_rows(texts: &[PublishedText], options: &RowOptions) -> Vec<PublishedRow> {
    texts
        .iter()
        .enumerate()
        .map(|(source_idx, text)| PublishedRow::new(text, source_idx, options))
        .filter(|row| !row.positions.is_empty())
        .collect()
}

impl RowOptions {
    /// The tokens that attention masks.
    pub fn visibility(&self) -> Visibility {
        if self.quirks.has(Quirk::ScoredPadding) {
            Visibility::AllBut(TESTED_ID)
        } else {
            Visibility::AllTokens
        }
    }
}

impl PublishedRow {
    fn new(text: &PublishedText, source_idx: usize, options: &RowOptions) -> Self {
        let quirks = &options.quirks;
        let real = &text.token_ids[..text.token_ids.len().min(options.seq_len)];
        let mut padded = real.to_vec();
        padded.resize(options.seq_len, options.pad_id);
        let (span, scored_from) = if quirks.has(Quirk::Leak) {
            (0..options.seq_len, 0)
        } else {
            (text.prompt.clone(), text.scored_from)
        };
        let within = |ids: &[u32]| ids[span.start.min(ids.len())..span.end.min(ids.len())].to_vec();
        let mut pooled = if quirks.has(Quirk::PooledPadding) {
            within(&padded)
        } else {
            within(real)
        };
        if quirks.has(Quirk::PooledPadding) {
            pooled.retain(|&id| id != TESTED_ID);
        }
        let token_ids = if quirks.has(Quirk::ScoredPadding) {
            padded
        } else {
            real.to_vec()
        };
        let is_scored = |&(_, target): &(usize, usize)| {
            let is_ignored = quirks.has(Quirk::ScoredPadding) && token_ids[target] == TESTED_ID;
            target >= scored_from && !is_ignored
        };
        let scored: Vec<(usize, usize)> = alignment(token_ids.len(), options)
            .into_iter()
            .filter(is_scored)
            .collect();
        let is_padding = |&&(_, target): &&(usize, usize)| target >= real.len();
        Self {
            positions: scored.iter().map(|&(position, _)| position).collect(),
            targets: scored
                .iter()
                .map(|&(_, target)| token_ids[target])
                .collect(),
            num_scored_padding: scored.iter().filter(is_padding).count(),
            pooled,
            source_idx,
            token_ids,
        }
    }

    /// The index of this row in the source data.
    pub fn source_idx(&self) -> usize {
        self.source_idx
    }

    /// The target tokens of the scored states.
    pub fn targets(&self) -> &[u32] {
        &self.targets
    }

    /// The tokens whose embeddings are averaged.
    pub(crate) fn pooled(&self) -> &[u32] {
        &self.pooled
    }

    /// Scored targets that lie in the padding.
    pub fn num_scored_padding(&self) -> usize {
        self.num_scored_padding
    }

    /// The request for the states that predict the targets of this row.
    pub(crate) fn request(&self) -> StateRequest<'_> {
        StateRequest {
            token_ids: &self.token_ids,
            positions: self.positions.clone(),
        }
    }
}

/// Pairs of a state's position and the position of its target token.
fn alignment(len: usize, options: &RowOptions) -> Vec<(usize, usize)> {
    match options.loss {
        PublishedLoss::Last if len == 0 => Vec::new(),
        PublishedLoss::Last if options.quirks.has(Quirk::UnshiftedLoss) => vec![(len - 1, len - 1)],
        PublishedLoss::Last => (len.max(2) - 1..len).map(|last| (last - 1, last)).collect(),
        PublishedLoss::Full => (1..len).map(|target| (target - 1, target)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAD: u32 = 9;

    fn row(text: &[u32], loss: PublishedLoss, off: &[Quirk]) -> Option<PublishedRow> {
        let options = RowOptions {
            loss,
            quirks: Quirks::published().without(off),
            seq_len: 6,
            pad_id: PAD,
        };
        published_rows(&[PublishedText::of_prefix(text.to_vec(), 2)], &options).pop()
    }

    fn scored(row: &PublishedRow) -> (&[usize], &[u32]) {
        (&row.positions, &row.targets)
    }

    #[test]
    fn as_published_the_last_position_is_scored_against_itself() {
        let short = row(&[3, 0, 4], PublishedLoss::Last, &[]).unwrap();
        assert_eq!(short.token_ids, [3, 0, 4, PAD, PAD, PAD]);
        assert_eq!(scored(&short), (&[5][..], &[PAD][..]));
        assert_eq!(short.pooled, [3, 4, PAD, PAD, PAD]);
        assert_eq!(short.num_scored_padding(), 1);
        let long = row(&[1, 2, 3, 4, 5, 6, 7], PublishedLoss::Last, &[]).unwrap();
        assert_eq!(scored(&long), (&[5][..], &[6][..]));
        assert_eq!(long.num_scored_padding(), 0);
        // The loss treats token 0 as padding.
        assert!(row(&[1, 2, 3, 4, 5, 0], PublishedLoss::Last, &[]).is_none());
    }

    #[test]
    fn the_full_loss_predicts_the_next_token_and_skips_token_zero() {
        let row = row(&[3, 0, 4], PublishedLoss::Full, &[]).unwrap();
        assert_eq!(scored(&row), (&[1, 2, 3, 4][..], &[4, PAD, PAD, PAD][..]));
        assert_eq!(row.num_scored_padding(), 3);
    }

    #[test]
    fn without_padding_a_row_ends_with_its_text() {
        let padding = [Quirk::ScoredPadding, Quirk::PooledPadding];
        let row_without = |text: &[u32], loss| row(text, loss, &padding);
        let last = row_without(&[3, 0, 4], PublishedLoss::Last).unwrap();
        assert_eq!(last.token_ids, [3, 0, 4]);
        assert_eq!(scored(&last), (&[2][..], &[4][..]));
        assert_eq!(last.pooled, [3, 0, 4]);
        let full = row_without(&[3, 0, 4], PublishedLoss::Full).unwrap();
        assert_eq!(scored(&full), (&[0, 1][..], &[0, 4][..]));
        assert_eq!(full.num_scored_padding(), 0);
        assert!(row_without(&[], PublishedLoss::Last).is_none());
        assert!(row_without(&[3], PublishedLoss::Full).is_none());
    }

    #[test]
    fn without_the_leak_no_averaged_token_is_scored() {
        let full = row(&[3, 1, 4, 5], PublishedLoss::Full, &[Quirk::Leak]).unwrap();
        assert_eq!(full.pooled, [3, 1]);
        assert_eq!(scored(&full), (&[1, 2, 3, 4][..], &[4, 5, PAD, PAD][..]));
        let quirks = [Quirk::Leak, Quirk::ScoredPadding, Quirk::PooledPadding];
        assert!(row(&[3, 1], PublishedLoss::Last, &quirks).is_none());
        assert!(row(&[3, 1, 4], PublishedLoss::Last, &quirks).is_some());
    }

    #[test]
    fn without_the_leak_an_answer_is_scored_and_its_prompt_averaged() {
        let options = RowOptions {
            loss: PublishedLoss::Full,
            quirks: Quirks::published().without(&[Quirk::Leak]),
            seq_len: 6,
            pad_id: PAD,
        };
        let text = PublishedText {
            token_ids: vec![7, 3, 4, 7, 5, 6],
            prompt: 1..3,
            scored_from: 4,
        };
        let row = published_rows(&[text], &options).pop().unwrap();
        assert_eq!(row.pooled, [3, 4]);
        assert_eq!(row.targets, [5, 6]);
    }

    #[test]
    fn a_shifted_last_token_is_predicted_from_the_one_before() {
        let row = row(
            &[3, 1, 4, 5, 6, 7],
            PublishedLoss::Last,
            &[Quirk::UnshiftedLoss],
        )
        .unwrap();
        assert_eq!(scored(&row), (&[4][..], &[7][..]));
    }
}
