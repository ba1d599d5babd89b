//! Log probabilities of tokens in OpenAI's two shapes.

use std::collections::BTreeMap;

use chameleon_models::Tokenizer;
use chameleon_models::engine::{TokenChoice, TokenEvent};
use serde::Serialize;
use utoipa::ToSchema;

use super::tokens::spell;

/// `logprobs` of a chat completion: one entry for each token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct ChatLogprobs {
    content: Vec<ChatToken>,
    #[schema(value_type = Option<String>, required)]
    refusal: Option<()>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct ChatToken {
    token: String,
    logprob: f64,
    #[schema(required)]
    bytes: Option<Vec<u8>>,
    top_logprobs: Vec<LikelyToken>,
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct LikelyToken {
    token: String,
    logprob: f64,
    #[schema(required)]
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
        let sampled = likely(&sampled(event));
        self.content.push(ChatToken {
            token: sampled.token,
            logprob: sampled.logprob,
            bytes: sampled.bytes,
            top_logprobs: event.top.iter().map(likely).collect(),
        });
    }
}

/// `logprobs` of a completion: four lists of equal length.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f64>,
    top_logprobs: Vec<BTreeMap<String, f64>>,
    text_offset: Vec<usize>,
}

impl CompletionLogprobs {
    /// Adds a token; `offset` is the number of characters before it, and is advanced past it.
    pub(crate) fn push(&mut self, event: &TokenEvent, tokenizer: &Tokenizer, offset: &mut usize) {
        let token = sampled(event);
        let spelled = spell(tokenizer, token.token_id);
        self.text_offset.push(*offset);
        *offset += spelled.text.chars().count();
        self.tokens.push(spelled.label());
        self.token_logprobs.push(finite(token.logprob));
        let top = event.top.iter().map(|choice| {
            let label = spell(tokenizer, choice.token_id).label();
            (label, finite(choice.logprob))
        });
        self.top_logprobs.push(top.collect());
    }
}

fn sampled(event: &TokenEvent) -> TokenChoice {
    TokenChoice {
        token_id: event.token_id,
        logprob: event.logprob.unwrap_or(f32::NEG_INFINITY),
    }
}

/// JSON has no infinity; OpenAI writes -9999 for a token of probability zero.
fn finite(logprob: f32) -> f64 {
    if logprob.is_finite() {
        logprob.into()
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
