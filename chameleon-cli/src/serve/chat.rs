//! `POST /v1/chat/completions`

use std::{sync::Arc, time::Instant};

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use chameleon_models::ChatMessage;
use chameleon_models::engine::{Logprobs, TokenEvent};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    answer::{CompleteAnswer, FinishReason, GroupNote},
    blocking::compute,
    body,
    error::{ApiError, BodyErrors, EngineErrors, GuardedErrors},
    logprobs::ChatLogprobs,
    prompts::encode_chat,
    reply::{Envelope, Format, StreamEvent, respond},
    settings::{
        AnswerSettings, Extension, Stop, StreamOptions, max_new_tokens, request_options,
        top_logprobs,
    },
    state::Server,
    strict::{Object, word},
    unsupported::{Unsupported, UnsupportedToolChoice},
    wire::ObjectKind,
};

/// A conversation to answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "unused parameters are checked as they are read")]
pub(crate) struct ChatRequest {
    model: String,
    #[schema(value_type = Vec<Message>, min_items = 1)]
    messages: Vec<Object<Message>>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f64>,
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f64>,
    n: Option<u64>,
    stream: Option<bool>,
    #[schema(value_type = Option<StreamOptions>)]
    stream_options: Option<Object<StreamOptions>>,
    stop: Option<Stop>,
    seed: Option<i64>,
    logprobs: Option<bool>,
    top_logprobs: Option<u64>,
    #[schema(value_type = Option<Extension>)]
    chameleon: Option<Object<Extension>>,
    user: Option<String>,
    frequency_penalty: Option<Unsupported>,
    presence_penalty: Option<Unsupported>,
    logit_bias: Option<Unsupported>,
    tools: Option<Unsupported>,
    tool_choice: Option<UnsupportedToolChoice>,
    parallel_tool_calls: Option<Unsupported>,
    functions: Option<Unsupported>,
    function_call: Option<Unsupported>,
    #[schema(value_type = Option<ResponseFormat>)]
    response_format: Option<Object<ResponseFormat>>,
    store: Option<Unsupported>,
    metadata: Option<Unsupported>,
}

/// One turn of the conversation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "unused parameters are checked as they are read")]
pub(crate) struct Message {
    role: Role,
    #[schema(value_type = Content)]
    content: Option<Content>,
    name: Option<Unsupported>,
    refusal: Option<Unsupported>,
    tool_calls: Option<Unsupported>,
    function_call: Option<Unsupported>,
    audio: Option<Unsupported>,
    annotations: Option<Unsupported>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(rename_all = "lowercase")]
enum Role {
    System,
    /// The name of the system role in newer clients.
    Developer,
    User,
    Assistant,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a text or a list of parts of type `text`"
)]
enum Content {
    Text(String),
    #[schema(value_type = Vec<ContentPart>)]
    Parts(Vec<Object<ContentPart>>),
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ContentPart {
    #[serde(rename = "type")]
    _kind: TextKind,
    text: String,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ResponseFormat {
    #[serde(rename = "type")]
    _kind: TextKind,
}

/// The only supported kind of content.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(rename_all = "lowercase")]
enum TextKind {
    Text,
}

impl TryFrom<String> for TextKind {
    type Error = String;

    fn try_from(found: String) -> Result<Self, String> {
        word(&found, &[("text", Self::Text)])
    }
}

impl TryFrom<String> for Role {
    type Error = String;

    fn try_from(found: String) -> Result<Self, String> {
        let words = [
            ("system", Self::System),
            ("developer", Self::Developer),
            ("user", Self::User),
            ("assistant", Self::Assistant),
        ];
        word(&found, &words)
    }
}

/// Answer a conversation
#[utoipa::path(post, path = "/v1/chat/completions", operation_id = "createChatCompletion",
    request_body = ChatRequest,
    responses(
        (status = 200, description = "The answers", content(
            (Envelope<ChatChoice> = "application/json"), (StreamEvent = "text/event-stream"))),
        GuardedErrors, BodyErrors, EngineErrors))]
pub(crate) async fn answer(
    State(server): State<Arc<Server>>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let mut asked: ChatRequest = body::read(request, server.limits.max_body_bytes).await?;
    let model = server.choose_model(&asked.model)?;
    let max_new_tokens = asked.max_new_tokens(&server)?;
    let logprobs = asked.logprobs()?;
    let messages = asked.take_messages()?;
    let options = request_options!(asked);
    let settings = AnswerSettings::new(options, model, max_new_tokens, logprobs)?;
    let prompt = compute(&server, move |server| encode_chat(server, &messages)).await?;
    let format = ChatFormat {
        logprobs,
        server: Arc::clone(&server),
    };
    respond(&server, settings, &[prompt], arrived, format).await
}

impl ChatRequest {
    fn max_new_tokens(&self, server: &Server) -> Result<usize, ApiError> {
        let (given, param) = match (self.max_tokens, self.max_completion_tokens) {
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid(
                    "max_tokens",
                    "`max_tokens` is the old name of `max_completion_tokens`; send one of them",
                ));
            }
            (given, None) => (given, "max_tokens"),
            (None, given) => (given, "max_completion_tokens"),
        };
        max_new_tokens(server, given, usize::MAX, param)
    }

    fn logprobs(&self) -> Result<Logprobs, ApiError> {
        match (self.logprobs, self.top_logprobs) {
            (Some(true), top) => top_logprobs(top.unwrap_or(0), "top_logprobs"),
            (_, Some(_)) => Err(ApiError::invalid(
                "top_logprobs",
                "`top_logprobs` needs `logprobs` to be true",
            )),
            (_, None) => Ok(Logprobs::None),
        }
    }

    fn take_messages(&mut self) -> Result<Vec<ChatMessage>, ApiError> {
        if self.messages.is_empty() {
            return Err(ApiError::invalid("messages", "there is no message"));
        }
        chat_messages(std::mem::take(&mut self.messages))
    }
}

/// The turns of a conversation, checked.
pub(crate) fn chat_messages(messages: Vec<Object<Message>>) -> Result<Vec<ChatMessage>, ApiError> {
    messages
        .into_iter()
        .enumerate()
        .map(|(idx, Object(message))| message.into_chat(idx))
        .collect()
}

impl Message {
    fn into_chat(self, idx: usize) -> Result<ChatMessage, ApiError> {
        let content = match self.content {
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => {
                parts.into_iter().map(|Object(part)| part.text).collect()
            }
            None => {
                let param = format!("messages[{idx}].content");
                return Err(ApiError::invalid(param, "the message is empty"));
            }
        };
        let role = match self.role {
            Role::System | Role::Developer => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        };
        Ok(ChatMessage {
            role: role.to_owned(),
            content,
        })
    }
}

/// An answer to a conversation.
#[derive(Debug, Serialize, ToSchema)]
struct ChatChoice {
    index: usize,
    message: AssistantMessage,
    #[schema(required)]
    logprobs: Option<ChatLogprobs>,
    #[schema(required)]
    finish_reason: Option<FinishReason>,
    #[schema(required)]
    chameleon: Option<GroupNote>,
}

#[derive(Debug, Serialize, ToSchema)]
struct AssistantMessage {
    role: AssistantRole,
    content: String,
    #[schema(value_type = Option<String>, required)]
    refusal: Option<()>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum AssistantRole {
    Assistant,
}

/// A piece of a streamed answer.
#[derive(Debug, Serialize)]
struct ChatPiece {
    index: usize,
    delta: Delta,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<FinishReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chameleon: Option<GroupNote>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Delta {
    First(AssistantMessage),
    Text { content: String },
    Last {},
}

impl AssistantMessage {
    fn new(content: String) -> Self {
        Self {
            role: AssistantRole::Assistant,
            content,
            refusal: None,
        }
    }
}

impl ChatPiece {
    fn new(index: usize, delta: Delta) -> Self {
        Self {
            index,
            delta,
            logprobs: None,
            finish_reason: None,
            chameleon: None,
        }
    }
}

struct ChatFormat {
    logprobs: Logprobs,
    server: Arc<Server>,
}

impl ChatFormat {
    fn logprobs(&self, tokens: &[TokenEvent]) -> Option<ChatLogprobs> {
        if self.logprobs == Logprobs::None {
            return None;
        }
        let mut all = ChatLogprobs::default();
        for token in tokens {
            all.push(token, self.server.tokenizer());
        }
        Some(all)
    }
}

impl Format for ChatFormat {
    const ID_PREFIX: &'static str = "chatcmpl";
    const OBJECT: ObjectKind = ObjectKind::ChatCompletion;
    const PIECE_OBJECT: ObjectKind = ObjectKind::ChatCompletionChunk;
    const PROMPT: &'static str = "messages";
    type Choice = ChatChoice;
    type Piece = ChatPiece;

    fn choice(&mut self, index: usize, answer: CompleteAnswer) -> ChatChoice {
        ChatChoice {
            index,
            message: AssistantMessage::new(answer.text),
            logprobs: self.logprobs(&answer.tokens),
            finish_reason: answer.finish_reason,
            chameleon: answer.note,
        }
    }

    fn opening(&mut self, index: usize, note: GroupNote) -> ChatPiece {
        ChatPiece {
            chameleon: Some(note),
            ..ChatPiece::new(index, Delta::First(AssistantMessage::new(String::new())))
        }
    }

    fn token(&mut self, index: usize, token: TokenEvent) -> ChatPiece {
        let logprobs = self.logprobs(std::slice::from_ref(&token));
        let content = token.text;
        ChatPiece {
            logprobs,
            ..ChatPiece::new(index, Delta::Text { content })
        }
    }

    fn closing(&mut self, index: usize, text: String, reason: FinishReason) -> Vec<ChatPiece> {
        let has_text = !text.is_empty();
        let rest = has_text.then(|| ChatPiece::new(index, Delta::Text { content: text }));
        let end = ChatPiece {
            finish_reason: Some(reason),
            ..ChatPiece::new(index, Delta::Last {})
        };
        rest.into_iter().chain([end]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(json: &str) -> Result<Vec<ChatMessage>, ApiError> {
        let body = format!(r#"{{"model": "m", "messages": {json}}}"#);
        body::parse::<ChatRequest>(body.as_bytes())?.take_messages()
    }

    #[test]
    fn texts_and_parts_say_the_same() {
        let text = messages(r#"[{"role": "developer", "content": "ab"}]"#).unwrap();
        let parts = messages(
            r#"[{"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]"#,
        );
        assert_eq!(text, parts.unwrap());
    }

    #[test]
    fn parts_that_the_model_cannot_read_are_named() {
        let param = |json: &str| messages(json).unwrap_err().param.unwrap_or_default();
        assert_eq!(
            param(r#"[{"role": "tool", "content": "x"}]"#),
            "messages[0].role"
        );
        assert_eq!(param(r#"[{"role": "user"}]"#), "messages[0].content");
        assert_eq!(
            param(r#"[{"role": "user", "content": "x", "name": "me"}]"#),
            "messages[0].name"
        );
        assert_eq!(param("[]"), "messages");
        let image =
            r#"[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]"#;
        assert_eq!(param(image), "messages[0].content");
    }

    #[test]
    fn an_answer_may_be_sent_back_as_it_came() {
        let sent_back =
            r#"[{"role": "assistant", "content": "x", "refusal": null, "tool_calls": null}]"#;
        assert_eq!(messages(sent_back), Ok(vec![ChatMessage::assistant("x")]));
    }
}
