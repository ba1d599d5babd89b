//! `POST /v1/chat/completions`

use std::{sync::Arc, time::Instant};

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use chameleon_models::{ChatMessage, engine::Logprobs};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    answer::{Answers, CompleteAnswer, GroupNote, Step, StepKind, UsageBody},
    blocking::compute,
    body,
    error::ApiError,
    logprobs::ChatLogprobs,
    prompts::encode_chat,
    settings::{
        AnswerSettings, Extension, Stop, StreamOptions, Wishes, max_new_tokens, refuse_unsupported,
        top_logprobs,
    },
    state::{Server, unix_seconds},
    stream::{self, Envelope, Pieces, UsagePiece},
    strict::{Object, word},
};

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChatRequest {
    model: String,
    messages: Vec<Object<Message>>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    n: Option<u64>,
    stream: Option<bool>,
    stream_options: Option<Object<StreamOptions>>,
    stop: Option<Stop>,
    seed: Option<i64>,
    logprobs: Option<bool>,
    top_logprobs: Option<u64>,
    chameleon: Option<Object<Extension>>,
    #[serde(rename = "user")]
    _user: Option<String>,
    frequency_penalty: Option<Value>,
    presence_penalty: Option<Value>,
    logit_bias: Option<Value>,
    tools: Option<Value>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<Value>,
    functions: Option<Value>,
    function_call: Option<Value>,
    #[serde(rename = "response_format")]
    _response_format: Option<Object<ResponseFormat>>,
    store: Option<Value>,
    metadata: Option<Value>,
}

/// One turn of the conversation.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    role: Role,
    content: Option<Content>,
    name: Option<Value>,
    refusal: Option<Value>,
    tool_calls: Option<Value>,
    function_call: Option<Value>,
    audio: Option<Value>,
    annotations: Option<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
enum Role {
    System,
    /// What newer clients call the system.
    Developer,
    User,
    Assistant,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a text or a list of parts of type `text`"
)]
enum Content {
    Text(String),
    Parts(Vec<Object<Part>>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    #[serde(rename = "type")]
    _kind: TextKind,
    text: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResponseFormat {
    #[serde(rename = "type")]
    _kind: TextKind,
}

/// The only kind of content there is here.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct TextKind;

impl TryFrom<String> for TextKind {
    type Error = String;

    fn try_from(found: String) -> Result<Self, String> {
        word(&found, &[("text", Self)])
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

/// `POST /v1/chat/completions`
pub(crate) async fn answer(
    State(server): State<Arc<Server>>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let mut asked: ChatRequest = body::read(request, server.limits.max_body_bytes).await?;
    asked.refuse_unsupported()?;
    let model = server.choose_model(&asked.model)?;
    let settings = asked.settings(&server)?;
    let messages = asked.take_messages()?;
    let settings = AnswerSettings::new(settings.0, &model, settings.1, settings.2)?;
    let prompt = compute(&server, move |server| encode_chat(server, &messages)).await?;
    let usage = UsageBody::of_prompts(prompt.token_ids.len());
    let id = server.next_answer("chatcmpl");
    let requests = settings.requests(&[prompt], &id);
    let answers = Answers::start(&server, requests, arrived).map_err(about_messages)?;
    let mut envelope = Envelope {
        id: id.text,
        object: "chat.completion",
        created: unix_seconds(),
        model: model.id,
    };
    if asked.stream == Some(true) {
        envelope.object = "chat.completion.chunk";
        let pieces = ChatPieces {
            usage_piece: UsagePiece::of(asked.stream_options.as_ref()),
            envelope,
            usage,
            server,
        };
        return Ok(stream::respond(answers, pieces));
    }
    stream::respond_whole(answers, &envelope, usage, |choice_idx, answer| {
        choice(choice_idx, answer, settings.logprobs, &server)
    })
    .await
}

/// Chats have messages where completions have a prompt.
fn about_messages(error: ApiError) -> ApiError {
    match error.param.as_deref() {
        Some("prompt") => error.about("messages"),
        _ => error,
    }
}

impl ChatRequest {
    fn refuse_unsupported(&self) -> Result<(), ApiError> {
        // Without tools no tool can be chosen, so "none" and "auto" ask for nothing either.
        let tool_choice = self
            .tool_choice
            .clone()
            .filter(|choice| !matches!(choice.as_str(), Some("none" | "auto")));
        refuse_unsupported(&[
            ("frequency_penalty", &self.frequency_penalty),
            ("presence_penalty", &self.presence_penalty),
            ("logit_bias", &self.logit_bias),
            ("tools", &self.tools),
            ("tool_choice", &tool_choice),
            ("parallel_tool_calls", &self.parallel_tool_calls),
            ("functions", &self.functions),
            ("function_call", &self.function_call),
            ("store", &self.store),
            ("metadata", &self.metadata),
        ])
    }

    fn settings(&self, server: &Server) -> Result<(Wishes, usize, Logprobs), ApiError> {
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
        let max_new_tokens = max_new_tokens(server, given, usize::MAX, param)?;
        let logprobs = match (self.logprobs, self.top_logprobs) {
            (Some(true), top) => top_logprobs(top.unwrap_or(0), "top_logprobs")?,
            (_, Some(_)) => {
                return Err(ApiError::invalid(
                    "top_logprobs",
                    "`top_logprobs` needs `logprobs` to be true",
                ));
            }
            (_, None) => Logprobs::None,
        };
        if self.stream_options.is_some() && self.stream != Some(true) {
            return Err(ApiError::invalid(
                "stream_options",
                "`stream_options` needs `stream` to be true",
            ));
        }
        let wishes = Wishes {
            temperature: self.temperature,
            top_p: self.top_p,
            num_choices: self.n,
            seed: self.seed,
            stop: self.stop.clone(),
            extension: self.chameleon.clone().unwrap_or_default().0,
        };
        Ok((wishes, max_new_tokens, logprobs))
    }

    fn take_messages(&mut self) -> Result<Vec<ChatMessage>, ApiError> {
        if self.messages.is_empty() {
            return Err(ApiError::invalid("messages", "there is no message"));
        }
        std::mem::take(&mut self.messages)
            .into_iter()
            .enumerate()
            .map(|(idx, Object(message))| message.into_chat(idx))
            .collect()
    }
}

impl Message {
    fn into_chat(self, idx: usize) -> Result<ChatMessage, ApiError> {
        let place = |field: &str| format!("messages[{idx}].{field}");
        for (field, value) in [
            ("name", self.name),
            ("refusal", self.refusal),
            ("tool_calls", self.tool_calls),
            ("function_call", self.function_call),
            ("audio", self.audio),
            ("annotations", self.annotations),
        ] {
            refuse_unsupported(&[(&place(field), &value)])?;
        }
        let content = match self.content {
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => {
                parts.into_iter().map(|Object(part)| part.text).collect()
            }
            None => return Err(ApiError::invalid(place("content"), "the message is empty")),
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

fn choice(
    choice_idx: usize,
    answer: &CompleteAnswer,
    logprobs: Logprobs,
    server: &Server,
) -> Value {
    let logprobs = (logprobs != Logprobs::None).then(|| {
        let mut all = ChatLogprobs::default();
        for token in &answer.tokens {
            all.push(token, server.tokenizer());
        }
        all
    });
    json!({
        "index": choice_idx,
        "message": {"role": "assistant", "content": answer.text, "refusal": null},
        "logprobs": logprobs,
        "finish_reason": answer.finish_reason,
        "chameleon": answer.note,
    })
}

/// The pieces of a streamed chat.
struct ChatPieces {
    envelope: Envelope,
    usage_piece: UsagePiece,
    usage: UsageBody,
    server: Arc<Server>,
}

impl ChatPieces {
    fn opening(&self, choice_idx: usize, note: &GroupNote) -> String {
        let choice = json!({
            "index": choice_idx,
            "delta": {"role": "assistant", "content": "", "refusal": null},
            "logprobs": null,
            "finish_reason": null,
            "chameleon": note,
        });
        self.envelope.piece(choice, self.usage_piece)
    }

    fn text(&self, choice_idx: usize, text: &str, logprobs: Option<&ChatLogprobs>) -> String {
        let choice = json!({
            "index": choice_idx,
            "delta": {"content": text},
            "logprobs": logprobs,
            "finish_reason": null,
        });
        self.envelope.piece(choice, self.usage_piece)
    }

    fn end(&self, choice_idx: usize, reason: &str) -> String {
        let choice = json!({
            "index": choice_idx,
            "delta": {},
            "logprobs": null,
            "finish_reason": reason,
        });
        self.envelope.piece(choice, self.usage_piece)
    }
}

impl Pieces for ChatPieces {
    fn pieces(&mut self, step: Step) -> Vec<String> {
        let Step { choice_idx, kind } = step;
        match kind {
            StepKind::Started(note) => vec![self.opening(choice_idx, &note)],
            StepKind::Token(token) => {
                let logprobs = token.logprob.is_some().then(|| {
                    let mut one = ChatLogprobs::default();
                    one.push(&token, self.server.tokenizer());
                    one
                });
                if token.text.is_empty() && logprobs.is_none() {
                    return Vec::new();
                }
                vec![self.text(choice_idx, &token.text, logprobs.as_ref())]
            }
            StepKind::Finished {
                reason,
                text,
                usage,
            } => {
                self.usage.add(&usage);
                let rest = (!text.is_empty()).then(|| self.text(choice_idx, &text, None));
                rest.into_iter()
                    .chain([self.end(choice_idx, reason)])
                    .collect()
            }
        }
    }

    fn closing(&mut self) -> Vec<String> {
        match self.usage_piece {
            UsagePiece::Told => vec![self.envelope.usage(self.usage)],
            UsagePiece::Left => Vec::new(),
        }
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
    fn what_cannot_be_said_to_the_model_is_named() {
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
