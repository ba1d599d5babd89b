//! Texts whose tokens show by colour where one method predicts better than another.

use chameleon_models::data::Example;
use chameleon_models::{ModelError, Tokenizer};
use serde::Serialize;

/// A text, token by token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Sample {
    pub(crate) title: String,
    /// The prompt, which is not scored, without the words of a template around it.
    pub(crate) prompt: String,
    pub(crate) tokens: Vec<TokenGain>,
}

/// A scored token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TokenGain {
    text: String,
    /// Class in the style sheet: `g1` to `g4` for gains, `l1` to `l4` for losses, empty for neither.
    class: String,
    /// Nats by which it became likelier, with a sign.
    gain: String,
}

impl TokenGain {
    /// `gain` is in nats, above zero where the token became likelier.
    pub(crate) fn new(text: String, gain: f32) -> Self {
        let level = [0.05, 0.2, 0.5, 1.0]
            .iter()
            .filter(|&&least| gain.abs() >= least)
            .count();
        let class = match (level, gain > 0.0) {
            (0, _) => String::new(),
            (level, true) => format!("g{level}"),
            (level, false) => format!("l{level}"),
        };
        Self {
            text,
            class,
            gain: format!("{gain:+.2}"),
        }
    }
}

/// An example with the gain of each of its scored tokens.
///
/// # Errors
///
/// When the tokens cannot be decoded.
pub(crate) fn sample(
    title: String,
    example: &Example,
    gains: &[f32],
    tokenizer: &Tokenizer,
) -> Result<Sample, ModelError> {
    let sequence = &example.sequence;
    let conditioning = tokenizer.decode(sequence.conditioning())?;
    let prompt = if example.prompt_token_ids() == sequence.conditioning() {
        conditioning.clone()
    } else {
        // The words of the template, left out here, stood between the prompt and its answer.
        let prompt = tokenizer.decode(example.prompt_token_ids())?;
        format!("{}\n", prompt.trim_end())
    };
    // Several tokens may make one character; the text of each is what it adds to the whole.
    let mut shown = conditioning;
    let mut tokens = Vec::new();
    for (idx, &gain) in gains.iter().enumerate() {
        let end = sequence.boundary() + idx + 1;
        let text = tokenizer.decode(&sequence.token_ids()[..end])?;
        let is_whole = !text.ends_with(char::REPLACEMENT_CHARACTER);
        let new = match text.strip_prefix(shown.as_str()) {
            Some(new) if is_whole => new.to_owned(),
            _ if is_whole => tokenizer.decode(&sequence.token_ids()[end - 1..end])?,
            _ => String::new(),
        };
        if is_whole {
            shown = text;
        }
        tokens.push(TokenGain::new(new, gain));
    }
    Ok(Sample {
        title,
        prompt,
        tokens,
    })
}

/// The rows with the largest and the smallest value, `count` of each at most and none twice.
pub(crate) fn extremes(values: &[f64], count: usize) -> Extremes {
    let mut rows: Vec<usize> = (0..values.len()).collect();
    rows.sort_by(|&left, &right| values[right].total_cmp(&values[left]));
    let count = count.min(rows.len() / 2);
    Extremes {
        highest: rows[..count].to_vec(),
        lowest: rows.iter().rev().take(count).copied().collect(),
    }
}

/// See [`extremes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extremes {
    /// The highest first.
    pub(crate) highest: Vec<usize>,
    /// The lowest first.
    pub(crate) lowest: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_grow_with_the_gain_and_tell_gain_from_loss() {
        let class = |gain| TokenGain::new(String::new(), gain).class;
        assert_eq!([0.0, 0.04, -0.04].map(class), ["", "", ""]);
        assert_eq!([0.1, 0.3, 0.7, 9.0].map(class), ["g1", "g2", "g3", "g4"]);
        assert_eq!([-0.1, -9.0].map(class), ["l1", "l4"]);
    }

    #[test]
    fn extremes_are_ordered_and_never_the_same() {
        let found = extremes(&[0.1, 0.9, -0.3, 0.5], 3);
        assert_eq!(found.highest, [1, 3]);
        assert_eq!(found.lowest, [2, 0]);
        let one = extremes(&[0.1], 3);
        assert!(one.highest.is_empty() && one.lowest.is_empty());
    }
}
