//! `POST /v1/completions`

use std::{sync::Arc, time::Instant};

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use chameleon_models::engine::{Logprobs, TokenEvent};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    answer::{CompleteAnswer, FinishReason, GroupNote},
    blocking::compute,
    body,
    error::{ApiError, BodyErrors, EngineErrors, GuardedErrors},
    logprobs::CompletionLogprobs,
    prompts::TextInput,
    reply::{Envelope, Format, StreamEvent, respond},
    settings::{
        AnswerSettings, Extension, Stop, StreamOptions, max_new_tokens, request_options,
        top_logprobs,
    },
    state::Server,
    strict::Object,
    unsupported::Unsupported,
    wire::ObjectKind,
};

/// Prompts of one request at most.
pub(crate) const MAX_PROMPTS: usize = 64;
/// Answers to all prompts of one request at most.
const MAX_ANSWERS: usize = 128;
/// OpenAI's default.
const DEFAULT_NEW_TOKENS: usize = 16;

/// Prompts to continue.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "unused parameters are checked as they are read")]
pub(crate) struct CompletionRequest {
    model: String,
    #[schema(value_type = Value)]
    prompt: TextInput,
    max_tokens: Option<u64>,
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f64>,
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f64>,
    n: Option<u64>,
    #[schema(minimum = 1, maximum = 1)]
    best_of: Option<u64>,
    stream: Option<bool>,
    #[schema(value_type = Option<StreamOptions>)]
    stream_options: Option<Object<StreamOptions>>,
    stop: Option<Stop>,
    seed: Option<i64>,
    logprobs: Option<u64>,
    echo: Option<bool>,
    #[schema(value_type = Option<Extension>)]
    chameleon: Option<Object<Extension>>,
    user: Option<String>,
    frequency_penalty: Option<Unsupported>,
    presence_penalty: Option<Unsupported>,
    logit_bias: Option<Unsupported>,
    suffix: Option<Unsupported>,
}

/// Continue prompts
#[utoipa::path(post, path = "/v1/completions", operation_id = "createCompletion",
    request_body = CompletionRequest,
    responses(
        (status = 200, description = "The continuations", content(
            (Envelope<CompletionChoice> = "application/json"), (StreamEvent = "text/event-stream"))),
        GuardedErrors, BodyErrors, EngineErrors))]
pub(crate) async fn answer(
    State(server): State<Arc<Server>>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let asked: CompletionRequest = body::read(request, server.limits.max_body_bytes).await?;
    if asked.best_of.is_some_and(|best_of| best_of != 1) {
        return Err(ApiError::unsupported("best_of"));
    }
    if asked.echo == Some(true) && asked.logprobs.is_some() {
        return Err(ApiError::invalid(
            "echo",
            "`echo` and `logprobs` together are not supported: prompts have no probabilities here",
        ));
    }
    let model = server.choose_model(&asked.model)?;
    let max_new_tokens =
        max_new_tokens(&server, asked.max_tokens, DEFAULT_NEW_TOKENS, "max_tokens")?;
    let logprobs = asked
        .logprobs
        .map_or(Ok(Logprobs::None), |found| top_logprobs(found, "logprobs"))?;
    let options = request_options!(asked);
    let settings = AnswerSettings::new(options, model, max_new_tokens, logprobs)?;
    let inputs = asked.prompt.into_inputs("prompt", MAX_PROMPTS)?;
    if inputs.len() * settings.num_choices > MAX_ANSWERS {
        let message = format!(
            "{} answers to each of {} prompts are more than {MAX_ANSWERS}",
            settings.num_choices,
            inputs.len()
        );
        return Err(ApiError::invalid("n", message));
    }
    let prompts = compute(&server, move |server| {
        let encoded = inputs.into_iter().map(|input| input.encode(server));
        encoded.collect::<Result<Vec<_>, _>>()
    })
    .await?;
    let echoed = match asked.echo {
        Some(true) => prompts.iter().map(|prompt| prompt.text.clone()).collect(),
        _ => Vec::new(),
    };
    let format = CompletionFormat {
        echoed,
        num_choices: settings.num_choices,
        logprobs,
        offsets: vec![0; prompts.len() * settings.num_choices],
        server: Arc::clone(&server),
    };
    respond(&server, settings, &prompts, arrived, format).await
}

/// A continuation; in a stream, a piece of one.
#[derive(Debug, Serialize, ToSchema)]
struct CompletionChoice {
    index: usize,
    text: String,
    #[schema(required)]
    logprobs: Option<CompletionLogprobs>,
    #[schema(required)]
    finish_reason: Option<FinishReason>,
    /// In a stream, part of the first piece only.
    #[serde(skip_serializing_if = "Option::is_none")]
    chameleon: Option<GroupNote>,
}

struct CompletionFormat {
    /// The prompts, if they are repeated before the answers.
    echoed: Vec<String>,
    num_choices: usize,
    logprobs: Logprobs,
    /// The number of characters of each answer so far.
    offsets: Vec<usize>,
    server: Arc<Server>,
}

impl CompletionFormat {
    fn echo(&self, choice_idx: usize) -> String {
        let prompt = self.echoed.get(choice_idx / self.num_choices);
        prompt.cloned().unwrap_or_default()
    }

    fn logprobs(&mut self, choice_idx: usize, tokens: &[TokenEvent]) -> Option<CompletionLogprobs> {
        if self.logprobs == Logprobs::None {
            return None;
        }
        let mut all = CompletionLogprobs::default();
        for token in tokens {
            all.push(
                token,
                self.server.tokenizer(),
                &mut self.offsets[choice_idx],
            );
        }
        Some(all)
    }
}

impl Format for CompletionFormat {
    const ID_PREFIX: &'static str = "cmpl";
    const OBJECT: ObjectKind = ObjectKind::TextCompletion;
    const PIECE_OBJECT: ObjectKind = ObjectKind::TextCompletion;
    const PROMPT: &'static str = "prompt";
    type Choice = CompletionChoice;
    type Piece = CompletionChoice;

    fn choice(&mut self, index: usize, answer: CompleteAnswer) -> CompletionChoice {
        CompletionChoice {
            index,
            text: self.echo(index) + &answer.text,
            logprobs: self.logprobs(index, &answer.tokens),
            finish_reason: answer.finish_reason,
            chameleon: answer.note,
        }
    }

    fn opening(&mut self, index: usize, note: GroupNote) -> CompletionChoice {
        CompletionChoice {
            index,
            text: self.echo(index),
            logprobs: None,
            finish_reason: None,
            chameleon: Some(note),
        }
    }

    fn token(&mut self, index: usize, token: TokenEvent) -> CompletionChoice {
        CompletionChoice {
            index,
            logprobs: self.logprobs(index, std::slice::from_ref(&token)),
            text: token.text,
            finish_reason: None,
            chameleon: None,
        }
    }

    fn closing(
        &mut self,
        index: usize,
        text: String,
        reason: FinishReason,
    ) -> Vec<CompletionChoice> {
        vec![CompletionChoice {
            index,
            text,
            logprobs: None,
            finish_reason: Some(reason),
            chameleon: None,
        }]
    }
}
