//! What `train` and `compare` do before anything trains: texts to grouped examples with hidden states.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use burn::module::Module as _;
use burn::tensor::Tensor;
use chameleon_cluster::{BatchLimits, KMeansConfig, LabelAgreement, assign, label_agreement, plan};
use chameleon_hypernet::ConditionNorm;
use chameleon_models::{
    AdapterConfig, AdapterError, CausalLm as _, Example, GroupedExamples, HiddenCache,
    LanguageModel, LayerRange, LoadedModel, PromptEncoding, Representation,
    adapter::ImpossibleAdapter,
    adapter::layer_adaptation::check_targets,
    data::{ResamplingUnits, SplitFractions, TokenisedCorpus, UnitKind},
    files::fingerprint::Fingerprint,
    training::grouped_examples::{cache_hidden_states, states_fingerprint},
};

use crate::{
    commands::{
        Context,
        states::{encode_prompts, encode_training_prompts, with_states_bar},
        texts,
    },
    errors::CliError,
    resolve::{AdapterConfig as AdapterFlags, DataConfig, HeldOut, SpanConfig, TrainingConfig},
};

/// A model and data, ready to train on.
pub(crate) struct Prepared {
    pub(crate) loaded: LoadedModel,
    pub(crate) train: Part,
    pub(crate) held_out: Part,
    /// `[clusters, hidden]`, of the training prompts.
    pub(crate) centroids: Tensor<2>,
    /// What standardises prompts, if anything does.
    pub(crate) prompt_norm: Option<ConditionNorm>,
    /// What the model's hidden states depend on.
    states_fingerprint: String,
    /// How the training groups agree with the labels, if there are any.
    pub(crate) agreement: Option<LabelAgreement>,
}

/// One side of the split.
pub(crate) struct Part {
    pub(crate) data: GroupedExamples,
    pub(crate) label_names: Vec<String>,
    pub(crate) units: Units,
}

/// What the examples of a part are resampled by.
#[derive(Clone)]
pub(crate) struct Units {
    pub(crate) kind: UnitKind,
    /// The unit of each example.
    pub(crate) of_example: Rc<[usize]>,
}

impl Units {
    fn of(corpus: &TokenisedCorpus, examples: &[Example]) -> Self {
        let ResamplingUnits { kind, of_document } = corpus.resampling_units();
        let units = examples
            .iter()
            .map(|example| of_document[example.document_idx]);
        Self {
            kind,
            of_example: units.collect(),
        }
    }

    /// How many units the examples are of.
    pub(crate) fn count(&self) -> usize {
        self.of_example.iter().collect::<BTreeSet<_>>().len()
    }
}

/// What was asked for.
pub(crate) struct Sources<'a> {
    pub(crate) model: &'a str,
    pub(crate) data: &'a DataConfig,
    pub(crate) held_out: &'a HeldOut,
    pub(crate) training: &'a TrainingConfig,
}

/// Like [`Prepared`], with texts that are scored once, at the end.
pub(crate) struct PreparedTest {
    pub(crate) prepared: Prepared,
    pub(crate) test: Part,
}

/// A quarter as many examples are held out as are trained on, when their number is limited.
const HELD_OUT_SHARE: usize = 4;

pub(crate) fn prepare(sources: &Sources<'_>, context: &Context) -> Result<Prepared, CliError> {
    let (prepared, _) = train_and_aside(sources, &[sources.held_out], context)?;
    Ok(prepared)
}

/// Like [`prepare`], with a third part that nothing is chosen by.
pub(crate) fn prepare_with_test(
    sources: &Sources<'_>,
    test: &HeldOut,
    context: &Context,
) -> Result<PreparedTest, CliError> {
    let (prepared, mut rest) = train_and_aside(sources, &[sources.held_out, test], context)?;
    let test = rest.pop().expect("one part for each that is held out");
    Ok(PreparedTest { prepared, test })
}

/// Everything with the first part that is held out, and the parts after it.
fn train_and_aside(
    sources: &Sources<'_>,
    held_out: &[&HeldOut],
    context: &Context,
) -> Result<(Prepared, Vec<Part>), CliError> {
    let mut loaded = context.load_model(sources.model)?;
    loaded.model = loaded.model.no_grad();
    // Before the long work starts.
    check_adapter(&loaded.model, &sources.training.adapter)?;
    let span = sources.training.span;
    let texts = Texts::read(sources.data, span, held_out, &loaded, context)?;
    let states_fingerprint = loaded.states_fingerprint();
    let limit = sources.data.max_examples;
    let cut = |corpus: &TokenisedCorpus, documents: &[usize], limit| {
        texts::examples(corpus, documents, span, limit, context)
    };
    let train = cut(&texts.corpus, &texts.train, limit)?;
    let held_out_limit = limit.map(|limit| limit.div_ceil(HELD_OUT_SHARE));
    let asides = texts
        .asides
        .iter()
        .map(|aside| cut(texts.corpus_of(aside), &aside.documents, held_out_limit))
        .collect::<Result<Vec<_>, _>>()?;

    let encoding = sources.training.adapter.encoding;
    let prompts = encode_training_prompts(&loaded.model, encoding, &train, context);
    let norm = prompts.norm;
    let kmeans = KMeansConfig::new(sources.training.num_clusters)
        .fit(&prompts.vectors, context.settings.seed.derive("clusters"))?;
    let batch_size = sources.training.optimizer.batch_size;
    let units = Units::of(&texts.corpus, &train);
    let train = grouped(train, prompts.vectors, kmeans.assignments, batch_size)?;
    let mut parts = Vec::new();
    for (aside, examples) in texts.asides.iter().zip(asides) {
        let prompts = encode_prompts(&loaded.model, encoding, norm.as_ref(), &examples, context);
        let assignments = assign(&prompts, &kmeans.centroids)?.assignments;
        parts.push(Part {
            units: Units::of(texts.corpus_of(aside), &examples),
            data: grouped(examples, prompts, assignments, batch_size)?,
            label_names: texts.corpus_of(aside).label_names().to_vec(),
        });
    }
    let prepared = Prepared {
        agreement: agreement(&train)?,
        loaded,
        train: Part {
            data: train,
            label_names: texts.corpus.label_names().to_vec(),
            units,
        },
        held_out: parts.remove(0),
        centroids: kmeans.centroids,
        prompt_norm: norm,
        states_fingerprint,
    };
    Ok((prepared, parts))
}

/// Refuses modules and layers that the model does not have.
fn check_adapter(model: &LanguageModel, flags: &AdapterFlags) -> Result<(), CliError> {
    check_targets(model, &flags.targets).map_err(AdapterError::Target)?;
    let num_layers = model.sizes().num_layers;
    if let LayerRange::Between { end, .. } = flags.layers
        && end > num_layers
    {
        let range = flags.layers;
        return Err(ImpossibleAdapter::Layers { range, num_layers }.into());
    }
    check_encoding(model, flags.encoding)
}

/// Refuses a representation by a layer that the model does not have.
pub(crate) fn check_encoding(
    model: &LanguageModel,
    encoding: PromptEncoding,
) -> Result<(), CliError> {
    let num_layers = model.sizes().num_layers;
    match encoding.representation {
        Representation::Hidden { num_layers: found } if found > num_layers => {
            Err(ImpossibleAdapter::Representation { found, num_layers }.into())
        }
        _ => Ok(()),
    }
}

/// Documents by what they are for.
struct Texts {
    corpus: TokenisedCorpus,
    train: Vec<usize>,
    asides: Vec<Aside>,
}

/// Documents that are not trained on.
struct Aside {
    /// `None` if they are part of the corpus that is trained on.
    corpus: Option<TokenisedCorpus>,
    documents: Vec<usize>,
}

impl Texts {
    /// Reads the texts; one or two parts of them are held out.
    fn read(
        data: &DataConfig,
        span: SpanConfig,
        held_out: &[&HeldOut],
        loaded: &LoadedModel,
        context: &Context,
    ) -> Result<Self, CliError> {
        let corpus = texts::stream(data, span, loaded, context)?;
        let fraction = |idx: usize| match held_out.get(idx) {
            Some(HeldOut::Fraction(fraction)) => *fraction,
            Some(HeldOut::File(_)) | None => 0.0,
        };
        let fractions = SplitFractions::new(fraction(0), fraction(1))?;
        let split = corpus.split(fractions);
        let mut asides = Vec::new();
        for (held_out, documents) in held_out.iter().zip([split.valid, split.test]) {
            asides.push(match held_out {
                HeldOut::Fraction(_) => Aside {
                    corpus: None,
                    documents,
                },
                HeldOut::File(path) => {
                    let path = path.clone();
                    let data = DataConfig {
                        path,
                        ..data.clone()
                    };
                    let corpus = texts::stream(&data, span, loaded, context)?;
                    Aside {
                        documents: corpus.all_documents(),
                        corpus: Some(corpus),
                    }
                }
            });
        }
        Ok(Self {
            corpus,
            train: split.train,
            asides,
        })
    }

    fn corpus_of<'a>(&'a self, aside: &'a Aside) -> &'a TokenisedCorpus {
        aside.corpus.as_ref().unwrap_or(&self.corpus)
    }
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

    /// What the model's hidden states depend on.
    pub(crate) fn states_fingerprint(&self) -> &str {
        &self.states_fingerprint
    }

    /// What a resumed training must share with the one that was stopped: settings, model, texts and batches.
    pub(crate) fn run_fingerprint(&self, config: &AdapterConfig) -> String {
        self.fingerprint(&json(config), &[&self.train, &self.held_out])
    }

    /// Some settings, the model, and the texts and batches of some parts.
    pub(crate) fn fingerprint(&self, settings: &[u8], parts: &[&Part]) -> String {
        let plans: Vec<_> = parts
            .iter()
            .flat_map(|part| &part.data.plan.batches)
            .map(|batch| (batch.cluster_idx, &batch.rows))
            .collect();
        let sequences = parts
            .iter()
            .flat_map(|part| &part.data.examples)
            .map(|example| &example.sequence);
        Fingerprint::builder()
            .part("settings", settings)
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
        self.states_of(&part.data.examples, label, cache_dir, context)
    }

    /// Like [`hidden_states`](Self::hidden_states), from a file that serves every prefix of a sweep.
    pub(crate) fn shared_hidden_states(
        &self,
        part: &Part,
        span: SpanConfig,
        cache_dir: Option<&PathBuf>,
        context: &Context,
    ) -> Result<Option<HiddenCache>, CliError> {
        let examples: Vec<Example> = part
            .data
            .examples
            .iter()
            .map(|example| with_prefix(example, span))
            .collect();
        let cache = self.states_of(&examples, "hidden states", cache_dir, context)?;
        Ok(cache.map(|cache| cache.without_first(span.prefix - span.smallest_prefix)))
    }

    fn states_of(
        &self,
        examples: &[Example],
        label: &'static str,
        cache_dir: Option<&PathBuf>,
        context: &Context,
    ) -> Result<Option<HiddenCache>, CliError> {
        let fingerprint = &self.states_fingerprint;
        let path = cache_path(cache_dir, states_fingerprint(fingerprint, examples))?;
        fill_cache(self.model(), fingerprint, examples, &path, label, context)
    }
}

/// The same tokens, scored from another position on.
/// The example as the smallest prefix of a sweep sees it; a prompt with an answer is cut where the answer begins,
/// whatever the prefix.
fn with_prefix(example: &Example, span: SpanConfig) -> Example {
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

/// The folder of the hidden states with this fingerprint; the folder around it is made.
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
    Ok(folder.join(&name[..16]))
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
    let cache = with_states_bar(label, examples.len(), context, |observe| {
        cache_hidden_states(model, fingerprint, examples, path, observe)
    })?;
    Ok(cache)
}
