//! Prompt embeddings, from a model's own input embedding or its hidden states.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Tensor;
use chameleon_core::{TokenBatch, masked_mean, prompt_embeddings};
use chameleon_hypernet::{ConditionScaling, LayerFactors};
use serde::{Deserialize, Serialize};

use crate::data::Example;
use crate::families::causal_lm::{CausalLm, PassEnd, PassInput, SequencePass};

/// The source of a prompt's embedding; written `token-embeddings` or `hidden:20`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Representation {
    /// The unit-norm mean of its input-token embeddings, as in the paper.
    #[default]
    TokenEmbeddings,
    /// The mean of its hidden states after this many layers of the frozen model.
    Hidden {
        /// Number of layers, at least one.
        num_layers: usize,
    },
}

/// How prompts are embedded, for grouping and as input of the hypernetwork.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptEncoding {
    /// The source of the embedding.
    pub representation: Representation,
    /// Whether they are standardised with the statistics of the training prompts, which are part of the adapter.
    pub scaling: ConditionScaling,
}

impl Default for PromptEncoding {
    /// As in the paper.
    fn default() -> Self {
        Self {
            representation: Representation::TokenEmbeddings,
            scaling: ConditionScaling::Raw,
        }
    }
}

/// A string that is not a valid [`Representation`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown representation `{found}`, expected `token-embeddings` or `hidden:LAYERS`")]
pub struct UnknownRepresentation {
    /// The text.
    pub found: String,
}

/// Prompts embedded at a time; bounds memory and does not change the result.
const CHUNK_PROMPTS: usize = 256;

/// Prompts that go through the layers together.
const CHUNK_PASS: usize = 16;

/// Embeds prompts: the unit-norm mean of their input-token embeddings.
///
/// Pass conditioning spans, never whole sequences: the embedding is the input of the hypernetwork.
///
/// # Shapes
///
/// - output: `[prompts, hidden]`
///
/// # Panics
///
/// When there is no prompt or one is empty.
pub fn embed_prompts(model: &impl CausalLm, prompts: &[&[u32]]) -> Tensor<2> {
    by_chunk(model, prompts, CHUNK_PROMPTS, |batch| {
        prompt_embeddings(model.embed(batch.token_ids), batch.pad_mask)
    })
}

/// Represents prompts, before anything is standardised. As with [`embed_prompts`], pass conditioning spans only.
///
/// # Shapes
///
/// - output: `[prompts, hidden]`
///
/// # Panics
///
/// When there is no prompt, one is empty, or the model has fewer layers.
pub(crate) fn represent_prompts(
    model: &impl CausalLm,
    representation: Representation,
    prompts: &[&[u32]],
) -> Tensor<2> {
    match representation {
        Representation::TokenEmbeddings => embed_prompts(model, prompts),
        Representation::Hidden { num_layers } => {
            assert!(
                num_layers <= model.sizes().num_layers,
                "{num_layers} layers of a model with {}",
                model.sizes().num_layers
            );
            by_chunk(model, prompts, CHUNK_PASS, |batch| {
                let states = model.forward(SequencePass {
                    input: PassInput::TokenIds(batch.token_ids),
                    end: PassEnd::Entering(num_layers),
                    factors: &LayerFactors::none(),
                });
                masked_mean(states, batch.pad_mask)
            })
        }
    }
}

/// Represents the prompts of examples; see [`represent_prompts`].
///
/// # Shapes
///
/// - output: `[examples, hidden]`
///
/// # Panics
///
/// As [`represent_prompts`].
pub(crate) fn represent_examples(
    model: &impl CausalLm,
    representation: Representation,
    examples: &[Example],
) -> Tensor<2> {
    let prompts: Vec<&[u32]> = examples.iter().map(Example::prompt_token_ids).collect();
    represent_prompts(model, representation, &prompts)
}

fn by_chunk(
    model: &impl CausalLm,
    prompts: &[&[u32]],
    chunk_len: usize,
    represent: impl Fn(TokenBatch) -> Tensor<2>,
) -> Tensor<2> {
    let device = model.head_weight().device();
    let chunks = prompts
        .chunks(chunk_len)
        .map(|prompts| {
            assert!(
                prompts.iter().all(|prompt| !prompt.is_empty()),
                "a prompt has at least one token"
            );
            // Padding is masked, so any token may be used for it.
            represent(TokenBatch::from_rows(prompts, 0, &device))
        })
        .collect();
    Tensor::cat(chunks, 0)
}

impl fmt::Display for Representation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TokenEmbeddings => f.write_str("token-embeddings"),
            Self::Hidden { num_layers } => write!(f, "hidden:{num_layers}"),
        }
    }
}

impl FromStr for Representation {
    type Err = UnknownRepresentation;

    fn from_str(text: &str) -> Result<Self, UnknownRepresentation> {
        if text == "token-embeddings" {
            return Ok(Self::TokenEmbeddings);
        }
        text.strip_prefix("hidden:")
            .and_then(|num_layers| num_layers.parse().ok())
            .filter(|&num_layers| num_layers > 0)
            .map(|num_layers| Self::Hidden { num_layers })
            .ok_or_else(|| UnknownRepresentation {
                found: text.to_owned(),
            })
    }
}

impl TryFrom<String> for Representation {
    type Error = UnknownRepresentation;

    fn try_from(text: String) -> Result<Self, UnknownRepresentation> {
        text.parse()
    }
}

impl From<Representation> for String {
    fn from(representation: Representation) -> Self {
        representation.to_string()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tolerance};

    use super::*;
    use crate::families::DecoderConfig;

    #[test]
    fn representations_survive_the_round_trip_and_others_are_refused() {
        for text in ["token-embeddings", "hidden:1", "hidden:20"] {
            assert_eq!(text.parse::<Representation>().unwrap().to_string(), text);
        }
        for text in ["", "hidden", "hidden:", "hidden:0", "hidden:x", "mean"] {
            let error = text.parse::<Representation>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn a_prompt_among_others_is_represented_as_alone() {
        let model = DecoderConfig::tiny_llama().init(&Device::flex()).unwrap();
        let prompts: [&[u32]; 3] = [&[3, 1, 4, 1, 5], &[9], &[2, 6, 5]];
        for text in ["token-embeddings", "hidden:1", "hidden:2"] {
            let representation = text.parse().unwrap();
            let together = represent_prompts(&model, representation, &prompts);
            for (row, prompt) in prompts.iter().enumerate() {
                let alone = represent_prompts(&model, representation, &[prompt]);
                let row = together.clone().slice([row..=row]).into_data();
                row.assert_approx_eq::<f32>(&alone.into_data(), Tolerance::absolute(1e-5));
            }
        }
    }
}
