//! What is computed before anything trains and kept on disk: prompts as vectors, and hidden states of frozen layers.

use std::path::PathBuf;

use burn::tensor::Tensor;
use chameleon_hypernet::{ConditionNorm, ConditionScaling};
use chameleon_models::{
    Example, HiddenCache, HiddenStates, LanguageModel, LayerRange, Proceed, PromptEncoding,
    adapter::prompts::represent_examples,
    training::grouped_examples::{CacheProgress, cache_entering_states, entering_fingerprint},
};

use crate::{
    commands::{
        Context,
        prepare::{Part, Prepared, cache_path},
    },
    errors::CliError,
    resolve::TrainingConfig,
};

/// States from which the steps of a training, and scores, begin.
pub(crate) enum KnownStates {
    /// Those that enter the head: nothing below it is adapted.
    Final(HiddenCache),
    /// Those that enter the lowest adapted layer.
    Entering {
        cache: HiddenCache,
        first_layer: usize,
    },
    /// None: the lowest layer is adapted.
    Nothing,
}

impl KnownStates {
    pub(crate) fn hidden_states<'a>(&'a self, model: &'a LanguageModel) -> HiddenStates<'a> {
        match self {
            Self::Final(cache) => HiddenStates::Cached(cache),
            Self::Entering { cache, first_layer } => HiddenStates::UpperLayers {
                model,
                entering: cache,
                first_layer: *first_layer,
            },
            Self::Nothing => HiddenStates::Layers(model),
        }
    }
}

/// The states that one side of a training begins from, from disk if they are there, or `None` if the user asked to
/// stop. `final_states` gets those that enter the head.
pub(crate) fn known_states(
    prepared: &Prepared,
    part: &Part,
    training: &TrainingConfig,
    context: &Context,
    final_states: impl FnOnce() -> Result<Option<HiddenCache>, CliError>,
) -> Result<Option<KnownStates>, CliError> {
    let adapter = &training.adapter;
    if adapter.targets.is_empty() {
        return Ok(final_states()?.map(KnownStates::Final));
    }
    let first_layer = match adapter.layers {
        LayerRange::Between { first, .. } => first,
        _ => 0,
    };
    if first_layer == 0 {
        return Ok(Some(KnownStates::Nothing));
    }
    let cache = entering(
        prepared,
        &part.data.examples,
        first_layer,
        training.cache_dir.as_ref(),
        context,
    )?;
    Ok(cache.map(|cache| KnownStates::Entering { cache, first_layer }))
}

/// The states of all tokens as they enter a layer, from disk if they are there, or `None` if the user asked to stop.
pub(crate) fn entering(
    prepared: &Prepared,
    examples: &[Example],
    first_layer: usize,
    cache_dir: Option<&PathBuf>,
    context: &Context,
) -> Result<Option<HiddenCache>, CliError> {
    let model_fingerprint = prepared.states_fingerprint();
    let fingerprint = entering_fingerprint(model_fingerprint, examples, first_layer);
    let path = cache_path(cache_dir, fingerprint)?;
    let cache = with_states_bar("lower layers", examples.len(), context, |observe| {
        cache_entering_states(
            prepared.model(),
            model_fingerprint,
            examples,
            first_layer,
            &path,
            observe,
        )
    })?;
    Ok(cache)
}

/// Shows how far a pass over the trunk is, and ends it when the user asks to stop.
pub(crate) fn with_states_bar<T>(
    label: &'static str,
    num_examples: usize,
    context: &Context,
    fill: impl FnOnce(&mut dyn FnMut(CacheProgress) -> Proceed) -> T,
) -> T {
    let bar = context.output.progress(label, num_examples);
    let filled = fill(&mut |progress| {
        bar.set_position(progress.num_done as u64);
        if context.interrupt.is_asked() {
            Proceed::Stop
        } else {
            Proceed::Continue
        }
    });
    bar.finish_and_clear();
    filled
}

/// Prompts as vectors, with the statistics that standardise them, if they are.
pub(crate) struct EncodedPrompts {
    /// `[prompts, hidden]`
    pub(crate) vectors: Tensor<2>,
    pub(crate) norm: Option<ConditionNorm>,
}

/// Encodes the prompts of training texts; their statistics serve all other prompts.
pub(crate) fn encode_training_prompts(
    model: &LanguageModel,
    encoding: PromptEncoding,
    examples: &[Example],
    context: &Context,
) -> EncodedPrompts {
    let vectors = represented(model, encoding, examples, context);
    match encoding.scaling {
        ConditionScaling::Standardised => {
            let norm = ConditionNorm::fit(vectors.clone());
            EncodedPrompts {
                vectors: norm.forward(vectors),
                norm: Some(norm),
            }
        }
        _ => EncodedPrompts {
            vectors,
            norm: None,
        },
    }
}

/// Encodes prompts with the statistics of others. Shapes: output `[prompts, hidden]`.
pub(crate) fn encode_prompts(
    model: &LanguageModel,
    encoding: PromptEncoding,
    norm: Option<&ConditionNorm>,
    examples: &[Example],
    context: &Context,
) -> Tensor<2> {
    let vectors = represented(model, encoding, examples, context);
    match norm {
        Some(norm) => norm.forward(vectors),
        None => vectors,
    }
}

/// Texts between two movements of the bar.
const CHUNK: usize = 256;

fn represented(
    model: &LanguageModel,
    encoding: PromptEncoding,
    examples: &[Example],
    context: &Context,
) -> Tensor<2> {
    let bar = context.output.progress("prompts", examples.len());
    let chunks = examples
        .chunks(CHUNK)
        .map(|chunk| {
            let vectors = represent_examples(model, encoding.representation, chunk);
            bar.inc(chunk.len() as u64);
            vectors
        })
        .collect();
    bar.finish_and_clear();
    Tensor::cat(chunks, 0)
}
