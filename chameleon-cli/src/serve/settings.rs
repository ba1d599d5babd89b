//! The parameters that completions and chats share, checked.

use std::ops::RangeInclusive;

use chameleon_core::RunSeed;
use chameleon_hypernet::Condition;
use chameleon_models::adapter::MAX_KEY_BYTES;
use chameleon_models::engine::{
    ConditionChoice, EndOfText, Logprobs, RandomSampling, Request, Sampling,
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    error::ApiError,
    prompts::EncodedPrompt,
    state::{AnswerId, ModelChoice, Server},
};

/// Answers to one prompt at most.
pub(crate) const MAX_CHOICES: usize = 16;
/// Stop texts at most.
pub(crate) const MAX_STOPS: usize = 16;
/// Characters of a stop text at most.
pub(crate) const MAX_STOP_LEN: usize = 1024;
/// Largest `top_k`; more than any vocabulary.
pub(crate) const MAX_TOP_K: usize = 10_000_000;
/// Alternatives reported for each token at most.
pub(crate) const MAX_TOP_LOGPROBS: usize = 20;

/// Parameters that OpenAI's interface does not have.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Extension {
    /// The key of the request's group, such as a customer; `user` if not given. Examples of this key apply to it.
    #[schema(min_length = 1, max_length = 256)]
    pub(crate) group: Option<String>,
    /// What the hypernetwork is conditioned on: `batch`, `centroid`, `prompt`, `blend` or `blend:STRENGTH`. By default
    /// the condition that the adapter was trained with.
    #[schema(value_type = Option<String>, pattern = "^(batch|centroid|prompt|blend(:[0-9]{1,6})?)$")]
    pub(crate) condition: Option<Condition>,
    /// Multiplier of the adapter's change; 0 is the base model.
    #[schema(minimum = -1000, maximum = 1000)]
    pub(crate) scale: Option<f64>,
    /// Sample among the most likely tokens only.
    pub(crate) top_k: Option<u64>,
    /// Generate as many tokens as requested, even if the model would end.
    pub(crate) ignore_eos: Option<bool>,
}

/// Strings that end the answer and are not part of it: one or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub(crate) enum Stop {
    One(String),
    Many(Vec<String>),
}

/// Options of a streamed answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamOptions {
    /// Send the usage in the last event.
    pub(crate) include_usage: Option<bool>,
}

/// Whether an answer is sent whole or as a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Whole,
    Streamed(UsageChunk),
}

/// Whether a streamed answer ends with its usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UsageChunk {
    Omitted,
    Sent,
}

/// The parameters that both kinds of requests have, as they came.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestOptions {
    pub(crate) temperature: Option<f64>,
    pub(crate) top_p: Option<f64>,
    pub(crate) num_choices: Option<u64>,
    pub(crate) seed: Option<i64>,
    pub(crate) stop: Option<Stop>,
    pub(crate) extension: Extension,
    pub(crate) user: Option<String>,
    pub(crate) stream: Option<bool>,
    pub(crate) stream_options: Option<StreamOptions>,
}

/// Takes the parameters that both kinds of requests have out of a request.
macro_rules! request_options {
    ($request:ident) => {
        crate::serve::settings::RequestOptions {
            temperature: $request.temperature,
            top_p: $request.top_p,
            num_choices: $request.n,
            seed: $request.seed,
            stop: $request.stop,
            extension: $request.chameleon.unwrap_or_default().0,
            user: $request.user,
            stream: $request.stream,
            stream_options: $request.stream_options.map(|options| options.0),
        }
    };
}
pub(crate) use request_options;

/// The checked parameters of an answer, except its prompt.
#[derive(Debug, Clone)]
pub(crate) struct AnswerSettings {
    pub(crate) num_choices: usize,
    pub(crate) model: ModelChoice,
    pub(crate) delivery: Delivery,
    seed: Option<RunSeed>,
    /// A request without prompt and seed.
    template: Request,
}

impl AnswerSettings {
    pub(crate) fn new(
        options: RequestOptions,
        model: ModelChoice,
        max_new_tokens: usize,
        logprobs: Logprobs,
    ) -> Result<Self, ApiError> {
        let num_choices = options.num_choices.unwrap_or(1);
        let num_choices = in_range("n", num_choices, 1..=MAX_CHOICES)?;
        let extension = &options.extension;
        Ok(Self {
            num_choices,
            delivery: delivery(options.stream, options.stream_options)?,
            #[expect(
                clippy::cast_sign_loss,
                reason = "every seed, also a negative one, is a stream of its own"
            )]
            seed: options.seed.map(|seed| RunSeed(seed as u64)),
            template: Request {
                adapter: model.adapter.clone(),
                group: group(&options)?,
                condition: extension
                    .condition
                    .map_or(ConditionChoice::AsTrained, ConditionChoice::Use),
                scale: extension.scale.unwrap_or(1.0),
                sampling: sampling(&options)?,
                end_of_text: match extension.ignore_eos {
                    Some(true) => EndOfText::Ignored,
                    _ => EndOfText::Ends,
                },
                stop: stops(options.stop)?,
                logprobs,
                ..Request::new(Vec::new(), max_new_tokens)
            },
            model,
        })
    }

    /// The key of the request's group.
    pub(crate) fn group(&self) -> Option<&str> {
        self.template.group.as_deref()
    }

    /// The requests of all answers to some prompts, in the order of their indices.
    pub(crate) fn requests(&self, prompts: &[EncodedPrompt], id: &AnswerId) -> Vec<Request> {
        let seed = self.seed.unwrap_or(id.seed);
        let choices = prompts
            .iter()
            .flat_map(|prompt| std::iter::repeat_n(prompt, self.num_choices));
        choices
            .enumerate()
            .map(|(choice_idx, prompt)| Request {
                prompt_token_ids: prompt.token_ids.clone(),
                grouping_token_ids: prompt.grouping_token_ids.clone(),
                // The first answer has the seed itself: it does not depend on the number of answers.
                seed: match choice_idx {
                    0 => seed,
                    choice_idx => seed.derive(&format!("choice/{choice_idx}")),
                },
                ..self.template.clone()
            })
            .collect()
    }
}

/// The key of the request's group. A `user` that could not be one is only a name for the client's own use.
fn group(options: &RequestOptions) -> Result<Option<String>, ApiError> {
    let is_key = |key: &String| (1..=MAX_KEY_BYTES).contains(&key.len());
    match &options.extension.group {
        Some(key) if !is_key(key) => {
            let message = format!("found {} bytes, expected 1 to {MAX_KEY_BYTES}", key.len());
            Err(ApiError::invalid("chameleon.group", message))
        }
        Some(key) => Ok(Some(key.clone())),
        None => Ok(options.user.clone().filter(is_key)),
    }
}

/// The largest number of tokens to generate.
pub(crate) fn max_new_tokens(
    server: &Server,
    given: Option<u64>,
    default: usize,
    param: &str,
) -> Result<usize, ApiError> {
    let limit = server.limits.max_new_tokens;
    given.map_or(Ok(default.min(limit)), |found| {
        in_range(param, found, 1..=limit)
    })
}

/// The number of alternatives reported for each token.
pub(crate) fn top_logprobs(found: u64, param: &str) -> Result<Logprobs, ApiError> {
    in_range(param, found, 0..=MAX_TOP_LOGPROBS).map(Logprobs::Top)
}

fn in_range(param: &str, found: u64, range: RangeInclusive<usize>) -> Result<usize, ApiError> {
    match usize::try_from(found) {
        Ok(found) if range.contains(&found) => Ok(found),
        _ => {
            let (min, max) = range.into_inner();
            let message = format!("found {found}, expected {min} to {max}");
            Err(ApiError::invalid(param, message))
        }
    }
}

fn sampling(options: &RequestOptions) -> Result<Sampling, ApiError> {
    let temperature = within("temperature", options.temperature.unwrap_or(1.0), 2.0)?;
    let top_p = within("top_p", options.top_p.unwrap_or(1.0), 1.0)?;
    let top_k = options.extension.top_k;
    let top_k = top_k
        .map(|found| in_range("chameleon.top_k", found, 1..=MAX_TOP_K))
        .transpose()?;
    // A value that rounds to zero in single precision is zero as well: sampling is greedy.
    if temperature <= 0.0 || top_p <= 0.0 {
        return Ok(Sampling::Greedy);
    }
    let refused =
        |error: chameleon_models::ModelError| ApiError::invalid("temperature", error.to_string());
    let mut random = RandomSampling::new(temperature)
        .and_then(|random| random.with_top_p(top_p))
        .map_err(refused)?;
    if let Some(top_k) = top_k {
        random = random.with_top_k(top_k).map_err(refused)?;
    }
    Ok(Sampling::Random(random))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "single precision is enough for a temperature"
)]
fn within(param: &str, found: f64, max: f64) -> Result<f32, ApiError> {
    if (0.0..=max).contains(&found) {
        Ok(found as f32)
    } else {
        Err(ApiError::invalid(
            param,
            format!("found {found}, expected 0 to {max}"),
        ))
    }
}

fn delivery(stream: Option<bool>, options: Option<StreamOptions>) -> Result<Delivery, ApiError> {
    match (stream, options) {
        (Some(true), Some(options)) if options.include_usage == Some(true) => {
            Ok(Delivery::Streamed(UsageChunk::Sent))
        }
        (Some(true), _) => Ok(Delivery::Streamed(UsageChunk::Omitted)),
        (_, None) => Ok(Delivery::Whole),
        (_, Some(_)) => Err(ApiError::invalid(
            "stream_options",
            "`stream_options` needs `stream` to be true",
        )),
    }
}

fn stops(stop: Option<Stop>) -> Result<Vec<String>, ApiError> {
    let stops = match stop {
        None => Vec::new(),
        Some(Stop::One(stop)) => vec![stop],
        Some(Stop::Many(stops)) => stops,
    };
    let is_fit = |stop: &String| (1..=MAX_STOP_LEN).contains(&stop.chars().count());
    if stops.len() > MAX_STOPS || !stops.iter().all(is_fit) {
        let message =
            format!("expected at most {MAX_STOPS} texts of 1 to {MAX_STOP_LEN} characters");
        return Err(ApiError::invalid("stop", message));
    }
    Ok(stops)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(temperature: f64, top_p: f64) -> RequestOptions {
        RequestOptions {
            temperature: Some(temperature),
            top_p: Some(top_p),
            ..RequestOptions::default()
        }
    }

    #[test]
    fn zero_temperature_or_top_p_is_greedy() {
        assert_eq!(sampling(&options(0.0, 1.0)), Ok(Sampling::Greedy));
        assert_eq!(sampling(&options(1.0, 0.0)), Ok(Sampling::Greedy));
        assert_eq!(sampling(&options(1e-300, 1.0)), Ok(Sampling::Greedy));
        assert!(matches!(
            sampling(&RequestOptions::default()),
            Ok(Sampling::Random(_))
        ));
    }

    #[test]
    fn values_out_of_range_are_named() {
        assert_eq!(
            sampling(&options(2.5, 1.0)).unwrap_err().param.as_deref(),
            Some("temperature")
        );
        assert_eq!(
            sampling(&options(1.0, -0.1)).unwrap_err().param.as_deref(),
            Some("top_p")
        );
    }

    #[test]
    fn stop_texts_are_bounded() {
        assert!(stops(Some(Stop::One(String::new()))).is_err());
        assert!(stops(Some(Stop::One("x".repeat(1025)))).is_err());
        assert!(stops(Some(Stop::Many(vec!["x".to_owned(); 17]))).is_err());
        assert_eq!(stops(None), Ok(Vec::new()));
    }
}
