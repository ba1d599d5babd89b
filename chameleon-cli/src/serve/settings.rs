//! How an answer is to be written: the parameters that completions and chats share, checked.

use chameleon_core::RunSeed;
use chameleon_hypernet::Condition;
use chameleon_models::{
    RandomSampling, Sampling,
    engine::{ConditionChoice, EndOfText, Logprobs, Request},
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    error::ApiError,
    prompts::EncodedPrompt,
    state::{AnswerId, ModelChoice, Server},
};

/// Answers to one prompt at most.
pub(crate) const MAX_CHOICES: u64 = 16;
/// Stop texts at most.
pub(crate) const MAX_STOPS: usize = 16;
/// Characters of a stop text at most.
pub(crate) const MAX_STOP_LEN: usize = 1024;
/// Largest `top_k`; more than any vocabulary.
pub(crate) const MAX_TOP_K: usize = 10_000_000;
/// Alternatives told for each token at most.
pub(crate) const MAX_TOP_LOGPROBS: usize = 20;

/// What OpenAI's interface has no words for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Extension {
    /// What the hypernetwork sees of the group.
    #[serde(default)]
    pub(crate) condition: Option<Condition>,
    /// Multiplies what the adapter adds.
    #[serde(default)]
    pub(crate) scale: Option<f64>,
    /// Sample among the likeliest tokens only.
    #[serde(default)]
    pub(crate) top_k: Option<usize>,
    /// Write as many tokens as asked for, even if the model would end.
    #[serde(default)]
    pub(crate) ignore_eos: Option<bool>,
}

/// One stop text or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub(crate) enum Stop {
    One(String),
    Many(Vec<String>),
}

/// Options of a streamed answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamOptions {
    /// Tell at the end what it cost.
    #[serde(default)]
    pub(crate) include_usage: Option<bool>,
}

/// The parameters both kinds of requests have, as they came.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    pub(crate) temperature: Option<f64>,
    pub(crate) top_p: Option<f64>,
    pub(crate) num_choices: Option<u64>,
    pub(crate) seed: Option<i64>,
    pub(crate) stop: Option<Stop>,
    pub(crate) extension: Extension,
}

/// Everything about an answer but its prompt, checked.
#[derive(Debug, Clone)]
pub(crate) struct AnswerSettings {
    pub(crate) num_choices: usize,
    adapter: Option<String>,
    condition: ConditionChoice,
    scale: f64,
    sampling: Sampling,
    seed: Option<RunSeed>,
    stop: Vec<String>,
    end_of_text: EndOfText,
    pub(crate) max_new_tokens: usize,
    pub(crate) logprobs: Logprobs,
}

impl AnswerSettings {
    pub(crate) fn new(
        wishes: Wishes,
        model: &ModelChoice,
        max_new_tokens: usize,
        logprobs: Logprobs,
    ) -> Result<Self, ApiError> {
        let num_choices = wishes.num_choices.unwrap_or(1);
        if !(1..=MAX_CHOICES).contains(&num_choices) {
            let message = format!("found {num_choices}, expected 1 to {MAX_CHOICES}");
            return Err(ApiError::invalid("n", message));
        }
        let extension = &wishes.extension;
        Ok(Self {
            num_choices: usize::try_from(num_choices).unwrap_or(1),
            adapter: model.adapter.clone(),
            condition: extension
                .condition
                .map_or(ConditionChoice::AsTrained, ConditionChoice::Use),
            scale: extension.scale.unwrap_or(1.0),
            sampling: sampling(&wishes)?,
            #[expect(
                clippy::cast_sign_loss,
                reason = "every seed names a stream of its own"
            )]
            seed: wishes.seed.map(|seed| RunSeed(seed as u64)),
            end_of_text: match extension.ignore_eos {
                Some(true) => EndOfText::Ignored,
                _ => EndOfText::Ends,
            },
            stop: stops(wishes.stop)?,
            max_new_tokens,
            logprobs,
        })
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
                grouping_token_ids: prompt.grouping_token_ids.clone(),
                adapter: self.adapter.clone(),
                condition: self.condition.clone(),
                scale: self.scale,
                sampling: self.sampling,
                // The first answer has the seed itself: it is the same however many are asked for.
                seed: match choice_idx {
                    0 => seed,
                    choice_idx => seed.derive(&format!("choice/{choice_idx}")),
                },
                stop: self.stop.clone(),
                end_of_text: self.end_of_text,
                logprobs: self.logprobs,
                ..Request::new(prompt.token_ids.clone(), self.max_new_tokens)
            })
            .collect()
    }
}

/// How many tokens may be written.
pub(crate) fn max_new_tokens(
    server: &Server,
    given: Option<u64>,
    default: usize,
    param: &str,
) -> Result<usize, ApiError> {
    let limit = server.limits.max_new_tokens;
    match given {
        None => Ok(default.min(limit)),
        Some(found) => match usize::try_from(found) {
            Ok(found) if (1..=limit).contains(&found) => Ok(found),
            _ => Err(ApiError::invalid(
                param,
                format!("found {found}, expected 1 to {limit}"),
            )),
        },
    }
}

/// The number of alternatives told for each token.
pub(crate) fn top_logprobs(found: u64, param: &str) -> Result<Logprobs, ApiError> {
    match usize::try_from(found) {
        Ok(found) if found <= MAX_TOP_LOGPROBS => Ok(Logprobs::Top(found)),
        _ => Err(ApiError::invalid(
            param,
            format!("found {found}, expected 0 to {MAX_TOP_LOGPROBS}"),
        )),
    }
}

/// Refuses parameters that would change the answer and are not known here; those that ask for nothing pass.
pub(crate) fn refuse_unsupported(params: &[(&str, &Option<Value>)]) -> Result<(), ApiError> {
    for (name, value) in params {
        let asks_for_nothing = match value {
            None | Some(Value::Null | Value::Bool(false)) => true,
            Some(Value::Number(number)) => number.as_f64() == Some(0.0),
            Some(Value::Array(values)) => values.is_empty(),
            Some(Value::Object(values)) => values.is_empty(),
            Some(Value::Bool(true) | Value::String(_)) => false,
        };
        if !asks_for_nothing {
            return Err(ApiError::unsupported(*name));
        }
    }
    Ok(())
}

fn sampling(wishes: &Wishes) -> Result<Sampling, ApiError> {
    let temperature = within("temperature", wishes.temperature.unwrap_or(1.0), 2.0)?;
    let top_p = within("top_p", wishes.top_p.unwrap_or(1.0), 1.0)?;
    let top_k = wishes.extension.top_k;
    if let Some(found) = top_k
        && !(1..=MAX_TOP_K).contains(&found)
    {
        let message = format!("found {found}, expected 1 to {MAX_TOP_K}");
        return Err(ApiError::invalid("chameleon.top_k", message));
    }
    // What is too small for a single float is zero as well: only the likeliest token is left.
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
    reason = "nobody needs a temperature of more than seven digits"
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

    fn wishes(temperature: f64, top_p: f64) -> Wishes {
        Wishes {
            temperature: Some(temperature),
            top_p: Some(top_p),
            ..Wishes::default()
        }
    }

    #[test]
    fn without_chance_the_likeliest_token_is_taken() {
        assert_eq!(sampling(&wishes(0.0, 1.0)), Ok(Sampling::Greedy));
        assert_eq!(sampling(&wishes(1.0, 0.0)), Ok(Sampling::Greedy));
        assert_eq!(sampling(&wishes(1e-300, 1.0)), Ok(Sampling::Greedy));
        assert!(matches!(
            sampling(&Wishes::default()),
            Ok(Sampling::Random(_))
        ));
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        assert_eq!(
            sampling(&wishes(2.5, 1.0)).unwrap_err().param.as_deref(),
            Some("temperature")
        );
        assert_eq!(
            sampling(&wishes(1.0, -0.1)).unwrap_err().param.as_deref(),
            Some("top_p")
        );
    }

    #[test]
    fn parameters_that_ask_for_nothing_pass() {
        let nothing = ["0", "0.0", "null", "[]", "{}", "false"];
        for text in nothing {
            let value: Option<Value> = serde_json::from_str(text).unwrap();
            assert_eq!(refuse_unsupported(&[("x", &value)]), Ok(()), "{text}");
        }
        for text in ["0.1", "true", "\"\"", "[1]", "{\"a\": 1}"] {
            let value: Option<Value> = serde_json::from_str(text).unwrap();
            assert!(refuse_unsupported(&[("x", &value)]).is_err(), "{text}");
        }
    }

    #[test]
    fn stop_texts_are_bounded() {
        assert!(stops(Some(Stop::One(String::new()))).is_err());
        assert!(stops(Some(Stop::One("x".repeat(1025)))).is_err());
        assert!(stops(Some(Stop::Many(vec!["x".to_owned(); 17]))).is_err());
        assert_eq!(stops(None), Ok(Vec::new()));
    }
}
