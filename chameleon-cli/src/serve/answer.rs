//! The engine's events of all choices of one request, in the order in which they come.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chameleon_models::engine::{
    Cancellation, EndReason, Event, Request, RequestFailure, Started, TokenEvent, Usage,
};
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use utoipa::ToSchema;

use super::{drafts::Drafts, error::ApiError, state::Server};

/// The answers of one request. Dropping it, when the client has disconnected, cancels them and frees their places.
#[derive(Debug)]
pub(crate) struct Answers {
    events: UnboundedReceiver<(usize, Event)>,
    /// Dropping these cancels the answers.
    cancellations: Vec<Cancellation>,
    num_open: usize,
    timeline: Timeline,
    /// The texts, if they are kept for feedback.
    drafts: Option<Drafts>,
    server: Arc<Server>,
}

/// An event of one of the answers.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) choice_idx: usize,
    pub(crate) kind: StepKind,
}

#[derive(Debug)]
pub(crate) enum StepKind {
    Started(GroupNote),
    Token(TokenEvent),
    Finished {
        reason: FinishReason,
        text: String,
        usage: Usage,
    },
}

/// A finished answer.
#[derive(Debug, Default)]
pub(crate) struct CompleteAnswer {
    pub(crate) text: String,
    /// Its tokens, if their probabilities were requested.
    pub(crate) tokens: Vec<TokenEvent>,
    pub(crate) finish_reason: Option<FinishReason>,
    pub(crate) usage: Usage,
    pub(crate) note: Option<GroupNote>,
}

/// How an answer was adapted; all but its id is `null` for the base model.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct GroupNote {
    /// The id by which `/v1/clusters` lists the answer.
    request_id: u64,
    /// The group of the prompt.
    #[schema(required)]
    cluster: Option<usize>,
    /// The condition of the hypernetwork.
    #[schema(required)]
    condition: Option<String>,
    /// The number of prompts in the condition.
    #[schema(required)]
    group_size: Option<usize>,
    /// The distance from the prompt to the centroid of its group.
    #[schema(required)]
    distance: Option<f64>,
    /// The number of examples of the request's key that apply to the answer.
    #[schema(required)]
    num_examples: Option<usize>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FinishReason {
    Stop,
    Length,
}

/// The times at which tokens came.
#[derive(Debug)]
struct Timeline {
    arrived: Instant,
    /// That of the latest token of each choice.
    latest: Vec<Option<Instant>>,
}

impl Answers {
    /// Submits the requests to the engine.
    ///
    /// # Errors
    ///
    /// If the engine rejects one of them; all are then cancelled.
    pub(crate) fn start(
        server: &Arc<Server>,
        requests: Vec<Request>,
        arrived: Instant,
        drafts: Option<Drafts>,
    ) -> Result<Self, ApiError> {
        // `max_new_tokens` bounds the number of events.
        let (sender, events) = unbounded_channel();
        let num_choices = requests.len();
        let mut cancellations = Vec::with_capacity(num_choices);
        for (choice_idx, request) in requests.into_iter().enumerate() {
            let sender = sender.clone();
            cancellations.push(server.engine.submit_with(request, move |event| {
                // Without a receiver, the request is being cancelled.
                let _ = sender.send((choice_idx, event));
            })?);
        }
        Ok(Self {
            events,
            cancellations,
            num_open: num_choices,
            timeline: Timeline {
                arrived,
                latest: vec![None; num_choices],
            },
            drafts,
            server: Arc::clone(server),
        })
    }

    /// The next event; `None` after the end of the last answer.
    pub(crate) async fn next(&mut self) -> Option<Result<Step, ApiError>> {
        if self.num_open == 0 {
            return None;
        }
        let limit = self.server.limits.request_timeout;
        let deadline = (self.timeline.arrived + limit).into();
        // The deadline is polled first: otherwise an engine that always has a token ready would never time out.
        let next = tokio::select! {
            biased;
            () = tokio::time::sleep_until(deadline) => Err(()),
            event = self.events.recv() => Ok(event),
        };
        let step = match next {
            Ok(Some((choice_idx, event))) => self.step(choice_idx, event),
            Ok(None) => Err(RequestFailure::Stopped.into()),
            Err(()) => Err(ApiError::timeout(limit)),
        };
        if step.is_err() {
            // One failed answer ends the whole request.
            self.num_open = 0;
            self.cancellations.clear();
        }
        Some(step)
    }

    /// Waits for all answers.
    pub(crate) async fn collect(mut self) -> Result<Vec<CompleteAnswer>, ApiError> {
        let mut complete: Vec<CompleteAnswer> = Vec::new();
        complete.resize_with(self.cancellations.len(), CompleteAnswer::default);
        while let Some(step) = self.next().await {
            let Step { choice_idx, kind } = step?;
            let answer = &mut complete[choice_idx];
            match kind {
                StepKind::Started(note) => answer.note = Some(note),
                StepKind::Token(token) => {
                    answer.text.push_str(&token.text);
                    if token.logprob.is_some() {
                        answer.tokens.push(token);
                    }
                }
                StepKind::Finished {
                    reason,
                    text,
                    usage,
                } => {
                    answer.text.push_str(&text);
                    answer.finish_reason = Some(reason);
                    answer.usage = usage;
                }
            }
        }
        Ok(complete)
    }

    fn step(&mut self, choice_idx: usize, event: Event) -> Result<Step, ApiError> {
        let metrics = &self.server.metrics;
        let kind = match event {
            Event::Started(started) => {
                metrics.queue_time.observe(started.waited.as_secs_f64());
                StepKind::Started(self.note(choice_idx, &started))
            }
            Event::Token(token) => {
                let (since, is_first) = self.timeline.record(choice_idx);
                let times = if is_first {
                    &metrics.time_to_first_token
                } else {
                    &metrics.time_between_tokens
                };
                times.observe(since.as_secs_f64());
                metrics.token_rate.record(1);
                if let Some(drafts) = &mut self.drafts {
                    drafts.push(choice_idx, &token.text);
                }
                StepKind::Token(token)
            }
            Event::Finished {
                reason,
                text,
                usage,
            } => {
                self.num_open -= 1;
                if let Some(drafts) = &mut self.drafts {
                    drafts.push(choice_idx, &text);
                    drafts.finish(choice_idx, &self.server);
                }
                let took = self.timeline.arrived.elapsed();
                metrics.answer_time.observe(took.as_secs_f64());
                StepKind::Finished {
                    reason: reason.into(),
                    text,
                    usage,
                }
            }
            Event::Failed(failure) => return Err(failure.into()),
            event => {
                tracing::error!("an event of an unknown kind: {event:?}");
                return Err(ApiError::internal());
            }
        };
        Ok(Step { choice_idx, kind })
    }

    fn note(&self, choice_idx: usize, started: &Started) -> GroupNote {
        let group = started.group.as_ref();
        GroupNote {
            request_id: self.cancellations[choice_idx].request_id(),
            cluster: group.map(|group| group.cluster_idx),
            condition: group.map(|group| group.condition.to_string()),
            group_size: group.map(|group| group.group_size),
            distance: group.map(|group| group.distance.into()),
            num_examples: group.map(|group| group.num_exemplars),
        }
    }
}

impl Timeline {
    /// The time since the token before, or since the request came if there was none.
    fn record(&mut self, choice_idx: usize) -> (Duration, bool) {
        let now = Instant::now();
        let before = self.latest[choice_idx].replace(now);
        (now - before.unwrap_or(self.arrived), before.is_none())
    }
}

impl From<EndReason> for FinishReason {
    fn from(reason: EndReason) -> Self {
        match reason {
            EndReason::MaxNewTokens | EndReason::ContextFull => Self::Length,
            _ => Self::Stop,
        }
    }
}

/// The tokens of a request, over all its answers. A prompt counts once, whatever its number of answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Usage)]
#[expect(clippy::struct_field_names, reason = "the names are OpenAI's")]
pub(crate) struct UsageBody {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
}

impl UsageBody {
    pub(crate) fn of_prompts(prompt_tokens: usize) -> Self {
        Self {
            prompt_tokens,
            completion_tokens: 0,
            total_tokens: prompt_tokens,
        }
    }

    pub(crate) fn add(&mut self, usage: &Usage) {
        self.completion_tokens += usage.num_new_tokens;
        self.total_tokens += usage.num_new_tokens;
    }
}
