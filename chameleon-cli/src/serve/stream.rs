//! Answers in one piece, or piece by piece: server-sent events in the order in which tokens are chosen.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    answer::{Answers, CompleteAnswer, Step, UsageBody},
    error::{ApiError, json as respond_json},
    settings::StreamOptions,
    strict::Object,
};

/// Between two comments that keep a silent connection open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Writes what happens as pieces of an answer.
pub(crate) trait Pieces: Send + 'static {
    /// The pieces that a step makes; often one, sometimes none.
    fn pieces(&mut self, step: Step) -> Vec<String>;

    /// The pieces after the last step.
    fn closing(&mut self) -> Vec<String>;
}

/// What all pieces of an answer, and a whole one, begin with.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub(crate) id: String,
    pub(crate) object: &'static str,
    pub(crate) created: u64,
    pub(crate) model: String,
}

impl Envelope {
    /// A whole answer.
    fn whole(&self, choices: &[Value], usage: UsageBody) -> Value {
        let mut value = self.value(choices);
        value["usage"] = json!(usage);
        value
    }

    /// A piece of one choice. Who asked for the usage finds the field in every piece, and empty in all but the last.
    pub(crate) fn piece(&self, choice: Value, usage: UsagePiece) -> String {
        let mut value = self.value(&[choice]);
        if usage == UsagePiece::Told {
            value["usage"] = Value::Null;
        }
        piece(&value)
    }

    /// The last piece, which has no choice.
    pub(crate) fn usage(&self, usage: UsageBody) -> String {
        let mut value = self.value(&[]);
        value["usage"] = json!(usage);
        piece(&value)
    }

    fn value(&self, choices: &[Value]) -> Value {
        json!({
            "id": self.id,
            "object": self.object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": null,
            "choices": choices,
        })
    }
}

/// Whether a streamed answer ends with what it cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UsagePiece {
    Left,
    Told,
}

impl UsagePiece {
    pub(crate) fn of(options: Option<&Object<StreamOptions>>) -> Self {
        match options.and_then(|Object(options)| options.include_usage) {
            Some(true) => Self::Told,
            _ => Self::Left,
        }
    }
}

/// The text of one piece.
fn piece(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("pieces have text keys and finite depth")
}

/// Waits for all answers and responds with them in one piece; `choice` writes each of them.
pub(crate) async fn respond_whole(
    answers: Answers,
    envelope: &Envelope,
    mut usage: UsageBody,
    choice: impl Fn(usize, &CompleteAnswer) -> Value,
) -> Result<Response, ApiError> {
    let complete = answers.collect().await?;
    let mut choices = Vec::new();
    for (choice_idx, answer) in complete.iter().enumerate() {
        usage.add(&answer.usage);
        choices.push(choice(choice_idx, answer));
    }
    Ok(respond_json(
        StatusCode::OK,
        &envelope.whole(&choices, usage),
    ))
}

/// A streamed response. When its client goes away it is dropped, and the answers with it.
pub(crate) fn respond(answers: Answers, pieces: impl Pieces) -> Response {
    let state = State {
        answers,
        pieces,
        ready: VecDeque::new(),
        is_over: false,
    };
    let events = stream::unfold(state, |mut state| async move {
        let data = state.next().await?;
        Some((Ok::<_, Infallible>(Event::default().data(data)), state))
    });
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Sse::new(events).keep_alive(keep_alive).into_response()
}

struct State<P> {
    answers: Answers,
    pieces: P,
    ready: VecDeque<String>,
    is_over: bool,
}

impl<P: Pieces> State<P> {
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                return Some(data);
            }
            if self.is_over {
                return None;
            }
            match self.answers.next().await {
                Some(Ok(step)) => self.ready.extend(self.pieces.pieces(step)),
                Some(Err(error)) => {
                    // The status is long gone; clients find the error in the stream.
                    self.ready.push_back(piece(&error.body()));
                    self.is_over = true;
                }
                None => {
                    self.ready.extend(self.pieces.closing());
                    self.ready.push_back("[DONE]".to_owned());
                    self.is_over = true;
                }
            }
        }
    }
}
