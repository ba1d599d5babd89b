//! Shared by the commands that answer prompts: tokenising, grouping, sampling, and the names of end reasons.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use chameleon_models::adapter::Adapter;
use chameleon_models::engine::{
    ConditionChoice, EndReason, Engine, EngineError, EngineOptions, GivenCondition,
    GroupExemplarSource, Request,
};
use chameleon_models::{ChatEnding, ChatMessage, LoadedModel};

use crate::{
    commands::Context,
    errors::CliError,
    resolve::{DecodingConfig, Template},
};

/// The name of the adapter in an engine with a single one.
const ADAPTER: &str = "adapter";

/// An engine for a run of this program. Prefill uses the same chunks as the server, so that answers are bit-identical.
pub(crate) fn start(loaded: LoadedModel, decoding: &DecodingConfig) -> Result<Engine, CliError> {
    Ok(Engine::start(
        loaded,
        EngineOptions {
            max_batch_rows: decoding.batch_size,
            max_cached_tokens: usize::MAX,
            max_queued_requests: usize::MAX,
            max_queued_tokens: usize::MAX,
            ..EngineOptions::default()
        },
    )?)
}

/// Loads an adapter, with the exemplars of its folder if it uses them.
pub(crate) fn load(engine: &Engine, adapter: Adapter, folder: &Path) -> Result<(), CliError> {
    if adapter.config.exemplars.is_some() {
        let groups = GroupExemplarSource::read(folder).map_err(EngineError::from)?;
        engine.load_adapter_with_groups(ADAPTER, adapter, groups)?;
    } else {
        engine.load_adapter(ADAPTER, adapter)?;
    }
    Ok(())
}

/// Rejects a group that has no exemplars: its answers would not be adapted.
pub(crate) fn check_group(engine: &Engine, key: &str) -> Result<(), CliError> {
    match engine.group(ADAPTER, key)? {
        Some(_) => Ok(()),
        None => Err(CliError::NoSuchGroup {
            key: key.to_owned(),
        }),
    }
}

/// A request for every prompt. `stream` and the position of a prompt determine its random seed.
pub(crate) fn requests(
    engine: &Engine,
    prompts: &[&str],
    decoding: &DecodingConfig,
    stream: &str,
    context: &Context,
) -> Result<Vec<Request>, CliError> {
    let token_ids = tokenize(prompts, decoding.template, engine.model())?;
    let mut requests: Vec<Request> = token_ids
        .into_iter()
        .enumerate()
        .map(|(prompt_idx, token_ids)| Request {
            sampling: decoding.sampling,
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

/// Groups the prompts as written: neither the chat template nor a start token was part of the training prompts.
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

/// An engine error with the number of its prompt.
pub(crate) fn refused(number: usize, refusal: EngineError) -> CliError {
    match refusal {
        EngineError::EmptyPrompt => CliError::EmptyPrompt { number },
        source => CliError::Prompt { number, source },
    }
}

/// The name of an end reason.
pub(crate) fn word(reason: EndReason) -> &'static str {
    match reason {
        EndReason::StopText => "stop",
        EndReason::StopToken => "end",
        EndReason::MaxNewTokens => "length",
        EndReason::ContextFull => "context",
        _ => "other",
    }
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
    let chat = loaded.chat()?.ok_or(CliError::NoChatTemplate)?;
    let now = SystemTime::now();
    prompts
        .iter()
        .map(|prompt| {
            let text = chat.render(&[ChatMessage::user(*prompt)], ChatEnding::AwaitReply, now)?;
            // The template contains the special tokens.
            Ok(tokenizer.encode(&text)?)
        })
        .collect()
}
