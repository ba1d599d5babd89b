//! From token ids to rows: what the model reads, what is scored and what is averaged into an embedding.

use serde::{Deserialize, Serialize};

use crate::grouped_examples::{StateRequest, Visibility};
use crate::recipes::quirks::{Quirk, Quirks};

/// The id that the published masks and losses take for padding.
pub(crate) const TESTED_ID: u32 = 0;

/// Which tokens of a row are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PublishedLoss {
    /// The last one, the script's default.
    #[default]
    Last,
    /// Every token but the first, each predicted from what precedes it.
    Full,
}

/// How rows are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowOptions {
    /// Which tokens are scored.
    pub loss: PublishedLoss,
    /// What is unusual.
    pub quirks: Quirks,
    /// Tokens kept of a row, and with padding the length of every row.
    pub seq_len: usize,
    /// Tokens that condition a row without [`Quirk::Leak`].
    pub prefix: usize,
    /// The token that fills rows up.
    pub pad_id: u32,
}

/// One row of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedRow {
    /// What the model reads.
    token_ids: Vec<u32>,
    /// Whose states score something.
    positions: Vec<usize>,
    /// What each of them is scored against.
    targets: Vec<u32>,
    /// Tokens whose embeddings are averaged; may be empty.
    pooled: Vec<u32>,
    /// How many of `targets` are padding.
    num_scored_padding: usize,
    /// Where it stands in the data.
    source_idx: usize,
}

/// Makes rows of tokenised texts. Texts of which nothing would be scored are left out.
pub fn published_rows(texts: &[Vec<u32>], options: &RowOptions) -> Vec<PublishedRow> {
    texts
        .iter()
        .enumerate()
        .map(|(source_idx, text)| PublishedRow::new(text, source_idx, options))
        .filter(|row| !row.positions.is_empty())
        .collect()
}

impl RowOptions {
    /// What attention may look at.
    pub fn visibility(&self) -> Visibility {
        if self.quirks.has(Quirk::ScoredPadding) {
            Visibility::AllBut(TESTED_ID)
        } else {
            Visibility::AllTokens
        }
    }
}

impl PublishedRow {
    fn new(text: &[u32], source_idx: usize, options: &RowOptions) -> Self {
        let quirks = &options.quirks;
        let real = &text[..text.len().min(options.seq_len)];
        let mut padded = real.to_vec();
        padded.resize(options.seq_len, options.pad_id);
        let first_scored = if quirks.has(Quirk::Leak) {
            0
        } else {
            options.prefix
        };
        let span = if quirks.has(Quirk::Leak) {
            options.seq_len
        } else {
            options.prefix
        };
        let pooled = if quirks.has(Quirk::PooledPadding) {
            let span = padded.iter().take(span);
            span.copied().filter(|&id| id != TESTED_ID).collect()
        } else {
            real.iter().take(span).copied().collect()
        };
        let token_ids = if quirks.has(Quirk::ScoredPadding) {
            padded
        } else {
            real.to_vec()
        };
        let is_scored = |&(_, target): &(usize, usize)| {
            let is_ignored = quirks.has(Quirk::ScoredPadding) && token_ids[target] == TESTED_ID;
            target >= first_scored && !is_ignored
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

    /// Where this row stands in the data that it was made of.
    pub fn source_idx(&self) -> usize {
        self.source_idx
    }

    /// What the scored states are scored against.
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

    /// The states that score this row.
    pub(crate) fn request(&self) -> StateRequest<'_> {
        StateRequest {
            token_ids: &self.token_ids,
            positions: self.positions.clone(),
        }
    }
}

/// Pairs of a state's position and the position of the token it is scored against.
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
            prefix: 2,
            pad_id: PAD,
        };
        published_rows(&[text.to_vec()], &options).pop()
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
        // The loss takes token 0 for padding.
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
