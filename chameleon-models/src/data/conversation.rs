//! Chats of many messages: their prompt and their scored answer.

use std::error::Error;

use serde_json::{Map, Value};

use super::document::{AnswerEnd, Exchange, Origin};
use super::error::DataError;
use super::record::{Record, kind, missing};
use crate::files::chat::{ChatEnding, ChatMessage};

/// Renders messages with a model's chat template: complete, or up to the start of an answer.
///
/// The second argument selects one of the two; templates are part of models, so the caller provides them.
pub type RenderChat<'a> =
    dyn Fn(&[ChatMessage], ChatEnding) -> Result<String, Box<dyn Error + Send + Sync>> + 'a;

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

/// The text of a conversation up to its last answer, or `None` if there is no answer.
pub(super) fn render(
    messages: &[ChatMessage],
    render_chat: Option<&RenderChat<'_>>,
    origin: &Origin,
) -> Result<Option<(String, Exchange)>, DataError> {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn record(messages: Value) -> Record {
        let mut fields = Map::new();
        fields.insert("messages".to_owned(), messages);
        Record {
            fields,
            origin: Origin::new(Path::new("chats.jsonl"), 3),
            columns: None,
        }
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "stands in for a template, which may refuse"
    )]
    fn marked(
        messages: &[ChatMessage],
        ending: ChatEnding,
    ) -> Result<String, Box<dyn Error + Send + Sync>> {
        let mut text = String::new();
        for message in messages {
            for piece in ["<", &message.role, ">", &message.content, "</>"] {
                text.push_str(piece);
            }
        }
        if ending == ChatEnding::AwaitReply {
            text += "<assistant>";
        }
        Ok(text)
    }

    fn rendered(messages: Value) -> Result<Option<(String, Exchange)>, DataError> {
        let record = record(messages);
        let messages = messages_of(&record)?;
        render(&messages, Some(&marked), &record.origin)
    }

    fn messages_of(record: &Record) -> Result<Vec<ChatMessage>, DataError> {
        messages(record, "messages")
    }

    #[test]
    fn the_last_answer_is_scored_and_all_before_it_is_prompt() {
        let (text, exchange) = rendered(json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": [{"type": "text", "text": "c"}]},
            {"role": "assistant", "content": "d"},
            {"role": "user", "content": "thanks"},
        ]))
        .unwrap()
        .unwrap();
        assert_eq!(&text[exchange.answer_start..], "d</>");
        assert_eq!(
            &text[..exchange.answer_start],
            "<user>a</><assistant>b</><user>c</><assistant>"
        );
        assert_eq!(exchange.end, AnswerEnd::Written);
    }

    #[test]
    fn other_names_for_the_same_roles_are_known() {
        let (text, _) = rendered(json!([
            {"from": "human", "value": "a"},
            {"from": "gpt", "value": "b"},
        ]))
        .unwrap()
        .unwrap();
        assert_eq!(text, "<user>a</><assistant>b</>");
    }

    #[test]
    fn nobody_answering_is_no_error() {
        assert!(rendered(json!([])).unwrap().is_none());
        assert!(
            rendered(json!([{"role": "user", "content": "a"}]))
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn what_is_no_conversation_is_named() {
        for (value, found) in [
            (json!("text"), "a string"),
            (json!([1]), "a list with something else"),
            (json!([{"role": "user"}]), "an object without them"),
            (
                json!([{"role": 1, "content": "a"}]),
                "an object without them",
            ),
            (
                json!([{"role": "user", "content": null}]),
                "an object without them",
            ),
        ] {
            assert_eq!(
                messages_of(&record(value)).unwrap_err().to_string(),
                format!(
                    "chats.jsonl:3: field `messages` holds {found}, expected a list of objects with `role` and `content`"
                )
            );
        }
    }

    #[test]
    fn templates_that_are_missing_or_change_their_mind_are_errors() {
        let record = record(json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
        ]));
        let messages = messages_of(&record).unwrap();
        let error = render(&messages, None, &record.origin).unwrap_err();
        assert!(matches!(error, DataError::NoChatTemplate { .. }));
        let fickle = |messages: &[ChatMessage], _: ChatEnding| Ok(messages.len().to_string());
        let error = render(&messages, Some(&fickle), &record.origin).unwrap_err();
        assert!(matches!(error, DataError::ChatRewritten { .. }));
    }
}
