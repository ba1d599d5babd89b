//! What the commands that answer prompts share: tokens, groups, the choice of tokens, and the words for how it ended.

use std::sync::Arc;

use chameleon_models::{
    Adapter, LoadedModel,
    engine::sampling::{RandomSampling, Sampling as ModelSampling},
    engine::{
        ConditionChoice, EndReason, Engine, EngineError, EngineOptions, GivenCondition, Request,
    },
    files::chat::{ChatEnding, ChatMessage},
};

use crate::{
    commands::{Context, texts::ChatWriter},
    errors::CliError,
    resolve::{DecodingConfig, Sampling, Template},
};

/// The name under which an engine of one adapter has it.
const ADAPTER: &str = "adapter";

/// An engine for a run whose requests all come from here. Prompts are read in the same pieces as by a server, so that
/// answers are the same to the last bit.
pub(crate) fn start(
    loaded: LoadedModel,
    adapter: Option<Adapter>,
    decoding: &DecodingConfig,
) -> Result<Engine, CliError> {
    let engine = Engine::start(
        loaded,
        EngineOptions {
            max_batch_rows: decoding.batch_size,
            max_cached_tokens: usize::MAX,
            max_queued_requests: usize::MAX,
            max_queued_tokens: usize::MAX,
            ..EngineOptions::default()
        },
    )?;
    if let Some(adapter) = adapter {
        engine.load_adapter(ADAPTER, adapter)?;
    }
    Ok(engine)
}

/// A request for every prompt. `stream` and its position name the random numbers of each.
pub(crate) fn requests(
    engine: &Engine,
    prompts: &[&str],
    decoding: &DecodingConfig,
    stream: &str,
    context: &Context,
) -> Result<Vec<Request>, CliError> {
    let sampling = sampling(decoding.sampling)?;
    let token_ids = tokenize(prompts, decoding.template, engine.model())?;
    let mut requests: Vec<Request> = token_ids
        .into_iter()
        .enumerate()
        .map(|(prompt_idx, token_ids)| Request {
            sampling,
            seed: context
                .settings
                .seed
                .derive(&format!("{stream}/{prompt_idx}")),
            stop: decoding.stop.clone(),
            ..Request::new(token_ids, decoding.max_new_tokens)
        })
        .collect();
    if !engine.adapters().is_empty() {
        for (request, given) in requests.iter_mut().zip(conditions(engine, prompts)?) {
            request.adapter = Some(ADAPTER.to_owned());
            request.condition = ConditionChoice::Given(given);
        }
    }
    Ok(requests)
}

/// Groups the prompts as written: neither the template nor a token that begins a text is part of what was trained on.
fn conditions(engine: &Engine, prompts: &[&str]) -> Result<Vec<Arc<GivenCondition>>, CliError> {
    let token_ids = engine.model().tokenizer.encode_batch(prompts)?;
    if let Some(prompt_idx) = token_ids.iter().position(Vec::is_empty) {
        return Err(CliError::EmptyPrompt {
            number: prompt_idx + 1,
        });
    }
    let token_ids: Vec<&[u32]> = token_ids.iter().map(Vec::as_slice).collect();
    Ok(engine.conditions_of_all(ADAPTER, &token_ids)?)
}

/// A refusal with the number of its prompt.
pub(crate) fn refused(number: usize, refusal: EngineError) -> CliError {
    match refusal {
        EngineError::EmptyPrompt => CliError::EmptyPrompt { number },
        source => CliError::Prompt { number, source },
    }
}

/// The word for how an answer ended.
pub(crate) fn word(reason: EndReason) -> &'static str {
    match reason {
        EndReason::StopText => "stop",
        EndReason::StopToken => "end",
        EndReason::MaxNewTokens => "length",
        EndReason::ContextFull => "context",
        _ => "other",
    }
}

fn sampling(sampling: Sampling) -> Result<ModelSampling, CliError> {
    let Sampling::Sample {
        temperature,
        top_k,
        top_p,
    } = sampling
    else {
        return Ok(ModelSampling::Greedy);
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "nobody needs a temperature of more than seven digits"
    )]
    let narrow = |value: f64| value as f32;
    let mut random = RandomSampling::new(narrow(temperature))?;
    if let Some(top_k) = top_k {
        random = random.with_top_k(top_k)?;
    }
    if let Some(top_p) = top_p {
        random = random.with_top_p(narrow(top_p))?;
    }
    Ok(ModelSampling::Random(random))
}

fn tokenize(
    prompts: &[&str],
    template: Template,
    loaded: &LoadedModel,
) -> Result<Vec<Vec<u32>>, CliError> {
    let tokenizer = &loaded.tokenizer;
    if template == Template::Plain {
        return prompts
            .iter()
            .map(|prompt| Ok(tokenizer.encode_with_special_tokens(prompt)?))
            .collect();
    }
    let writer = ChatWriter::of(loaded)?.ok_or(CliError::NoChatTemplate)?;
    prompts
        .iter()
        .map(|prompt| {
            let text = writer.write(&[ChatMessage::user(*prompt)], ChatEnding::AwaitReply)?;
            // The template has written the special tokens itself.
            Ok(tokenizer.encode(&text)?)
        })
        .collect()
}
