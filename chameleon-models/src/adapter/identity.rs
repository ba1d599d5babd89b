//! The identity of an adapter's base model.

use std::fmt;

use burn::module::{Module as _, ModuleVisitor, Param};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::families::causal_lm::CausalLm;
use crate::families::language_model::LanguageModel;
use crate::families::sizes::ModelSizes;
use crate::files::fingerprint::hexadecimal;

/// The identity of a model in an adapter's configuration: models with equal identities give equal prompt embeddings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// The family, such as `llama` or `gpt2`.
    pub architecture: String,
    /// The sizes.
    pub sizes: ModelSizes,
    /// SHA-256 of the embedding's values as little-endian f32, the first 16 hexadecimal digits.
    pub fingerprint: String,
}

impl ModelIdentity {
    /// The identity of a loaded model.
    pub fn of(model: &LanguageModel) -> Self {
        let fingerprint = embedding_fingerprint(model);
        Self {
            architecture: model.config().family.to_owned(),
            sizes: *model.sizes(),
            fingerprint,
        }
    }
}

impl fmt::Display for ModelIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            architecture,
            sizes,
            fingerprint,
        } = self;
        write!(
            f,
            "{architecture} with {} layers of {} and {} tokens (fingerprint {fingerprint})",
            sizes.num_layers, sizes.hidden_size, sizes.vocab_size
        )
    }
}

/// SHA-256 of the embedding's values, which are the same however they are stored.
fn embedding_fingerprint(model: &LanguageModel) -> String {
    /// Tokens whose embeddings are decoded at a time.
    const CHUNK: usize = 1024;
    let mut digest = Sha256::new();
    if let Some(embedding) = &model.stored().embedding {
        for first in (0..embedding.out_size()).step_by(CHUNK) {
            let tokens = first..embedding.out_size().min(first + CHUNK);
            digest.update(bytemuck::cast_slice(&embedding.rows(tokens)));
        }
    } else {
        let data = model.dense_embedding().into_data();
        digest.update(data.convert::<f32>().as_bytes());
    }
    hexadecimal(&digest.finalize()[..8])
}

/// SHA-256 of a configuration and of all weights in the order of the module, in hexadecimal digits.
pub(crate) fn weights_fingerprint(model: &LanguageModel, config: &serde_json::Value) -> String {
    let mut hasher = WeightHasher(Sha256::new_with_prefix(config.to_string()));
    model.visit(&mut hasher);
    model.stored().update(&mut hasher.0);
    hexadecimal(&hasher.0.finalize())
}

struct WeightHasher(Sha256);

impl ModuleVisitor for WeightHasher {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let data = param.base().into_data().convert::<f32>();
        for size in param.lazy_shape().iter() {
            self.0.update(size.to_le_bytes());
        }
        self.0.update(data.as_bytes());
    }
}
