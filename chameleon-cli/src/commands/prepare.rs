//! What `train` and `compare` do before anything trains: texts to grouped examples with hidden states.

use std::path::{Path, PathBuf};

use burn::module::Module as _;
use burn::tensor::Tensor;
use chameleon_cluster::{BatchLimits, KMeansConfig, LabelAgreement, assign, label_agreement, plan};
use chameleon_models::{
    AdapterConfig, AdapterError, Corpus, Example, GroupedExamples, HiddenCache, LanguageModel,
    LoadedModel, Proceed,
    data::{self, SplitFractions},
    grouped_examples::{cache_hidden_states, embed_examples, states_fingerprint},
    hidden_cache::Fingerprint,
    layer_adaptation::check_targets,
};

use crate::{
    commands::{Context, texts},
    errors::CliError,
    resolve::{DataConfig, HeldOut, TrainingConfig},
};

/// A model and data, ready to train on.
pub(crate) struct Prepared {
    pub(crate) loaded: LoadedModel,
    pub(crate) train: Part,
    pub(crate) held_out: Part,
    /// `[clusters, hidden]`, of the training prompts.
    pub(crate) centroids: Tensor<2>,
    /// What the model's hidden states depend on.
    states_fingerprint: String,
    /// How the training groups agree with the labels, if there are any.
    pub(crate) agreement: Option<LabelAgreement>,
}

/// One side of the split.
pub(crate) struct Part {
    pub(crate) data: GroupedExamples,
    pub(crate) label_names: Vec<String>,
}

/// What was asked for.
pub(crate) struct Sources<'a> {
    pub(crate) model: &'a str,
    pub(crate) data: &'a DataConfig,
    pub(crate) held_out: &'a HeldOut,
    pub(crate) training: &'a TrainingConfig,
}

/// A quarter as many examples are held out as are trained on, when their number is limited.
const HELD_OUT_SHARE: usize = 4;

pub(crate) fn prepare(sources: &Sources<'_>, context: &Context) -> Result<Prepared, CliError> {
    let corpus = texts::read(sources.data, context)?;
    let held_out_corpus = match sources.held_out {
        HeldOut::File(path) => Some(texts::read(
            &DataConfig {
                path: path.clone(),
                ..sources.data.clone()
            },
            context,
        )?),
        HeldOut::Fraction(_) => None,
    };
    let (train_documents, held_out_documents) = match (&held_out_corpus, sources.held_out) {
        (None, HeldOut::Fraction(fraction)) => {
            let fractions = SplitFractions::new(*fraction, 0.0)?;
            let split = data::split(&corpus, fractions, context.settings.seed);
            (split.train, split.valid)
        }
        (Some(held_out), _) => (corpus.all_documents(), held_out.all_documents()),
        (None, HeldOut::File(_)) => unreachable!("a held-out file was read above"),
    };
    let mut loaded = context.load_model(sources.model)?;
    loaded.model = loaded.model.no_grad();
    // Before the long work starts.
    check_targets(&loaded.model, &sources.training.adapter.targets)
        .map_err(AdapterError::Target)?;
    let states_fingerprint = loaded.states_fingerprint();
    let limit = sources.data.max_examples;
    let cut = |corpus: &Corpus, documents: &[usize], limit| {
        let span = sources.training.span;
        texts::cut(corpus, documents, span, limit, &loaded.tokenizer, context)
    };
    let train = cut(&corpus, &train_documents, limit)?;
    let held_out_corpus = held_out_corpus.as_ref().unwrap_or(&corpus);
    let held_out_limit = limit.map(|limit| limit.div_ceil(HELD_OUT_SHARE));
    let held_out = cut(held_out_corpus, &held_out_documents, held_out_limit)?;

    let prompts = embed_examples(&loaded.model, &train);
    let kmeans = KMeansConfig::new(sources.training.num_clusters)
        .fit(&prompts, context.settings.seed.derive("clusters"))?;
    let batch_size = sources.training.optimizer.batch_size;
    let train = grouped(train, prompts, kmeans.assignments, batch_size)?;
    let prompts = embed_examples(&loaded.model, &held_out);
    let assignments = assign(&prompts, &kmeans.centroids)?.assignments;
    let held_out = grouped(held_out, prompts, assignments, batch_size)?;
    Ok(Prepared {
        agreement: agreement(&train)?,
        loaded,
        train: Part {
            data: train,
            label_names: corpus.label_names().to_vec(),
        },
        held_out: Part {
            data: held_out,
            label_names: held_out_corpus.label_names().to_vec(),
        },
        centroids: kmeans.centroids,
        states_fingerprint,
    })
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("settings and plans are plain data")
}

pub(crate) fn grouped(
    examples: Vec<Example>,
    prompt_embeddings: Tensor<2>,
    assignments: Vec<usize>,
    batch_size: usize,
) -> Result<GroupedExamples, CliError> {
    let lengths: Vec<usize> = examples
        .iter()
        .map(|example| example.sequence.len())
        .collect();
    let plan = plan(&assignments, &lengths, BatchLimits::rows(batch_size))?;
    Ok(GroupedExamples {
        examples,
        prompt_embeddings,
        assignments,
        plan,
    })
}

fn agreement(data: &GroupedExamples) -> Result<Option<LabelAgreement>, CliError> {
    let (assignments, labels): (Vec<usize>, Vec<usize>) = data
        .assignments
        .iter()
        .zip(&data.examples)
        .filter_map(|(&cluster_idx, example)| Some((cluster_idx, example.label_idx?)))
        .unzip();
    if labels.is_empty() {
        return Ok(None);
    }
    Ok(Some(label_agreement(&assignments, &labels)?))
}

impl Prepared {
    /// The frozen model.
    pub(crate) fn model(&self) -> &LanguageModel {
        &self.loaded.model
    }

    /// What a resumed training must share with the one that was stopped: settings, model, texts and batches.
    pub(crate) fn run_fingerprint(&self, config: &AdapterConfig) -> String {
        let sides = [&self.train.data, &self.held_out.data];
        let plans: Vec<_> = sides
            .iter()
            .flat_map(|data| &data.plan.batches)
            .map(|batch| (batch.cluster_idx, &batch.rows))
            .collect();
        let sequences = sides
            .iter()
            .flat_map(|data| &data.examples)
            .map(|example| &example.sequence);
        Fingerprint::builder()
            .part("settings", &json(config))
            .part("model", self.states_fingerprint.as_bytes())
            .part("plans", &json(&plans))
            .sequences(sequences)
            .finish()
            .to_string()
    }

    /// Hidden states of one side, from disk if they are there, or `None` if the user asked to stop.
    pub(crate) fn hidden_states(
        &self,
        part: &Part,
        label: &'static str,
        cache_dir: Option<&PathBuf>,
        context: &Context,
    ) -> Result<Option<HiddenCache>, CliError> {
        let examples = &part.data.examples;
        let fingerprint = &self.states_fingerprint;
        let path = cache_path(cache_dir, states_fingerprint(fingerprint, examples))?;
        fill_cache(self.model(), fingerprint, examples, &path, label, context)
    }
}

/// Where hidden states with this fingerprint are kept; the folder is made.
pub(crate) fn cache_path(
    cache_dir: Option<&PathBuf>,
    fingerprint: Fingerprint,
) -> Result<PathBuf, CliError> {
    let folder = match cache_dir {
        Some(folder) => folder.clone(),
        None => dirs::cache_dir()
            .ok_or(CliError::NoCacheFolder)?
            .join("chameleon")
            .join("hidden-states"),
    };
    std::fs::create_dir_all(&folder).map_err(|source| CliError::Folder {
        path: folder.clone(),
        source,
    })?;
    let name = fingerprint.to_string();
    Ok(folder.join(format!("{}.states", &name[..16])))
}

/// Fills a cache of hidden states with a bar, or answers `None` if the user asked to stop.
pub(crate) fn fill_cache(
    model: &LanguageModel,
    fingerprint: &str,
    examples: &[Example],
    path: &Path,
    label: &'static str,
    context: &Context,
) -> Result<Option<HiddenCache>, CliError> {
    let bar = context.output.progress(label, examples.len());
    let cache = cache_hidden_states(model, fingerprint, examples, path, |progress| {
        bar.set_position(progress.num_done as u64);
        if context.interrupt.is_asked() {
            Proceed::Stop
        } else {
            Proceed::Continue
        }
    });
    bar.finish_and_clear();
    Ok(cache?)
}
