//! Loading of a model: files, weights, tokenizer, identity.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Device;

use crate::adapter::identity::{self, ModelIdentity};
use crate::error::ModelError;
use crate::families::config::DecoderConfig;
use crate::families::import::ImportReport;
use crate::families::language_model::LanguageModel;
use crate::families::packed::{PackedWeights, WeightStorage};
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

    /// The fingerprint that hidden states depend on besides tokens: SHA-256 of the configuration and of every weight.
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
    load_as(WeightStorage::F32, source, options, device)
}

/// Loads a model onto a device, with its weights stored as given. A model with packed weights can run with adapters;
/// nothing below its head can be trained.
///
/// # Errors
///
/// As [`load`], and when quantised weights are requested and the file has none of a supported type.
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
    let packed = match storage {
        WeightStorage::F32 => Packed::default(),
        WeightStorage::Quantised => Packed::of(&checkpoint)?,
    };
    let mut report = model.import_except(&checkpoint, &packed.names);
    report.missing.retain(|name| !packed.names.contains(name));
    report.loaded.extend(packed.names);
    model.pack(packed.weights);
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

/// Weights that stay packed, and what the checkpoint calls those that need not be dequantised.
#[derive(Default)]
struct Packed {
    weights: PackedWeights,
    names: BTreeSet<String>,
}

impl Packed {
    fn of(checkpoint: &Checkpoint) -> Result<Self, ModelError> {
        let mut names = BTreeSet::new();
        let mut modules = BTreeMap::new();
        let table = checkpoint.architecture().names();
        let in_layers = checkpoint.tensors().filter_map(|(name, _)| {
            checkpoint.field(name)?;
            let (layer_idx, path) = table.linear_weight(name)?;
            Some((name, layer_idx, path.to_owned()))
        });
        for (name, layer_idx, path) in in_layers {
            if let Some(matrix) = checkpoint.packed(name) {
                modules.insert((layer_idx, path), matrix);
                names.insert(name.to_owned());
            }
        }
        if modules.is_empty() {
            return Err(ModelError::NothingPacked {
                path: checkpoint.path().to_path_buf(),
            });
        }
        // The embedding is needed as f32 as well; a head that is not tied is not packed.
        let name = |field| table.of_field(field).map(|(name, _)| name);
        let head = name("lm_head.weight").filter(|head| checkpoint.tensor(head).is_some());
        let embedding = name("embed_tokens.weight").filter(|_| head.is_none());
        let head = embedding.and_then(|embedding| checkpoint.packed(&embedding));
        Ok(Self {
            weights: PackedWeights::new(modules, head),
            names,
        })
    }
}

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
