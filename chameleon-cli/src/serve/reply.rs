//! How answers are sent: whole, or as server-sent events in the order in which tokens are generated.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::response::{
    IntoResponse as _, Response,
    sse::{Event, KeepAlive, Sse},
};
use chameleon_models::engine::TokenEvent;
use futures_util::stream;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    answer::{Answers, CompleteAnswer, FinishReason, GroupNote, Step, StepKind, UsageBody},
    drafts::Drafts,
    error::ApiError,
    prompts::EncodedPrompt,
    settings::{AnswerSettings, Delivery, UsageChunk},
    state::{Server, unix_seconds},
    wire::{Json, ObjectKind, to_text},
};

/// Interval between comments that keep an idle connection open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How the choices of one route are written.
pub(crate) trait Format: Send + 'static {
    /// How the ids of its answers begin.
    const ID_PREFIX: &'static str;
    /// The kind of a whole answer.
    const OBJECT: ObjectKind;
    /// The kind of a piece of a streamed answer.
    const PIECE_OBJECT: ObjectKind;
    /// The parameter that holds the prompt.
    const PROMPT: &'static str;
    /// A whole choice.
    type Choice: Serialize;
    /// A piece of a streamed choice.
    type Piece: Serialize;

    fn choice(&mut self, choice_idx: usize, answer: CompleteAnswer) -> Self::Choice;

    /// The first piece of a choice.
    fn opening(&mut self, choice_idx: usize, note: GroupNote) -> Self::Piece;

    fn token(&mut self, choice_idx: usize, token: TokenEvent) -> Self::Piece;

    /// The last pieces of a choice, of which the first holds the rest of the text.
    fn closing(
        &mut self,
        choice_idx: usize,
        text: String,
        reason: FinishReason,
    ) -> Vec<Self::Piece>;
}

/// A whole answer, or a piece of a streamed one.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Answer)]
pub(crate) struct Envelope<C> {
    id: String,
    object: ObjectKind,
    created: u64,
    model: String,
    #[schema(value_type = Option<String>, required)]
    system_fingerprint: Option<()>,
    choices: Vec<C>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = UsageBody, required)]
    usage: Option<UsageField>,
}

/// `usage` of an answer. If it was requested for a streamed one, it is `null` in all pieces but the last.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum UsageField {
    Pending,
    Total(UsageBody),
}

/// An event of a stream: `data` is a piece of the answer as JSON, or an error, or `[DONE]` at the end.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes what axum writes")]
pub(crate) struct StreamEvent {
    data: String,
}

/// Passes the requests to the engine and responds with their answers.
pub(crate) async fn respond<F: Format>(
    server: &Arc<Server>,
    settings: AnswerSettings,
    prompts: &[EncodedPrompt],
    arrived: Instant,
    format: F,
) -> Result<Response, ApiError> {
    let id = server.next_answer(F::ID_PREFIX);
    let requests = settings.requests(prompts, &id);
    let drafts = Drafts::of(server, &settings, prompts, &id.text);
    let answers = Answers::start(server, requests, arrived, drafts).map_err(|error| match error
        .param
        .as_deref()
    {
        Some("prompt") => error.about(F::PROMPT),
        _ => error,
    })?;
    let num_prompt_tokens = prompts.iter().map(|prompt| prompt.token_ids.len()).sum();
    let writer = Writer {
        id: id.text,
        created: unix_seconds(),
        model: settings.model.id,
        usage: UsageBody::of_prompts(num_prompt_tokens),
        format,
    };
    match settings.delivery {
        Delivery::Whole => writer.whole(answers).await,
        Delivery::Streamed(usage_chunk) => Ok(writer.stream(answers, usage_chunk)),
    }
}

/// Writes the answers of one request.
struct Writer<F> {
    id: String,
    created: u64,
    model: String,
    usage: UsageBody,
    format: F,
}

impl<F: Format> Writer<F> {
    /// Waits for all answers.
    async fn whole(mut self, answers: Answers) -> Result<Response, ApiError> {
        let complete = answers.collect().await?;
        let mut choices = Vec::new();
        for (choice_idx, answer) in complete.into_iter().enumerate() {
            self.usage.add(&answer.usage);
            choices.push(self.format.choice(choice_idx, answer));
        }
        let usage = UsageField::Total(self.usage);
        Ok(Json(self.envelope(F::OBJECT, choices, Some(usage))).into_response())
    }

    /// A streamed response. It is dropped when its client disconnects, which cancels the answers.
    fn stream(self, answers: Answers, usage_chunk: UsageChunk) -> Response {
        let state = StreamState {
            answers,
            writer: self,
            usage_chunk,
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

    /// The pieces of a step; often one, sometimes none.
    fn pieces(&mut self, step: Step) -> Vec<F::Piece> {
        let Step { choice_idx, kind } = step;
        match kind {
            StepKind::Started(note) => vec![self.format.opening(choice_idx, note)],
            StepKind::Token(token) if token.text.is_empty() && token.logprob.is_none() => {
                Vec::new()
            }
            StepKind::Token(token) => vec![self.format.token(choice_idx, token)],
            StepKind::Finished {
                reason,
                text,
                usage,
            } => {
                self.usage.add(&usage);
                self.format.closing(choice_idx, text, reason)
            }
        }
    }

    fn envelope<C>(
        &self,
        object: ObjectKind,
        choices: Vec<C>,
        usage: Option<UsageField>,
    ) -> Envelope<C> {
        Envelope {
            id: self.id.clone(),
            object,
            created: self.created,
            model: self.model.clone(),
            system_fingerprint: None,
            choices,
            usage,
        }
    }
}

struct StreamState<F> {
    answers: Answers,
    writer: Writer<F>,
    usage_chunk: UsageChunk,
    ready: VecDeque<String>,
    is_over: bool,
}

impl<F: Format> StreamState<F> {
    /// The data of the next event.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                return Some(data);
            }
            if self.is_over {
                return None;
            }
            match self.answers.next().await {
                Some(Ok(step)) => {
                    for piece in self.writer.pieces(step) {
                        let usage = match self.usage_chunk {
                            UsageChunk::Sent => Some(UsageField::Pending),
                            UsageChunk::Omitted => None,
                        };
                        self.push(vec![piece], usage);
                    }
                }
                Some(Err(error)) => {
                    // The status has been sent; the error becomes an event.
                    self.ready.push_back(to_text(&error.body()));
                    self.is_over = true;
                }
                None => {
                    if self.usage_chunk == UsageChunk::Sent {
                        let usage = UsageField::Total(self.writer.usage);
                        self.push(Vec::new(), Some(usage));
                    }
                    self.ready.push_back("[DONE]".to_owned());
                    self.is_over = true;
                }
            }
        }
    }

    fn push(&mut self, choices: Vec<F::Piece>, usage: Option<UsageField>) {
        let piece = self.writer.envelope(F::PIECE_OBJECT, choices, usage);
        self.ready.push_back(to_text(&piece));
    }
}
