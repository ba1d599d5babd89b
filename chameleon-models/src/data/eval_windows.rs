//! A whole text -> the windows in which it is scored for perplexity.

use super::error::DataError;

/// A stretch of a text that is given to the model at once; its last `num_scored` tokens are predicted and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvalWindow<'a> {
    /// The tokens the model sees, at least two.
    pub token_ids: &'a [u32],
    /// Position of the first of them in the text.
    pub start: usize,
    /// How many tokens at the end of the window are scored, at least one.
    pub num_scored: usize,
}

/// Windows of `context` tokens, each starting `stride` after the last: every token is scored once, with at least
/// `context - stride` tokens before it once the text is that long.
///
/// The windows and scored tokens are those of Hugging Face's page "Perplexity of fixed-length models": the first
/// window scores all but its first token, every further one the tokens after the end of the window before it, and
/// the first window that reaches the end of the text is the last. With a stride below the context only the first
/// token of the text is never scored. With a stride equal to the context, a text of `n` tokens has
/// `n - n.div_ceil(context)` scored ones, and a last window of one token is left out: the usual WikiText figure. One
/// difference is left to the caller's weights: that page averages the loss
/// over the scored tokens of a window, then weights the average by one less than their number in every
/// window but the first, an approximation; a sum over all scored tokens divided by their number is exact.
///
/// # Errors
/// If `context` is below 2, `stride` is 0 or above `context`, or the text has fewer than 2 tokens.
pub fn sliding(
    token_ids: &[u32],
    context: usize,
    stride: usize,
) -> Result<Vec<EvalWindow<'_>>, DataError> {
    if context < 2 || stride == 0 || stride > context {
        return Err(DataError::EvalSizes { context, stride });
    }
    let num_tokens = token_ids.len();
    if num_tokens < 2 {
        return Err(DataError::TextTooShort { num_tokens });
    }
    let mut windows = Vec::with_capacity(num_tokens.div_ceil(stride));
    let mut scored_end = 0;
    for start in (0..num_tokens).step_by(stride) {
        let end = num_tokens.min(start.saturating_add(context));
        // The first token of a window has nothing before it, whether or not it is new.
        let num_scored = (end - scored_end).min(end - start - 1);
        if num_scored > 0 {
            windows.push(EvalWindow {
                token_ids: &token_ids[start..end],
                start,
                num_scored,
            });
        }
        scored_end = end;
        if end == num_tokens {
            break;
        }
    }
    Ok(windows)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;

    /// The positions in the text of the scored tokens.
    fn scored_positions(window: &EvalWindow<'_>) -> Range<usize> {
        let end = window.start + window.token_ids.len();
        end - window.num_scored..end
    }

    /// The loop of Hugging Face's page: `(begin, end, scored)`, the scored ones being those whose label survives both
    /// the mask and the shift.
    fn hugging_face(
        seq_len: usize,
        max_length: usize,
        stride: usize,
    ) -> Vec<(usize, usize, usize)> {
        let mut windows = Vec::new();
        let mut prev_end = 0;
        let mut begin = 0;
        while begin < seq_len {
            let end = (begin + max_length).min(seq_len);
            let trg_len = end - prev_end;
            let labels = (begin..end).map(|position| position >= end - trg_len);
            let scored = labels.skip(1).filter(|&kept| kept).count();
            windows.push((begin, end, scored));
            prev_end = end;
            if end == seq_len {
                break;
            }
            begin += stride;
        }
        windows
    }

    #[test]
    fn sixteen_windows_of_1024_score_16368_of_16384_tokens() {
        let token_ids = vec![0; 16_384];
        let windows = sliding(&token_ids, 1024, 1024).unwrap();
        assert_eq!(windows.len(), 16);
        let num_scored = windows
            .iter()
            .map(|window| window.num_scored)
            .sum::<usize>();
        assert_eq!(num_scored, 16_368);
    }

    #[test]
    fn bad_evaluation_sizes_are_refused() {
        assert!(sliding(&[1, 2, 3], 1, 1).is_err());
        assert!(sliding(&[1, 2, 3], 4, 0).is_err());
        assert!(sliding(&[1, 2, 3], 4, 5).is_err());
        assert!(matches!(
            sliding(&[1], 4, 4),
            Err(DataError::TextTooShort { num_tokens: 1 })
        ));
    }

    proptest! {
        #[test]
        fn evaluation_windows_are_those_of_hugging_face(
            num_tokens in 2_usize..200,
            context in 2_usize..40,
            overlap in 0_usize..40,
        ) {
            let stride = context - overlap.min(context - 1);
            let token_ids = (0..u32::try_from(num_tokens).unwrap()).collect::<Vec<_>>();
            let windows = sliding(&token_ids, context, stride).unwrap();
            let ours = windows
                .iter()
                .map(|window| (window.start, window.start + window.token_ids.len(), window.num_scored))
                .collect::<Vec<_>>();
            let theirs = hugging_face(num_tokens, context, stride)
                .into_iter()
                .filter(|&(_, _, scored)| scored > 0)
                .collect::<Vec<_>>();
            prop_assert_eq!(ours, theirs);

            let scored = windows.iter().flat_map(scored_positions).collect::<Vec<_>>();
            let never = if stride == context { context } else { num_tokens };
            let expected = (0..num_tokens).filter(|position| position % never != 0).collect::<Vec<_>>();
            prop_assert_eq!(scored, expected);
            for window in &windows {
                prop_assert_eq!(window.token_ids, &token_ids[window.start..][..window.token_ids.len()]);
            }
        }
    }
}
