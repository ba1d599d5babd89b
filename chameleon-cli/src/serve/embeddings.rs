//! `POST /v1/embeddings`: the prompt embeddings by which requests are grouped.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    blocking::compute,
    body,
    error::{ApiError, BodyErrors, GuardedErrors},
    prompts::TextInput,
    state::Server,
    strict::word,
    wire::{Json, ObjectKind},
};

/// Texts of one request at most.
pub(crate) const MAX_INPUTS: usize = 256;

/// Texts to embed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingRequest {
    model: String,
    #[schema(value_type = Value)]
    input: TextInput,
    encoding_format: Option<Encoding>,
    dimensions: Option<u64>,
    #[serde(rename = "user")]
    _user: Option<String>,
}

/// How embeddings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(rename_all = "lowercase")]
enum Encoding {
    #[default]
    Float,
    /// Little-endian floats of single precision.
    Base64,
}

/// The embeddings of some texts.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Embeddings {
    object: ObjectKind,
    data: Vec<EmbeddingItem>,
    model: String,
    usage: EmbeddingUsage,
}

#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingItem {
    object: ObjectKind,
    index: usize,
    embedding: Vector,
    /// The nearest group, if the model has an adapter.
    #[schema(required)]
    chameleon: Option<NearestGroup>,
}

#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
enum Vector {
    Float(Vec<f64>),
    Base64(String),
}

#[derive(Debug, Serialize, ToSchema)]
struct NearestGroup {
    cluster: usize,
    distance: f64,
}

#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// The prompt embeddings by which requests are grouped
#[utoipa::path(post, path = "/v1/embeddings", operation_id = "createEmbedding",
    request_body = EmbeddingRequest,
    responses((status = 200, description = "The embeddings", body = Embeddings), GuardedErrors, BodyErrors))]
pub(crate) async fn answer(
    State(server): State<Arc<Server>>,
    request: Request<Body>,
) -> Result<Json<Embeddings>, ApiError> {
    let asked: EmbeddingRequest = body::read(request, server.limits.max_body_bytes).await?;
    let model = server.choose_model(&asked.model)?;
    if let Some(found) = asked.dimensions {
        let has = server.engine.model().identity.sizes.hidden_size;
        if usize::try_from(found) != Ok(has) {
            let message = format!("found {found}, embeddings of this model have {has}");
            return Err(ApiError::invalid("dimensions", message));
        }
    }
    let inputs = asked.input.into_inputs("input", MAX_INPUTS)?;
    let encoding = asked.encoding_format.unwrap_or_default();
    let adapter = model.adapter;
    let (data, num_tokens) = compute(&server, move |server| {
        let mut num_tokens = 0;
        let mut data = Vec::with_capacity(inputs.len());
        for (index, input) in inputs.into_iter().enumerate() {
            let token_ids = input.encode_bare(server)?;
            num_tokens += token_ids.len();
            let grouping = server.engine.embed(&token_ids, adapter.as_deref())?;
            data.push(EmbeddingItem {
                object: ObjectKind::Embedding,
                index,
                embedding: encoding.write(&grouping.embedding),
                chameleon: grouping.nearest.map(|nearest| NearestGroup {
                    cluster: nearest.cluster_idx,
                    distance: nearest.distance.into(),
                }),
            });
        }
        Ok((data, num_tokens))
    })
    .await?;
    Ok(Json(Embeddings {
        object: ObjectKind::List,
        data,
        model: model.id,
        usage: EmbeddingUsage {
            prompt_tokens: num_tokens,
            total_tokens: num_tokens,
        },
    }))
}

impl TryFrom<String> for Encoding {
    type Error = String;

    fn try_from(found: String) -> Result<Self, String> {
        word(&found, &[("float", Self::Float), ("base64", Self::Base64)])
    }
}

impl Encoding {
    fn write(self, values: &[f32]) -> Vector {
        match self {
            Self::Float => Vector::Float(values.iter().copied().map(f64::from).collect()),
            Self::Base64 => {
                let bytes: Vec<u8> = values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                Vector::Base64(STANDARD.encode(bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_holds_little_endian_singles() {
        let base64 = Vector::Base64("AACAPw==".to_owned());
        assert_eq!(Encoding::Base64.write(&[1.0]), base64);
        assert_eq!(Encoding::Float.write(&[0.5]), Vector::Float(vec![0.5]));
    }
}
