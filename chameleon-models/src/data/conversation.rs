//! Chats of many messages: what of them is prompt, and what is the answer that is scored.

use std::error::Error;

use serde_json::{Map, Value};

use super::corpus::{AnswerEnd, Exchange, Origin};
use super::error::DataError;
use super::fields::missing;
use super::record::{Record, kind};
use crate::chat::ChatMessage;

/// Writes messages out as a model's chat template does: complete, or up to where an answer would begin.
///
/// The second argument says which; templates come with models, so the caller has them.
pub type RenderChat<'a> = dyn Fn(&[ChatMessage], crate::chat::ChatEnding) -> Result<String, Box<dyn Error + Send + Sync>>
    + 'a;

const EXPECTED: &str = "a list of objects with `role` and `content`";

/// The messages in a field; `from` and `value` are read as `role` and `content`.
pub(super) fn messages(record: &Record, field: &str) -> Result<Vec<ChatMessage>, DataError> {
    let wrong = |found| DataError::FieldKind {
        origin: record.origin.clone(),
        field: field.to_owned(),
        found,
        expected: EXPECTED,
    };
    let list = match record.fields.get(field) {
        Some(Value::Array(list)) => list,
        Some(value) => return Err(wrong(kind(value))),
        None => return Err(missing(record, field)),
    };
    let message = |value: &Value| {
        let Value::Object(fields) = value else {
            return Err(wrong("a list with something else"));
        };
        message(fields).ok_or_else(|| wrong("an object without them"))
    };
    list.iter().map(message).collect()
}

fn message(fields: &Map<String, Value>) -> Option<ChatMessage> {
    let role = fields.get("role").or_else(|| fields.get("from"))?;
    let role = match role.as_str()? {
        "human" => "user",
        "gpt" | "model" => "assistant",
        role => role,
    };
    let content = fields.get("content").or_else(|| fields.get("value"))?;
    Some(ChatMessage {
        role: role.to_owned(),
        content: text_of(content)?,
    })
}

/// A string, or the texts of a list of parts.
fn text_of(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => parts
            .iter()
            .map(|part| part.get("text").and_then(Value::as_str))
            .collect(),
        _ => None,
    }
}

/// The text of a conversation up to its last answer, or `None` if nobody answers.
pub(super) fn render(
    messages: &[ChatMessage],
    render_chat: Option<&RenderChat<'_>>,
    origin: &Origin,
) -> Result<Option<(String, Exchange)>, DataError> {
    use crate::chat::ChatEnding;

    let Some(answer_idx) = messages
        .iter()
        .rposition(|message| message.role == "assistant" && !message.content.trim().is_empty())
    else {
        return Ok(None);
    };
    let render_chat = render_chat.ok_or_else(|| DataError::NoChatTemplate {
        origin: origin.clone(),
    })?;
    let rendered = |messages: &[ChatMessage], ending| {
        render_chat(messages, ending).map_err(|source| DataError::Chat {
            origin: origin.clone(),
            source,
        })
    };
    let prompt = rendered(&messages[..answer_idx], ChatEnding::AwaitReply)?;
    let text = rendered(&messages[..=answer_idx], ChatEnding::Complete)?;
    if prompt.is_empty() || !text.starts_with(&prompt) || text.len() == prompt.len() {
        return Err(DataError::ChatRewritten {
            origin: origin.clone(),
        });
    }
    let exchange = Exchange {
        condition: 0..prompt.len(),
        answer_start: prompt.len(),
        end: AnswerEnd::Written,
    };
    Ok(Some((text, exchange)))
}
