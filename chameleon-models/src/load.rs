//! From a source to a model that runs: files, weights, tokenizer, identity.

use std::sync::Arc;

use burn::tensor::{Bytes, DType, Device};
use burn_pack::Tensor as StoredTensor;

use crate::checkpoint::{Architecture, Checkpoint};
use crate::error::ModelError;
use crate::gpt2::Gpt2Config;
use crate::hub::{self, HubOptions};
use crate::identity::{self, ModelIdentity};
use crate::key_map::ImportReport;
use crate::language_model::LanguageModel;
use crate::llama::LlamaConfig;
use crate::source::ModelSource;
use crate::tokenizer::Tokenizer;

/// A model that is ready to run, with what came along.
#[derive(Debug)]
pub struct LoadedModel {
    /// The model.
    pub model: LanguageModel,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// What became of every tensor.
    pub report: ImportReport,
    /// Which model it is.
    pub identity: ModelIdentity,
    /// Its configuration, in the words of Hugging Face's `config.json`.
    pub config: serde_json::Value,
    /// How it wants conversations written, if it was made for them.
    pub chat_template: Option<String>,
}

impl LoadedModel {
    /// What the hidden states depend on besides tokens: SHA-256 of the configuration and of every weight.
    ///
    /// Unlike the [`identity`](Self::identity), which asks for the embedding alone, it tells apart two models
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
    let checkpoint = match source {
        ModelSource::Folder(path) => Checkpoint::from_folder(path)?,
        ModelSource::Gguf(path) => Checkpoint::from_gguf(path)?,
        ModelSource::Hub(model) => Checkpoint::open(&hub::resolve(model, options)?)?,
    };
    let tokenizer = checkpoint.tokenizer()?;
    let chat_template = checkpoint.chat_template()?;
    let checkpoint = Arc::new(checkpoint);
    let broken = |source| ModelError::Config {
        path: checkpoint.config_path(),
        source,
    };
    let config = checkpoint.config().clone();
    let mut model = match checkpoint.architecture() {
        Architecture::Llama => {
            let config: LlamaConfig =
                serde_json::from_value(config).map_err(|error| broken(error.into()))?;
            LanguageModel::Llama(config.init(device).map_err(broken)?)
        }
        Architecture::Gpt2 => {
            let config: Gpt2Config =
                serde_json::from_value(config).map_err(|error| broken(error.into()))?;
            LanguageModel::Gpt2(config.init(device).map_err(broken)?)
        }
    };
    let tensors = checkpoint
        .tensors()
        .map(|(name, info)| {
            let size: usize = info.shape.iter().product();
            let (name, source) = (name.to_owned(), Arc::clone(&checkpoint));
            let read = name.clone();
            StoredTensor::deferred(
                name,
                DType::F32,
                info.shape.clone(),
                None,
                size * 4,
                move || {
                    let values = source
                        .read_f32(&read)
                        .map_err(|error| burn_pack::Error::IoError(error.to_string()))?;
                    Ok(Bytes::from_elems(values))
                },
            )
        })
        .collect();
    let report = model.import(tensors);
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
