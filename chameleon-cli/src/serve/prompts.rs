//! From requests to token ids: texts, token ids and conversations.

use std::time::SystemTime;

use axum::http::StatusCode;
use chameleon_models::{CausalLm as _, ChatEnding, ChatInput, ChatMessage};
use serde::Deserialize;

use super::{error::ApiError, state::Server};
use crate::resolve::PromptLog;

/// One text or many, as text or as token ids.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a text, a list of texts, a list of token ids or a list of such lists"
)]
pub(crate) enum TextInput {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

/// A prompt that is ready for the engine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EncodedPrompt {
    pub(crate) token_ids: Vec<u32>,
    /// The part by which it is grouped; if empty, the prompt itself.
    pub(crate) grouping_token_ids: Vec<u32>,
    /// The text, for `echo`.
    pub(crate) text: String,
}

/// One text, or its token ids.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum OneInput {
    Text(String),
    Tokens(Vec<u32>),
}

impl TextInput {
    /// The single texts.
    ///
    /// # Errors
    ///
    /// If there are none, or too many.
    pub(crate) fn into_inputs(self, param: &str, max: usize) -> Result<Vec<OneInput>, ApiError> {
        let inputs: Vec<OneInput> = match self {
            Self::Text(text) => vec![OneInput::Text(text)],
            Self::Texts(texts) => texts.into_iter().map(OneInput::Text).collect(),
            Self::Tokens(token_ids) => vec![OneInput::Tokens(token_ids)],
            Self::TokenLists(lists) => lists.into_iter().map(OneInput::Tokens).collect(),
        };
        if inputs.is_empty() || inputs.len() > max {
            let message = format!("found {} texts, expected 1 to {max}", inputs.len());
            return Err(ApiError::invalid(param, message));
        }
        Ok(inputs)
    }
}

impl OneInput {
    /// The token ids of a prompt to continue.
    pub(crate) fn encode(self, server: &Server) -> Result<EncodedPrompt, ApiError> {
        let tokenizer = server.tokenizer();
        let encoded = match self {
            Self::Text(text) => {
                let unspelled =
                    |_| ApiError::invalid("prompt", "the text cannot be split into tokens");
                EncodedPrompt {
                    token_ids: tokenizer
                        .encode_with_special_tokens(&text)
                        .map_err(unspelled)?,
                    grouping_token_ids: tokenizer.encode(&text).map_err(unspelled)?,
                    text,
                }
            }
            Self::Tokens(token_ids) => {
                check_known(&token_ids, "prompt", server)?;
                EncodedPrompt {
                    grouping_token_ids: without_bos(&token_ids, tokenizer.bos_token_id()),
                    text: tokenizer.decode(&token_ids).map_err(|_| {
                        ApiError::invalid("prompt", "the token ids cannot be turned into text")
                    })?,
                    token_ids,
                }
            }
        };
        check_len(encoded.token_ids.len(), "prompt", server)?;
        log(server, &encoded.text);
        Ok(encoded)
    }

    /// The token ids of a text to embed: without special tokens, as in training.
    pub(crate) fn encode_bare(self, server: &Server) -> Result<Vec<u32>, ApiError> {
        let token_ids = match self {
            Self::Text(text) => {
                log(server, &text);
                server.tokenizer().encode(&text).map_err(|_| {
                    ApiError::invalid("input", "the text cannot be split into tokens")
                })?
            }
            Self::Tokens(token_ids) => token_ids,
        };
        check_known(&token_ids, "input", server)?;
        check_len(token_ids.len(), "input", server)?;
        Ok(token_ids)
    }
}

/// The text of a conversation that awaits a reply, by the model's chat template.
pub(crate) fn render_chat(server: &Server, messages: &[ChatMessage]) -> Result<String, ApiError> {
    let chat = server.chat.as_ref().ok_or_else(|| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "no_chat_template",
            "the model has no chat template; use /v1/completions",
        )
        .about("messages")
    })?;
    chat.template
        .render(&ChatInput {
            messages,
            ending: ChatEnding::AwaitReply,
            bos_token: &chat.bos_token,
            eos_token: &chat.eos_token,
            now: SystemTime::now(),
        })
        .map_err(|error| {
            let reason = std::error::Error::source(&error)
                .map_or_else(|| error.to_string(), ToString::to_string);
            ApiError::invalid(
                "messages",
                format!("the model's chat template refuses the conversation: {reason}"),
            )
        })
}

/// A conversation, rendered by the model's chat template.
pub(crate) fn encode_chat(
    server: &Server,
    messages: &[ChatMessage],
) -> Result<EncodedPrompt, ApiError> {
    let text = render_chat(server, messages)?;
    let unspelled = |_| ApiError::invalid("messages", "the text cannot be split into tokens");
    let tokenizer = server.tokenizer();
    let encoded = EncodedPrompt {
        // The template contains the special tokens.
        token_ids: tokenizer.encode(&text).map_err(unspelled)?,
        grouping_token_ids: tokenizer.encode(grouped_by(messages)).map_err(unspelled)?,
        text,
    };
    check_len(encoded.token_ids.len(), "messages", server)?;
    log(server, &encoded.text);
    Ok(encoded)
}

/// A conversation is grouped by the last message of the user.
fn grouped_by(messages: &[ChatMessage]) -> &str {
    let of_user = messages.iter().rev().find(|message| message.role == "user");
    of_user
        .or(messages.last())
        .map_or("", |message| message.content.as_str())
}

fn without_bos(token_ids: &[u32], bos: Option<u32>) -> Vec<u32> {
    match token_ids {
        [first, rest @ ..] if Some(*first) == bos => rest.to_vec(),
        token_ids => token_ids.to_vec(),
    }
}

fn check_known(token_ids: &[u32], param: &str, server: &Server) -> Result<(), ApiError> {
    let vocab_size = server.engine.model().model.sizes().vocab_size;
    match token_ids.iter().find(|&&id| id as usize >= vocab_size) {
        Some(id) => Err(ApiError::invalid(
            param,
            format!("found token id {id}, the model knows {vocab_size}"),
        )),
        None => Ok(()),
    }
}

fn check_len(num_tokens: usize, param: &str, server: &Server) -> Result<(), ApiError> {
    let max = server.max_prompt_tokens();
    if num_tokens == 0 {
        return Err(ApiError::invalid(param, "the text is empty"));
    }
    if num_tokens > max {
        let message = format!("the text has {num_tokens} tokens, at most {max} are allowed");
        return Err(
            ApiError::new(StatusCode::BAD_REQUEST, "context_length_exceeded", message).about(param),
        );
    }
    Ok(())
}

/// Prompts are private: they are logged only with `--log-prompts`.
fn log(server: &Server, text: &str) {
    if server.prompt_log == PromptLog::Shown {
        tracing::info!(prompt = text, "prompt");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_grouped_by_its_last_user_message() {
        let messages = [
            ChatMessage::system("be brief"),
            ChatMessage::user("first"),
            ChatMessage::assistant("answer"),
            ChatMessage::user("second"),
        ];
        assert_eq!(grouped_by(&messages), "second");
        assert_eq!(grouped_by(&messages[..1]), "be brief");
        assert_eq!(grouped_by(&[]), "");
    }

    #[test]
    fn prompts_come_in_four_shapes() {
        let shape = |json: &str| serde_json::from_str::<TextInput>(json).unwrap();
        assert_eq!(shape(r#""a""#), TextInput::Text("a".to_owned()));
        assert_eq!(shape(r#"["a"]"#), TextInput::Texts(vec!["a".to_owned()]));
        assert_eq!(shape("[1, 2]"), TextInput::Tokens(vec![1, 2]));
        assert_eq!(
            shape("[[1], [2]]"),
            TextInput::TokenLists(vec![vec![1], vec![2]])
        );
        assert!(shape("[]").into_inputs("prompt", 4).is_err());
        assert!(serde_json::from_str::<TextInput>("[1, \"a\"]").is_err());
    }

    #[test]
    fn grouping_ignores_the_bos_token() {
        assert_eq!(without_bos(&[0, 5], Some(0)), [5]);
        assert_eq!(without_bos(&[5, 0], Some(0)), [5, 0]);
        assert_eq!(without_bos(&[5], None), [5]);
    }
}
