//! `POST /v1/completions`

use std::{sync::Arc, time::Instant};

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use chameleon_models::engine::Logprobs;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    answer::{Answers, CompleteAnswer, GroupNote, Step, StepKind, UsageBody},
    blocking::compute,
    body,
    error::ApiError,
    logprobs::CompletionLogprobs,
    prompts::TextInput,
    settings::{
        AnswerSettings, Extension, Stop, StreamOptions, Wishes, max_new_tokens, refuse_unsupported,
        top_logprobs,
    },
    state::{Server, unix_seconds},
    stream::{self, Envelope, Pieces, UsagePiece},
    strict::Object,
};

/// Prompts of one request at most.
pub(crate) const MAX_PROMPTS: usize = 64;
/// Answers to all prompts of one request at most.
const MAX_ANSWERS: usize = 128;
/// OpenAI's default.
const DEFAULT_NEW_TOKENS: usize = 16;

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompletionRequest {
    model: String,
    prompt: TextInput,
    max_tokens: Option<u64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    n: Option<u64>,
    best_of: Option<u64>,
    stream: Option<bool>,
    stream_options: Option<Object<StreamOptions>>,
    stop: Option<Stop>,
    seed: Option<i64>,
    logprobs: Option<u64>,
    echo: Option<bool>,
    chameleon: Option<Object<Extension>>,
    #[serde(rename = "user")]
    _user: Option<String>,
    frequency_penalty: Option<Value>,
    presence_penalty: Option<Value>,
    logit_bias: Option<Value>,
    suffix: Option<Value>,
}

/// `POST /v1/completions`
pub(crate) async fn answer(
    State(server): State<Arc<Server>>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let asked: CompletionRequest = body::read(request, server.limits.max_body_bytes).await?;
    asked.refuse_unsupported()?;
    let model = server.choose_model(&asked.model)?;
    let max_new_tokens =
        max_new_tokens(&server, asked.max_tokens, DEFAULT_NEW_TOKENS, "max_tokens")?;
    let logprobs = asked.logprobs()?;
    let settings = AnswerSettings::new(asked.wishes(), &model, max_new_tokens, logprobs)?;
    let is_streamed = asked.stream == Some(true);
    let usage_piece = UsagePiece::of(asked.stream_options.as_ref());
    let does_echo = asked.echo == Some(true);
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
    let num_prompt_tokens = prompts.iter().map(|prompt| prompt.token_ids.len()).sum();
    let usage = UsageBody::of_prompts(num_prompt_tokens);
    let id = server.next_answer("cmpl");
    let requests = settings.requests(&prompts, &id);
    let answers = Answers::start(&server, requests, arrived)?;
    let envelope = Envelope {
        id: id.text,
        object: "text_completion",
        created: unix_seconds(),
        model: model.id,
    };
    let echo = Echo {
        texts: if does_echo {
            prompts.into_iter().map(|prompt| prompt.text).collect()
        } else {
            Vec::new()
        },
        num_choices: settings.num_choices,
    };
    if is_streamed {
        let pieces = CompletionPieces {
            envelope,
            usage_piece,
            usage,
            echo,
            offsets: Vec::new(),
            server,
        };
        return Ok(stream::respond(answers, pieces));
    }
    stream::respond_whole(answers, &envelope, usage, |choice_idx, answer| {
        choice(choice_idx, answer, &echo, logprobs, &server)
    })
    .await
}

impl CompletionRequest {
    fn refuse_unsupported(&self) -> Result<(), ApiError> {
        refuse_unsupported(&[
            ("frequency_penalty", &self.frequency_penalty),
            ("presence_penalty", &self.presence_penalty),
            ("logit_bias", &self.logit_bias),
            ("suffix", &self.suffix),
        ])?;
        if self.best_of.is_some_and(|best_of| best_of != 1) {
            return Err(ApiError::unsupported("best_of"));
        }
        if self.stream_options.is_some() && self.stream != Some(true) {
            return Err(ApiError::invalid(
                "stream_options",
                "`stream_options` needs `stream` to be true",
            ));
        }
        if self.echo == Some(true) && self.logprobs.is_some() {
            return Err(ApiError::invalid(
                "echo",
                "`echo` and `logprobs` together are not supported: prompts have no probabilities here",
            ));
        }
        Ok(())
    }

    fn logprobs(&self) -> Result<Logprobs, ApiError> {
        self.logprobs
            .map_or(Ok(Logprobs::None), |found| top_logprobs(found, "logprobs"))
    }

    fn wishes(&self) -> Wishes {
        Wishes {
            temperature: self.temperature,
            top_p: self.top_p,
            num_choices: self.n,
            seed: self.seed,
            stop: self.stop.clone(),
            extension: self.chameleon.clone().unwrap_or_default().0,
        }
    }
}

/// The prompts, if they are to be repeated before the answers.
struct Echo {
    texts: Vec<String>,
    num_choices: usize,
}

impl Echo {
    fn before(&self, choice_idx: usize) -> &str {
        self.texts
            .get(choice_idx / self.num_choices)
            .map_or("", String::as_str)
    }
}

fn choice(
    choice_idx: usize,
    answer: &CompleteAnswer,
    echo: &Echo,
    logprobs: Logprobs,
    server: &Server,
) -> Value {
    let logprobs = (logprobs != Logprobs::None).then(|| {
        let (mut all, mut offset) = (CompletionLogprobs::default(), 0);
        for token in &answer.tokens {
            all.push(token, server.tokenizer(), &mut offset);
        }
        all
    });
    json!({
        "index": choice_idx,
        "text": format!("{}{}", echo.before(choice_idx), answer.text),
        "logprobs": logprobs,
        "finish_reason": answer.finish_reason,
        "chameleon": answer.note,
    })
}

/// The pieces of a streamed completion.
struct CompletionPieces {
    envelope: Envelope,
    usage_piece: UsagePiece,
    usage: UsageBody,
    echo: Echo,
    /// Characters of each answer so far.
    offsets: Vec<usize>,
    server: Arc<Server>,
}

impl CompletionPieces {
    fn piece(&self, mut choice: Value, note: Option<&GroupNote>) -> String {
        if let Some(note) = note {
            choice["chameleon"] = json!(note);
        }
        self.envelope.piece(choice, self.usage_piece)
    }

    fn logprobs(
        &mut self,
        choice_idx: usize,
        token: &chameleon_models::engine::TokenEvent,
    ) -> CompletionLogprobs {
        if self.offsets.len() <= choice_idx {
            self.offsets.resize(choice_idx + 1, 0);
        }
        let mut one = CompletionLogprobs::default();
        let offset = &mut self.offsets[choice_idx];
        one.push(token, self.server.tokenizer(), offset);
        one
    }
}

impl Pieces for CompletionPieces {
    fn pieces(&mut self, step: Step) -> Vec<String> {
        let Step { choice_idx, kind } = step;
        let text = |text: &str, logprobs: Option<CompletionLogprobs>, reason: Option<&str>| {
            json!({
                "index": choice_idx,
                "text": text,
                "logprobs": logprobs,
                "finish_reason": reason,
            })
        };
        match kind {
            StepKind::Started(note) => {
                let choice = text(self.echo.before(choice_idx), None, None);
                vec![self.piece(choice, Some(&note))]
            }
            StepKind::Token(token) => {
                let has_logprobs = token.logprob.is_some();
                let logprobs = has_logprobs.then(|| self.logprobs(choice_idx, &token));
                if token.text.is_empty() && logprobs.is_none() {
                    return Vec::new();
                }
                vec![self.piece(text(&token.text, logprobs, None), None)]
            }
            StepKind::Finished {
                reason,
                text: rest,
                usage,
            } => {
                self.usage.add(&usage);
                vec![self.piece(text(&rest, None, Some(reason)), None)]
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
