//! Hidden states that training does not change: computed once, stored on disk.

use std::path::{Path, PathBuf};

use crate::adapter::layer_adaptation::LayerRange;
use crate::data::Example;
use crate::families::language_model::LanguageModel;
use crate::files::fingerprint::Fingerprint;
use crate::training::config::TrainingConfig;
use crate::training::error::TrainingError;
use crate::training::grouped_examples::{
    CacheProgress, Proceed, cache_entering_states, cache_hidden_states, entering_fingerprint,
    states_fingerprint,
};
use crate::training::hidden_cache::{HiddenCache, HiddenCacheError};
use crate::training::observer::{Observer, Work};
use crate::training::prepare::{Split, TrainingData};
use crate::training::states::HiddenStates;
use crate::training::texts::SpanConfig;

/// The states from which training steps and scoring start.
#[derive(Debug)]
pub enum KnownStates {
    /// Those that enter the head: nothing below it is adapted.
    Final(HiddenCache),
    /// Those that enter the lowest adapted layer.
    Entering {
        /// Of all tokens.
        cache: HiddenCache,
        /// The layer.
        first_layer: usize,
    },
    /// No states are cached: the lowest layer is adapted.
    Nothing,
}

impl KnownStates {
    /// The start of a forward pass over `model`.
    pub fn hidden_states<'a>(&'a self, model: &'a LanguageModel) -> HiddenStates<'a> {
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

impl TrainingData {
    /// The states that a split is trained on or scored from, read from disk if they are cached.
    ///
    /// # Errors
    ///
    /// When they cannot be read or written, or the observer interrupts.
    pub fn known_states(
        &self,
        split: &Split,
        config: &TrainingConfig,
        observer: &dyn Observer,
    ) -> Result<KnownStates, TrainingError> {
        let options = &config.adapter;
        if options.targets.is_empty() {
            let cache = self.final_states(split, config.span, &config.cache_dir, observer)?;
            return Ok(KnownStates::Final(cache));
        }
        let first_layer = match options.layers {
            LayerRange::Between { first, .. } => first,
            LayerRange::All => 0,
        };
        if first_layer == 0 {
            return Ok(KnownStates::Nothing);
        }
        let cache = self.entering_states(split, first_layer, &config.cache_dir, observer)?;
        Ok(KnownStates::Entering { cache, first_layer })
    }

    /// The states that enter the head, from a cache that is shared by every prefix of a sweep.
    ///
    /// # Errors
    ///
    /// As [`known_states`](Self::known_states).
    pub fn final_states(
        &self,
        split: &Split,
        span: SpanConfig,
        cache_dir: &Path,
        observer: &dyn Observer,
    ) -> Result<HiddenCache, TrainingError> {
        let examples: Vec<Example> = split
            .data
            .examples
            .iter()
            .map(|example| with_smallest_prefix(example, span))
            .collect();
        let fingerprint = &self.states_fingerprint;
        let cache = final_states(self.model(), fingerprint, &examples, cache_dir, observer)?;
        Ok(cache.without_first(span.prefix - span.smallest_prefix))
    }

    /// The states of all tokens that enter a layer, read from disk if they are cached.
    ///
    /// # Errors
    ///
    /// As [`known_states`](Self::known_states).
    pub fn entering_states(
        &self,
        split: &Split,
        layer_idx: usize,
        cache_dir: &Path,
        observer: &dyn Observer,
    ) -> Result<HiddenCache, TrainingError> {
        entering_states(
            self.model(),
            &self.states_fingerprint,
            &split.data.examples,
            layer_idx,
            cache_dir,
            observer,
        )
    }
}

/// The states of all tokens as they enter a layer, from disk if they are there. `model_fingerprint` is
/// [`LoadedModel::states_fingerprint`](crate::LoadedModel::states_fingerprint).
///
/// # Errors
///
/// When they cannot be read or written, or the observer interrupts.
pub(crate) fn entering_states(
    model: &LanguageModel,
    model_fingerprint: &str,
    examples: &[Example],
    layer_idx: usize,
    cache_dir: &Path,
    observer: &dyn Observer,
) -> Result<HiddenCache, TrainingError> {
    let fingerprint = entering_fingerprint(model_fingerprint, examples, layer_idx);
    let path = cache_path(cache_dir, fingerprint)?;
    observed("lower layers", examples.len(), observer, |observe| {
        cache_entering_states(
            model,
            model_fingerprint,
            examples,
            layer_idx,
            &path,
            observe,
        )
    })
}

/// The states that predict the scored tokens, read from disk if they are cached.
///
/// # Errors
///
/// As [`entering_states`].
pub(crate) fn final_states(
    model: &LanguageModel,
    model_fingerprint: &str,
    examples: &[Example],
    cache_dir: &Path,
    observer: &dyn Observer,
) -> Result<HiddenCache, TrainingError> {
    let path = cache_path(cache_dir, states_fingerprint(model_fingerprint, examples))?;
    observed("hidden states", examples.len(), observer, |observe| {
        cache_hidden_states(model, model_fingerprint, examples, &path, observe)
    })
}

/// The example cut at the smallest prefix of a sweep; a prompt with an answer is cut at the start of the answer,
/// whatever the prefix.
fn with_smallest_prefix(example: &Example, span: SpanConfig) -> Example {
    if span.smallest_prefix == span.prefix {
        return example.clone();
    }
    Example {
        sequence: example
            .sequence
            .with_boundary(span.smallest_prefix)
            .expect("a smaller prefix leaves more to score"),
        ..example.clone()
    }
}

/// The folder of the hidden states with this fingerprint; its parent folder is created.
pub(crate) fn cache_path(
    folder: &Path,
    fingerprint: Fingerprint,
) -> Result<PathBuf, TrainingError> {
    std::fs::create_dir_all(folder).map_err(TrainingError::file("make the folder", folder))?;
    let name = fingerprint.to_string();
    Ok(folder.join(&name[..16]))
}

/// Reports the progress of a pass over the frozen layers, and stops it when the observer interrupts.
pub(crate) fn observed(
    name: &str,
    num_examples: usize,
    observer: &dyn Observer,
    fill: impl FnOnce(
        &mut dyn FnMut(CacheProgress) -> Proceed,
    ) -> Result<Option<HiddenCache>, HiddenCacheError>,
) -> Result<HiddenCache, TrainingError> {
    let mut shown = observer.begin(Work::items(name, num_examples));
    let filled = fill(&mut |progress| {
        shown.set_position(progress.num_done as u64);
        if observer.is_interrupted() {
            Proceed::Stop
        } else {
            Proceed::Continue
        }
    })?;
    filled.ok_or(TrainingError::Interrupted)
}
