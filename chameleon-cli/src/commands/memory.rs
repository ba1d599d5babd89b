//! What groups remember, for the commands that make memories or ask them.

use chameleon_models::{
    AdapterMemory, CausalLm as _, GroupMemories, MemoryConfig, MemoryDescription, MemorySource,
    ModelSizes, ScoreSummary, TokenScores,
    adapter::group_memory::{Observed, TEMPERATURES, TextsWithStates, fit_gate, with_memory},
};

use crate::{
    commands::{
        Context,
        prepare::{Part, Prepared},
        states::entering,
    },
    errors::CliError,
    resolve::TrainingConfig,
};

/// What is to be remembered, by the flags and the model.
pub(crate) fn config(
    training: &TrainingConfig,
    sizes: &ModelSizes,
) -> Result<MemoryConfig, CliError> {
    let mut config = MemoryConfig::for_model(sizes);
    config.max_entries = training.memory.max_entries;
    if let Some(layer_idx) = training.memory.layer_idx {
        config.layer_idx = layer_idx;
    }
    config.check(sizes.num_layers)?;
    Ok(config)
}

/// What memories say about some texts, with a bar.
pub(crate) fn observe(
    memories: &GroupMemories,
    texts: TextsWithStates<'_>,
    source: &MemorySource<'_>,
    temperatures: &[f64],
    context: &Context,
) -> Vec<Observed> {
    let bar = context
        .output
        .progress("memories", texts.data.examples.len());
    let device = memories.projection.map.val().device();
    let observed = memories.observe(texts, source, temperatures, &device, |num_done| {
        bar.set_position(num_done as u64);
    });
    bar.finish_and_clear();
    observed
}

/// A memory, and what it does on the held-out texts.
pub(crate) struct Remembered {
    pub(crate) memory: AdapterMemory,
    /// Scores with it.
    pub(crate) valid: ScoreSummary,
}

/// Makes the memory of an adapter whose scores on the held-out texts are known, or answers `None` if the user asked to
/// stop.
pub(crate) fn remember(
    prepared: &Prepared,
    training: &TrainingConfig,
    config: MemoryConfig,
    scores: Vec<TokenScores>,
    context: &Context,
) -> Result<Option<Remembered>, CliError> {
    let states = |part: &Part| {
        let examples = &part.data.examples;
        let cache_dir = training.cache_dir.as_ref();
        entering(prepared, examples, config.layer_idx, cache_dir, context)
    };
    let (Some(train), Some(valid)) = (states(&prepared.train)?, states(&prepared.held_out)?) else {
        return Ok(None);
    };
    let texts = TextsWithStates {
        data: &prepared.train.data,
        entering: &train,
    };
    let device = prepared.model().head_weight().device();
    let seed = context.settings.seed.derive("memory");
    let num_groups = training.num_clusters;
    // The gate is fitted to what a file gives back.
    let memories = GroupMemories::of(&config, num_groups, texts, seed, &device)?.rounded();
    let data = &prepared.held_out.data;
    let texts = TextsWithStates {
        data,
        entering: &valid,
    };
    let source = MemorySource::Group;
    let observed = observe(&memories, texts, &source, &TEMPERATURES, context);
    let gate = fit_gate(&observed, data, &scores, num_groups);
    let valid = summary(&with_memory(&gate, &observed, data, scores));
    Ok(Some(Remembered {
        memory: AdapterMemory::new(config, gate, memories),
        valid,
    }))
}

/// All examples together.
pub(crate) fn summary(scores: &[TokenScores]) -> ScoreSummary {
    scores.iter().map(|score| &score.total).collect()
}

/// A memory for a person to read.
pub(crate) fn words(memory: &MemoryDescription) -> String {
    format!(
        "{} tokens by {} numbers of the states that enter layer {}, {:.1} MiB",
        memory.num_entries,
        memory.config.key_size,
        memory.config.layer_idx,
        memory.num_bytes() as f64 / f64::from(1 << 20),
    )
}
