//! Answers under way: the engine's events of all choices of one request, in the order in which they come.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chameleon_models::engine::{
    Cancellation, EndReason, Event, Request, RequestFailure, Started, TokenEvent, Usage,
};
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{error::ApiError, state::Server};

/// The answers of one request. Dropped early, because its client is gone, it frees their places at once.
#[derive(Debug)]
pub(crate) struct Answers {
    events: UnboundedReceiver<(usize, Event)>,
    /// Whoever holds these keeps the answers going.
    cancellations: Vec<Cancellation>,
    num_open: usize,
    timeline: Timeline,
    server: Arc<Server>,
}

/// Something that happened to one of the answers.
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
        reason: &'static str,
        text: String,
        usage: Usage,
    },
}

/// An answer that is over.
#[derive(Debug, Default)]
pub(crate) struct CompleteAnswer {
    pub(crate) text: String,
    /// Its tokens, if their probabilities were asked for.
    pub(crate) tokens: Vec<TokenEvent>,
    pub(crate) finish_reason: &'static str,
    pub(crate) usage: Usage,
    pub(crate) note: Option<GroupNote>,
}

/// What is different about an answer: `chameleon` of a choice.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct GroupNote {
    /// The number under which `/v1/clusters` names the answer.
    request_id: u64,
    /// The group the prompt fell in; nothing for the base model.
    cluster: Option<usize>,
    /// What the hypernetwork saw.
    condition: Option<String>,
    /// Prompts that were summed up.
    group_size: Option<usize>,
    /// From the prompt to the centroid of its group.
    distance: Option<f32>,
}

/// When the tokens came.
#[derive(Debug)]
struct Timeline {
    arrived: Instant,
    /// The latest token of each choice.
    latest: Vec<Option<Instant>>,
}

impl Answers {
    /// Hands the requests to the engine.
    ///
    /// # Errors
    ///
    /// When the engine refuses one; then none is answered.
    pub(crate) fn start(
        server: &Arc<Server>,
        requests: Vec<Request>,
        arrived: Instant,
    ) -> Result<Self, ApiError> {
        let (sender, events) = unbounded_channel();
        let num_choices = requests.len();
        let mut cancellations = Vec::with_capacity(num_choices);
        for (choice_idx, request) in requests.into_iter().enumerate() {
            let sender = sender.clone();
            cancellations.push(server.engine.submit_with(request, move |event| {
                // When nobody listens any more, the request is being cancelled.
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
            server: Arc::clone(server),
        })
    }

    /// What happens next; nothing after the last answer.
    pub(crate) async fn next(&mut self) -> Option<Result<Step, ApiError>> {
        if self.num_open == 0 {
            return None;
        }
        let limit = self.server.limits.request_timeout;
        let deadline = (self.timeline.arrived + limit).into();
        // Looked at first: an engine that always has the next token ready would never be waited for.
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
            // One broken answer ends the whole request.
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
                    answer.finish_reason = reason;
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
                metrics.queue_time.observe(started.waited);
                StepKind::Started(self.note(choice_idx, &started))
            }
            Event::Token(token) => {
                let (since, is_first) = self.timeline.record(choice_idx);
                if is_first {
                    metrics.time_to_first_token.observe(since);
                } else {
                    metrics.time_between_tokens.observe(since);
                }
                metrics.token_rate.record(1);
                StepKind::Token(token)
            }
            Event::Finished {
                reason,
                text,
                usage,
            } => {
                self.num_open -= 1;
                let took = self.timeline.arrived.elapsed();
                metrics.answer_time.observe(took);
                StepKind::Finished {
                    reason: finish_reason(reason),
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
            distance: group.map(|group| group.distance),
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

/// In OpenAI's words.
fn finish_reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::MaxNewTokens | EndReason::ContextFull => "length",
        _ => "stop",
    }
}

/// What a request cost, over all its answers: a prompt counts once, however many answers it got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are the client's")]
pub(crate) struct UsageBody {
    pub(crate) prompt_tokens: usize,
    pub(crate) completion_tokens: usize,
    pub(crate) total_tokens: usize,
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
