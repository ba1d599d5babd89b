//! One prompt with its answer, tokenised as a row of a data set is.

use chameleon_core::SplitSequence;

use super::cut::cut_exchange;
use super::fields::joined;
use super::stream::{Tokenise, TokeniseError};
use super::windows::WindowOptions;

/// A prompt and its answer as a row of a data set is read, with the token that ends an answer; `None` if one of them has
/// no token, or the prompt fills `seq_len`.
///
/// # Errors
///
/// When `tokenise` fails.
pub(crate) fn exchange_sequence(
    prompt: &str,
    answer: &str,
    answer_end: Option<u32>,
    seq_len: usize,
    tokenise: &Tokenise<'_>,
) -> Result<Option<SplitSequence>, TokeniseError> {
    let (text, exchange) = joined(prompt.to_owned(), answer);
    let tokens = tokenise(&text)?;
    let Ok(mut options) = WindowOptions::new(seq_len, 1) else {
        return Ok(None);
    };
    if let Some(token_id) = answer_end {
        options = options.with_answer_end(token_id);
    }
    let mut windows = cut_exchange(&tokens, &exchange, options).windows;
    Ok(windows
        .pop()
        .and_then(|window| SplitSequence::new(window.token_ids, window.boundary).ok()))
}
