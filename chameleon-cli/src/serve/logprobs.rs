//! Probabilities of tokens in the two shapes that OpenAI has for them.

use chameleon_models::{
    Tokenizer,
    engine::{TokenChoice, TokenEvent},
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::tokens::spell;

/// `logprobs` of a chat: one entry a token.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct ChatLogprobs {
    content: Vec<ChatToken>,
    refusal: Option<()>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ChatToken {
    #[serde(flatten)]
    token: LikelyToken,
    top_logprobs: Vec<LikelyToken>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct LikelyToken {
    token: String,
    logprob: f32,
    bytes: Option<Vec<u8>>,
}

impl ChatLogprobs {
    pub(crate) fn push(&mut self, event: &TokenEvent, tokenizer: &Tokenizer) {
        let likely = |choice: &TokenChoice| {
            let spelled = spell(tokenizer, choice.token_id);
            LikelyToken {
                token: spelled.text,
                logprob: finite(choice.logprob),
                bytes: spelled.bytes,
            }
        };
        self.content.push(ChatToken {
            token: likely(&chosen(event)),
            top_logprobs: event.top.iter().map(likely).collect(),
        });
    }
}

/// `logprobs` of a completion: four lists of equal length.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    top_logprobs: Vec<Map<String, Value>>,
    text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// Adds a token; `offset` counts the characters before it and is moved behind it.
    pub(crate) fn push(&mut self, event: &TokenEvent, tokenizer: &Tokenizer, offset: &mut usize) {
        let token = chosen(event);
        let spelled = spell(tokenizer, token.token_id);
        self.text_offset.push(*offset);
        *offset += spelled.text.chars().count();
        self.tokens.push(spelled.label());
        self.token_logprobs.push(finite(token.logprob));
        let top = event.top.iter().map(|choice| {
            let label = spell(tokenizer, choice.token_id).label();
            (label, finite(choice.logprob).into())
        });
        self.top_logprobs.push(top.collect());
    }
}

fn chosen(event: &TokenEvent) -> TokenChoice {
    TokenChoice {
        token_id: event.token_id,
        logprob: event.logprob.unwrap_or(f32::NEG_INFINITY),
    }
}

/// JSON knows no infinity; OpenAI writes -9999 for a token that cannot be.
fn finite(logprob: f32) -> f32 {
    if logprob.is_finite() {
        logprob
    } else {
        -9999.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_tokens_are_still_json() {
        assert_eq!(finite(f32::NEG_INFINITY).to_string(), "-9999");
        assert_eq!(finite(f32::NAN).to_string(), "-9999");
        assert_eq!(finite(-0.5).to_string(), "-0.5");
    }
}
