//! Loading of a model: files, weights, tokenizer, identity.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::Module as _;
use burn::tensor::Device;
use chameleon_core::device::is_flex;

use crate::adapter::identity::{self, ModelIdentity};
use crate::error::ModelError;
use crate::families::causal_lm::CausalLm as _;
use crate::families::config::DecoderConfig;
use crate::families::import::ImportReport;
use crate::families::language_model::LanguageModel;
use crate::families::stored_weights::{StoredWeights, WeightStorage};
use crate::files::chat::ModelChat;
use crate::files::checkpoint::Checkpoint;
use crate::files::hub::{self, HubOptions};
use crate::files::source::ModelSource;
use crate::files::tokenizer::Tokenizer;

/// A loaded model with its tokenizer and metadata. Clones share the weights.
#[derive(Debug, Clone)]
pub struct LoadedModel {
    /// The model.
    pub model: LanguageModel,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// How every tensor was used.
    pub report: ImportReport,
    /// Its identity.
    pub identity: ModelIdentity,
    /// Its chat template, if it has one.
    pub chat_template: Option<String>,
    /// With the keys of Hugging Face's `config.json`.
    config: serde_json::Value,
}

impl LoadedModel {
    /// The model's chat template, or `None` if it has none.
    ///
    /// # Errors
    ///
    /// When its template cannot be parsed.
    pub fn chat(&self) -> Result<Option<ModelChat>, ModelError> {
        self.chat_template
            .as_deref()
            .map(|template| ModelChat::new(template, &self.tokenizer))
            .transpose()
    }

    /// The number of parameters, however they are stored.
    pub fn num_params(&self) -> usize {
        self.model.num_params() + self.model.stored().num_values()
    }

    /// The fingerprint that hidden states depend on besides tokens: SHA-256 of the configuration and of every weight
    /// as it is stored in memory.
    ///
    /// Unlike the [`identity`](Self::identity), which depends on the embedding alone, it distinguishes two models
    /// that differ in a layer.
    pub fn states_fingerprint(&self) -> String {
        identity::weights_fingerprint(&self.model, &self.config)
    }
}

/// Loads a model onto a device.
///
/// # Errors
///
/// When a file is missing, damaged or of an unknown kind, or when a tensor that the model needs is missing or has
/// the wrong shape; the first one is named.
pub fn load(
    source: &ModelSource,
    options: &HubOptions,
    device: &Device,
) -> Result<LoadedModel, ModelError> {
    load_as(WeightStorage::default(), source, options, device)
}

/// Loads a model onto a device, with its weights stored as given.
///
/// # Errors
///
/// As [`load`].
pub fn load_as(
    storage: WeightStorage,
    source: &ModelSource,
    options: &HubOptions,
    device: &Device,
) -> Result<LoadedModel, ModelError> {
    let checkpoint = match source {
        ModelSource::Folder(path) => Checkpoint::from_folder(path)?,
        ModelSource::Gguf(path) => Checkpoint::from_gguf(path)?,
        ModelSource::Hub(model) => Checkpoint::open(&hub::resolve(model, options)?)?,
    };
    let tokenizer = checkpoint.tokenizer()?;
    let chat_template = checkpoint.chat_template()?;
    let broken = |source| ModelError::Config {
        path: checkpoint.config_path(),
        source,
    };
    let config = checkpoint
        .architecture()
        .config(checkpoint.config())
        .map_err(broken)?;
    // A head of its own counts, whatever the configuration says.
    let is_tied = config.is_tied && !checkpoint.has_own_head();
    let config = DecoderConfig { is_tied, ..config };
    let mut model = config.init(device).map_err(broken)?;
    let kept = match storage {
        WeightStorage::Stored if is_flex(device) => Kept::of(&checkpoint, &model)?,
        WeightStorage::Stored | WeightStorage::F32 => Kept::default(),
    };
    let mut report = model.import_except(&checkpoint, &kept.names);
    report.missing.retain(|name| !kept.names.contains(name));
    report.loaded.extend(kept.names);
    model.keep_stored(kept.weights);
    check(&report, &checkpoint)?;
    Ok(LoadedModel {
        identity: ModelIdentity::of(&model),
        config: checkpoint.config().clone(),
        model,
        tokenizer,
        report,
        chat_template,
    })
}

/// Weights that stay as they are stored, and what the checkpoint calls those that need not be dequantised.
#[derive(Default)]
struct Kept {
    weights: StoredWeights,
    names: BTreeSet<String>,
}

impl Kept {
    /// Weights of another shape than the model's are left to the import, which reports them.
    fn of(checkpoint: &Checkpoint, model: &LanguageModel) -> Result<Self, ModelError> {
        let mut names = BTreeSet::new();
        let mut modules = BTreeMap::new();
        let (mut embedding, mut head) = (None, None);
        let sizes = model.sizes();
        let linear_modules = model.linear_modules();
        let table = checkpoint.architecture().names();
        for (name, info) in checkpoint.tensors() {
            let Some(field) = checkpoint.field(name) else {
                continue;
            };
            let has_shape = |in_size: usize, out_size: usize| info.shape == [in_size, out_size];
            let kept = if field == EMBEDDING_FIELD {
                if has_shape(sizes.vocab_size, sizes.hidden_size) {
                    embedding = checkpoint.stored_embedding(name)?;
                }
                embedding.is_some()
            } else if field == HEAD_FIELD {
                if model.has_own_head() && has_shape(sizes.hidden_size, sizes.vocab_size) {
                    head = checkpoint.stored_linear(name)?;
                }
                head.is_some()
            } else if let Some((layer_idx, path)) = table.linear_weight(name)
                && let Some(module) = linear_modules.iter().find(|module| module.path == path)
                && layer_idx < sizes.num_layers
                && has_shape(module.in_size, module.out_size)
                && let Some(matrix) = checkpoint.stored_linear(name)?
            {
                modules.insert((layer_idx, path.to_owned()), matrix);
                true
            } else {
                false
            };
            if kept {
                names.insert(name.to_owned());
            }
        }
        if !model.has_own_head() {
            head.clone_from(&embedding);
        }
        Ok(Self {
            weights: StoredWeights::new(modules, embedding, head),
            names,
        })
    }
}

/// The field of the embedding.
const EMBEDDING_FIELD: &str = "embed_tokens.weight";
/// The field of a head that is not the embedding.
const HEAD_FIELD: &str = "lm_head.weight";

fn check(report: &ImportReport, checkpoint: &Checkpoint) -> Result<(), ModelError> {
    let path = || checkpoint.path().to_path_buf();
    if let Some(tensor) = report.misshapen.first() {
        return Err(ModelError::ShapeMismatch {
            path: path(),
            name: tensor.name.clone(),
            found: tensor.found.clone(),
            expected: tensor.expected.clone(),
        });
    }
    if let Some(tensor) = report.unreadable.first() {
        // Reading once more gives the reason as data.
        checkpoint.read_f32(&tensor.name)?;
    }
    match report.missing.first() {
        Some(name) => Err(ModelError::TensorMissing {
            path: path(),
            name: name.clone(),
        }),
        None => Ok(()),
    }
}
