//! Preparation of a training: three splits of texts, prompt embeddings, clusters and batches.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;

use burn::module::Module as _;
use burn::tensor::{Device, Tensor};
use chameleon_cluster::{KMeansConfig, LabelAgreement, assign, label_agreement, plan};
use chameleon_core::RunSeed;
use chameleon_hypernet::{ConditionNorm, ConditionScaling};

use crate::adapter::layer_adaptation::{LayerRange, check_targets};
use crate::adapter::prompts::{PromptEncoding, Representation, represent_examples};
use crate::adapter::{AdapterConfig, AdapterError, ImpossibleAdapter};
use crate::data::{Example, ResamplingUnits, SplitFractions, TokenisedCorpus, UnitKind};
use crate::families::causal_lm::CausalLm;
use crate::families::language_model::LanguageModel;
use crate::families::load::LoadedModel;
use crate::files::fingerprint::Fingerprint;
use crate::training::config::{AdapterOptions, TrainingConfig};
use crate::training::error::TrainingError;
use crate::training::grouped_examples::GroupedExamples;
use crate::training::observer::{Observer, Work};
use crate::training::texts::{SpanConfig, TextSource, examples};

/// Held-out texts.
#[derive(Debug, Clone, PartialEq)]
pub enum HeldOut {
    /// From a separate file or folder.
    File(PathBuf),
    /// This fraction of the training data, 0 to 1.
    Fraction(f64),
}

/// The texts of a training.
#[derive(Debug, Clone, Copy)]
pub struct TrainingSources<'a> {
    /// Texts to train on.
    pub train: &'a TextSource,
    /// Texts for the choice of epochs, learning rates and gates.
    pub valid: &'a HeldOut,
    /// Texts that are only scored, if any.
    pub test: Option<&'a HeldOut>,
}

/// A model and texts, ready to train on.
#[derive(Debug)]
pub struct TrainingData {
    /// The frozen model.
    pub loaded: LoadedModel,
    /// The training split.
    pub train: Split,
    /// The validation split.
    pub valid: Split,
    /// The test split, if there is one.
    pub test: Option<Split>,
    /// `[clusters, hidden]`, of the training prompts.
    pub centroids: Tensor<2>,
    /// Statistics that standardise prompt embeddings, if they are standardised.
    pub prompt_norm: Option<ConditionNorm>,
    /// Agreement of the training groups with the labels, if there are labels.
    pub agreement: Option<LabelAgreement>,
    /// The fingerprint of the model's hidden states.
    pub(crate) states_fingerprint: String,
}

/// A split of the data.
#[derive(Debug, Clone)]
pub struct Split {
    /// Its examples with their groups and batches.
    pub data: GroupedExamples,
    /// Names of the labels.
    pub label_names: Vec<String>,
    /// The units that its examples are resampled by.
    pub units: Units,
}

/// The units that the examples of a split are resampled by.
#[derive(Debug, Clone)]
pub struct Units {
    /// The kind of unit.
    pub kind: UnitKind,
    /// The unit of each example.
    pub of_example: Rc<[usize]>,
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

    /// The number of units.
    pub fn count(&self) -> usize {
        self.of_example.iter().collect::<BTreeSet<_>>().len()
    }
}

/// If the number of training examples is limited, that of held-out examples is limited to a quarter of it.
const HELD_OUT_SHARE: usize = 4;

impl TrainingData {
    /// Reads and cuts the texts, embeds their prompts, clusters those of the training texts, assigns the others to the
    /// nearest centroid, and plans the batches.
    ///
    /// # Errors
    ///
    /// When the adapter does not fit the model, `seq_len` exceeds the model's learned positions, texts cannot be read,
    /// or there are fewer prompts than clusters.
    #[expect(
        clippy::missing_panics_doc,
        reason = "validation texts are always held out"
    )]
    pub fn prepare(
        mut loaded: LoadedModel,
        sources: &TrainingSources<'_>,
        config: &TrainingConfig,
        seed: RunSeed,
        observer: &dyn Observer,
    ) -> Result<Self, TrainingError> {
        loaded.model = loaded.model.no_grad();
        // Checked before the long work starts.
        loaded.model.check_positions(config.span.seq_len)?;
        check_adapter(&loaded.model, &config.adapter, config.span)?;
        let texts = Texts::read(sources, config.span, &loaded, seed, observer)?;
        let states_fingerprint = loaded.states_fingerprint();
        let limit = sources.train.max_examples;
        let cut = |corpus: &TokenisedCorpus, documents: &[usize], limit| {
            examples(corpus, documents, config.span, limit, seed, observer)
        };
        let train = cut(&texts.corpus, &texts.train, limit)?;
        let held_out_limit = limit.map(|limit| limit.div_ceil(HELD_OUT_SHARE));
        let held_out = texts
            .held_out
            .iter()
            .map(|part| cut(texts.corpus_of(part), &part.documents, held_out_limit))
            .collect::<Result<Vec<_>, _>>()?;

        let encoding = config.adapter.encoding;
        let EncodedPrompts { vectors, norm } =
            encode_training_prompts(&loaded.model, encoding, &train, observer);
        let kmeans =
            KMeansConfig::new(config.num_clusters).fit(&vectors, seed.derive("clusters"))?;
        let units = Units::of(&texts.corpus, &train);
        let train = GroupedExamples::plan(train, vectors, kmeans.assignments, config.batch_size)?;
        let mut splits = Vec::new();
        for (part, examples) in texts.held_out.iter().zip(held_out) {
            let prompts =
                encode_prompts(&loaded.model, encoding, norm.as_ref(), &examples, observer);
            let assignments = assign(&prompts, &kmeans.centroids)?.assignments;
            let corpus = texts.corpus_of(part);
            splits.push(Split {
                units: Units::of(corpus, &examples),
                data: GroupedExamples::plan(examples, prompts, assignments, config.batch_size)?,
                label_names: corpus.label_names().to_vec(),
            });
        }
        let mut splits = splits.into_iter();
        Ok(Self {
            agreement: agreement(&train)?,
            loaded,
            train: Split {
                data: train,
                label_names: texts.corpus.label_names().to_vec(),
                units,
            },
            valid: splits.next().expect("validation texts are always held out"),
            test: splits.next(),
            centroids: kmeans.centroids,
            prompt_norm: norm,
            states_fingerprint,
        })
    }

    /// The frozen model.
    pub fn model(&self) -> &LanguageModel {
        &self.loaded.model
    }

    /// The device of the frozen model.
    pub(crate) fn device(&self) -> Device {
        self.model().head_weight().device()
    }

    /// The fingerprint that a resumed training must have in common with the interrupted one: of settings, model, texts
    /// and batches.
    pub(crate) fn run_fingerprint(&self, config: &AdapterConfig) -> String {
        self.fingerprint(&json(config), &[&self.train, &self.valid])
    }

    /// The fingerprint of some settings, the model, and the texts and batches of some splits.
    pub(crate) fn fingerprint(&self, settings: &[u8], splits: &[&Split]) -> String {
        let plans: Vec<_> = splits
            .iter()
            .flat_map(|split| &split.data.plan.batches)
            .map(|batch| (batch.cluster_idx, &batch.rows))
            .collect();
        let sequences = splits
            .iter()
            .flat_map(|split| &split.data.examples)
            .map(|example| &example.sequence);
        Fingerprint::builder()
            .part("settings", settings)
            .part("model", self.states_fingerprint.as_bytes())
            .part("plans", &json(&plans))
            .sequences(sequences)
            .finish()
            .to_string()
    }
}

impl GroupedExamples {
    /// Examples with their prompts and clusters, cut into batches of at most `batch_size`.
    ///
    /// # Errors
    ///
    /// When the batch size is zero.
    pub fn plan(
        examples: Vec<Example>,
        prompt_embeddings: Tensor<2>,
        assignments: Vec<usize>,
        batch_size: usize,
    ) -> Result<Self, TrainingError> {
        let lengths: Vec<usize> = examples
            .iter()
            .map(|example| example.sequence.len())
            .collect();
        let plan = plan(&assignments, &lengths, batch_size)?;
        Ok(Self {
            examples,
            prompt_embeddings,
            assignments,
            plan,
        })
    }
}

pub(crate) fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("settings and plans are plain data")
}

/// Rejects modules and layers that the model does not have.
fn check_adapter(
    model: &LanguageModel,
    options: &AdapterOptions,
    span: SpanConfig,
) -> Result<(), TrainingError> {
    check_targets(model, &options.targets).map_err(AdapterError::Target)?;
    let num_layers = model.sizes().num_layers;
    if let LayerRange::Between { end, .. } = options.layers
        && end > num_layers
    {
        let range = options.layers;
        return Err(ImpossibleAdapter::Layers { range, num_layers }.into());
    }
    check_encoding(model, options.encoding, span.seq_len)
}

/// Rejects a representation by a layer that the model does not have, or with more positions than the model has learned.
///
/// # Errors
///
/// When there is no such layer.
pub fn check_encoding(
    model: &LanguageModel,
    encoding: PromptEncoding,
    seq_len: usize,
) -> Result<(), TrainingError> {
    let num_layers = model.sizes().num_layers;
    match encoding.representation {
        Representation::Hidden { num_layers: found } if found > num_layers => {
            Err(ImpossibleAdapter::Representation { found, num_layers }.into())
        }
        Representation::Hidden { .. } => Ok(model.check_positions(seq_len)?),
        Representation::TokenEmbeddings => Ok(()),
    }
}

fn agreement(data: &GroupedExamples) -> Result<Option<LabelAgreement>, TrainingError> {
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

/// The documents of the splits.
struct Texts {
    corpus: TokenisedCorpus,
    train: Vec<usize>,
    held_out: Vec<HeldOutTexts>,
}

/// Held-out documents.
struct HeldOutTexts {
    /// `None` if they are part of the training corpus.
    corpus: Option<TokenisedCorpus>,
    documents: Vec<usize>,
}

impl Texts {
    fn read(
        sources: &TrainingSources<'_>,
        span: SpanConfig,
        loaded: &LoadedModel,
        seed: RunSeed,
        observer: &dyn Observer,
    ) -> Result<Self, TrainingError> {
        let corpus = sources.train.tokenised(span, loaded, seed, observer)?;
        let fraction = |held_out: Option<&HeldOut>| match held_out {
            Some(HeldOut::Fraction(fraction)) => *fraction,
            Some(HeldOut::File(_)) | None => 0.0,
        };
        let fractions = SplitFractions::new(fraction(Some(sources.valid)), fraction(sources.test))?;
        let split = corpus.split(fractions);
        let mut held_out = Vec::new();
        let parts = [
            (Some(sources.valid), split.valid),
            (sources.test, split.test),
        ];
        for (source, documents) in parts {
            held_out.push(match source {
                None => continue,
                Some(HeldOut::Fraction(_)) => HeldOutTexts {
                    corpus: None,
                    documents,
                },
                Some(HeldOut::File(path)) => {
                    let path = path.clone();
                    let source = TextSource {
                        path,
                        ..sources.train.clone()
                    };
                    let corpus = source.tokenised(span, loaded, seed, observer)?;
                    HeldOutTexts {
                        documents: corpus.all_documents(),
                        corpus: Some(corpus),
                    }
                }
            });
        }
        Ok(Self {
            corpus,
            train: split.train,
            held_out,
        })
    }

    fn corpus_of<'a>(&'a self, part: &'a HeldOutTexts) -> &'a TokenisedCorpus {
        part.corpus.as_ref().unwrap_or(&self.corpus)
    }
}

/// Prompt embeddings, with their statistics if they are standardised.
#[derive(Debug)]
pub struct EncodedPrompts {
    /// `[prompts, hidden]`
    pub vectors: Tensor<2>,
    /// Mean and variance, if prompts are standardised.
    pub norm: Option<ConditionNorm>,
}

/// Encodes the prompts of training texts; their statistics standardise all other prompts.
pub fn encode_training_prompts(
    model: &LanguageModel,
    encoding: PromptEncoding,
    examples: &[Example],
    observer: &dyn Observer,
) -> EncodedPrompts {
    let vectors = represented(model, encoding, examples, observer);
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

/// Encodes prompts with the statistics of the training prompts.
///
/// # Shapes
///
/// - output: `[prompts, hidden]`
pub(crate) fn encode_prompts(
    model: &LanguageModel,
    encoding: PromptEncoding,
    norm: Option<&ConditionNorm>,
    examples: &[Example],
    observer: &dyn Observer,
) -> Tensor<2> {
    let vectors = represented(model, encoding, examples, observer);
    match norm {
        Some(norm) => norm.forward(vectors),
        None => vectors,
    }
}

/// Texts between two reports of progress.
const CHUNK: usize = 256;

fn represented(
    model: &LanguageModel,
    encoding: PromptEncoding,
    examples: &[Example],
    observer: &dyn Observer,
) -> Tensor<2> {
    let mut progress = observer.begin(Work::items("prompts", examples.len()));
    let mut num_done = 0;
    let chunks = examples
        .chunks(CHUNK)
        .map(|chunk| {
            let vectors = represent_examples(model, encoding.representation, chunk);
            num_done += chunk.len();
            progress.set_position(num_done as u64);
            vectors
        })
        .collect();
    Tensor::cat(chunks, 0)
}
