//! `POST /v1/embeddings`: the prompt embeddings by which requests are grouped.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    blocking::compute,
    body,
    error::{ApiError, json as respond_json},
    prompts::TextInput,
    state::Server,
    strict::word,
};

/// Texts of one request at most.
pub(crate) const MAX_INPUTS: usize = 256;

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingRequest {
    model: String,
    input: TextInput,
    encoding_format: Option<Encoding>,
    dimensions: Option<u64>,
    #[serde(rename = "user")]
    _user: Option<String>,
}

/// How the numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
enum Encoding {
    #[default]
    Float,
    /// Little-endian singles.
    Base64,
}

/// `POST /v1/embeddings`
pub(crate) async fn answer(
    State(server): State<Arc<Server>>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
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
    let adapter = model.adapter.clone();
    let (embeddings, num_tokens) = compute(&server, move |server| {
        let mut num_tokens = 0;
        let mut embeddings = Vec::with_capacity(inputs.len());
        for input in inputs {
            let token_ids = input.encode_bare(server)?;
            num_tokens += token_ids.len();
            embeddings.push(server.engine.embed(&token_ids, adapter.as_deref())?);
        }
        Ok((embeddings, num_tokens))
    })
    .await?;
    let encoding = asked.encoding_format.unwrap_or_default();
    let data: Vec<Value> = embeddings
        .iter()
        .enumerate()
        .map(|(index, grouping)| {
            json!({
                "object": "embedding",
                "index": index,
                "embedding": encoding.write(&grouping.embedding),
                "chameleon": grouping.nearest.map(|nearest| json!({
                    "cluster": nearest.cluster_idx,
                    "distance": nearest.distance,
                })),
            })
        })
        .collect();
    Ok(respond_json(
        StatusCode::OK,
        &json!({
            "object": "list",
            "data": data,
            "model": model.id,
            "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
        }),
    ))
}

impl TryFrom<String> for Encoding {
    type Error = String;

    fn try_from(found: String) -> Result<Self, String> {
        word(&found, &[("float", Self::Float), ("base64", Self::Base64)])
    }
}

impl Encoding {
    fn write(self, values: &[f32]) -> Value {
        match self {
            Self::Float => json!(values),
            Self::Base64 => {
                let bytes: Vec<u8> = values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                Value::String(STANDARD.encode(bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_holds_little_endian_singles() {
        assert_eq!(Encoding::Base64.write(&[1.0]), json!("AACAPw=="));
        assert_eq!(Encoding::Float.write(&[0.5]), json!([0.5]));
    }
}
