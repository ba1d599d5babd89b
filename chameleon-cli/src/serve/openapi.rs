//! `GET /openapi.json`: the interface as data.
//!
//! Routes and types describe themselves. This file adds what a derive cannot know: the limits and names of this
//! server, and rules between parameters. Requests that the document does not allow are refused, and every response has
//! a status and a shape that it describes.

use std::sync::Arc;

use axum::{Extension, extract::State};
use chameleon_models::CausalLm as _;
use serde_json::{Value, json};
use utoipa::{OpenApi as _, openapi::OpenApi};

use super::{
    auth::Access,
    completions::MAX_PROMPTS,
    embeddings::MAX_INPUTS,
    error::{ErrorBody, OpenErrors},
    settings::{MAX_CHOICES, MAX_STOP_LEN, MAX_STOPS, MAX_TOP_K, MAX_TOP_LOGPROBS},
    state::Server,
    wire::Json,
};

/// The part that does not depend on routes.
pub(crate) fn base() -> OpenApi {
    #[derive(utoipa::OpenApi)]
    #[openapi(
        info(
            title = "Chameleon",
            description = "A frozen language model, adapted to the group of each request. \
                Compatible with OpenAI's interface; extensions are under `chameleon`.",
        ),
        components(schemas(ErrorBody))
    )]
    struct Base;

    Base::openapi()
}

/// This document
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", security(()),
    responses((status = 200, description = "The document", body = Value), OpenErrors))]
pub(crate) async fn document(
    State(server): State<Arc<Server>>,
    Extension(api): Extension<Arc<OpenApi>>,
) -> Json<Value> {
    let mut document = serde_json::to_value(&*api).expect("the document has text keys");
    let adapters: Vec<String> = server.adapters().keys().cloned().collect();
    let adapted = adapters
        .iter()
        .map(|name| format!("{}:{name}", server.name));
    let models: Vec<String> = std::iter::once(server.name.clone())
        .chain(adapted)
        .collect();
    merge(&mut document["components"], components(&server, &models));
    if matches!(server.access, Access::Keys(_)) {
        document["security"] = json!([{"key": []}]);
    }
    let paths = &mut document["paths"];
    paths["/v1/models/{id}"]["get"]["parameters"][0]["examples"] = examples(&models);
    paths["/v1/adapters/{name}"]["delete"]["parameters"][0]["examples"] = examples(&adapters);
    Json(document)
}

fn examples(values: &[String]) -> Value {
    let examples = values
        .iter()
        .map(|value| (value.clone(), json!({"value": value})));
    Value::Object(examples.collect())
}

/// Adds to the fields of an object; replaces anything else.
fn merge(into: &mut Value, value: Value) {
    match (into, value) {
        (Value::Object(into), Value::Object(fields)) => {
            for (name, value) in fields {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, value) => *into = value,
    }
}

/// What is added to the components.
fn components(server: &Server, models: &[String]) -> Value {
    let sizes = server.engine.model().model.sizes();
    let hidden_size = sizes.hidden_size;
    let new_tokens = json!({"minimum": 1, "maximum": server.limits.max_new_tokens});
    let top_logprobs = json!({"maximum": MAX_TOP_LOGPROBS});
    let stop = json!({"type": "string", "minLength": 1, "maxLength": MAX_STOP_LEN});
    let texts = |max_items: usize| {
        let text = json!({"type": "string", "minLength": 1});
        let tokens = json!({
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": sizes.vocab_size - 1},
            "minItems": 1,
            "maxItems": server.max_prompt_tokens(),
        });
        let many = |items: &Value| json!({"type": "array", "items": items, "minItems": 1, "maxItems": max_items});
        json!({
            "description": "A text, texts, token ids of a text, or token ids of texts.",
            "anyOf": [text, many(&text), tokens, many(&tokens)],
        })
    };
    let shared = json!({
        "model": {"enum": models},
        "max_tokens": new_tokens,
        "n": {"minimum": 1, "maximum": MAX_CHOICES},
        "seed": {"minimum": i64::MIN, "maximum": i64::MAX},
    });
    // Rules between parameters.
    let either = |left: Value, right: Value| json!({"anyOf": [left, right]});
    let is_true = |name: &str| json!({"required": [name], "properties": {name: {"const": true}}});
    let is_null = |name: &str| json!({"properties": {name: {"type": "null"}}});
    let is_not_true = |name: &str| json!({"properties": {name: {"enum": [false, null]}}});
    let options_of_streams = either(is_true("stream"), is_null("stream_options"));
    let mut components = json!({
        "responses": {"Error": {
            "description": "Why the request was refused, or failed",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }},
        "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        "schemas": {
            "ChatRequest": {
                "properties": {"max_completion_tokens": new_tokens, "top_logprobs": top_logprobs},
                "allOf": [
                    options_of_streams,
                    either(is_true("logprobs"), is_null("top_logprobs")),
                    either(is_null("max_tokens"), is_null("max_completion_tokens")),
                ],
            },
            "CompletionRequest": {
                "properties": {"prompt": texts(MAX_PROMPTS), "logprobs": top_logprobs},
                "allOf": [options_of_streams, either(is_not_true("echo"), is_null("logprobs"))],
            },
            "EmbeddingRequest": {"properties": {
                "model": {"enum": models},
                "input": texts(MAX_INPUTS),
                "dimensions": {"enum": [hidden_size, null]},
            }},
            "Extension": {"properties": {"top_k": {"minimum": 1, "maximum": MAX_TOP_K}}},
            "Stop": {"oneOf": [stop, {"type": "array", "items": stop, "maxItems": MAX_STOPS}]},
            "ClusterState": {"properties": {
                "centroid": {"minItems": hidden_size, "maxItems": hidden_size},
            }},
        },
    });
    for request in ["ChatRequest", "CompletionRequest"] {
        merge(
            &mut components["schemas"][request]["properties"],
            shared.clone(),
        );
    }
    components
}
