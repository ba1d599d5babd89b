//! `GET /openapi.json`: the interface as data.
//!
//! Routes and types describe themselves. This file adds what a derive cannot know: the limits and names of this
//! server, and rules between parameters. Requests that the document does not allow are refused, and every response has
//! a status and a shape that it describes.

use std::sync::Arc;

use axum::{Extension, extract::State};
use chameleon_models::CausalLm as _;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::{OpenApi as _, ToSchema, openapi::OpenApi};

use super::{
    auth::Access,
    completions::MAX_PROMPTS,
    embeddings::MAX_INPUTS,
    error::{ErrorBody, OpenErrors},
    settings::{MAX_CHOICES, MAX_TOP_K, MAX_TOP_LOGPROBS},
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

/// An `OpenAPI` document.
#[derive(Debug, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub(crate) struct Document(Value);

/// This document
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", security(()),
    responses((status = 200, description = "The document", body = Document), OpenErrors))]
pub(crate) async fn document(
    State(server): State<Arc<Server>>,
    Extension(api): Extension<Arc<OpenApi>>,
) -> Json<Document> {
    let mut document = serde_json::to_value(&*api).expect("the document has text keys");
    let error = json!({"schema": {"$ref": "#/components/schemas/Error"}});
    document["components"]["responses"]["Error"] = json!({
        "description": "Why the request was refused, or failed",
        "content": {"application/json": error},
    });
    document["components"]["securitySchemes"]["key"] = json!({"type": "http", "scheme": "bearer"});
    if matches!(server.access, Access::Keys(_)) {
        document["security"] = json!([{"key": []}]);
    }
    let adapters: Vec<String> = server.adapters().keys().cloned().collect();
    let adapted = adapters
        .iter()
        .map(|name| format!("{}:{name}", server.name));
    let models: Vec<String> = std::iter::once(server.name.clone())
        .chain(adapted)
        .collect();
    let paths = &mut document["paths"];
    paths["/v1/models/{id}"]["get"]["parameters"][0]["examples"] = examples(&models);
    paths["/v1/adapters/{name}"]["delete"]["parameters"][0]["examples"] = examples(&adapters);
    let schemas = &mut document["components"]["schemas"];
    for (schema, property, limits) in limits(&server, &models) {
        if let (Value::Object(property), Value::Object(limits)) =
            (&mut schemas[schema]["properties"][property], limits)
        {
            property.extend(limits);
        }
    }
    for (schema, rules) in rules() {
        schemas[schema]["allOf"] = rules;
    }
    Json(Document(document))
}

fn examples(values: &[String]) -> Value {
    let examples = values
        .iter()
        .map(|value| (value.clone(), json!({"value": value})));
    Value::Object(examples.collect())
}

/// What the properties of requests and responses are limited to.
fn limits(server: &Server, models: &[String]) -> Vec<(&'static str, &'static str, Value)> {
    let sizes = server.engine.model().model.sizes();
    let hidden_size = sizes.hidden_size;
    let vector = json!({"minItems": hidden_size, "maxItems": hidden_size});
    let new_tokens = json!({"minimum": 1, "maximum": server.limits.max_new_tokens});
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
    let mut all = vec![
        ("ChatRequest", "max_completion_tokens", new_tokens.clone()),
        (
            "ChatRequest",
            "top_logprobs",
            json!({"maximum": MAX_TOP_LOGPROBS}),
        ),
        (
            "CompletionRequest",
            "logprobs",
            json!({"maximum": MAX_TOP_LOGPROBS}),
        ),
        ("CompletionRequest", "prompt", texts(MAX_PROMPTS)),
        ("EmbeddingRequest", "model", json!({"enum": models})),
        ("EmbeddingRequest", "input", texts(MAX_INPUTS)),
        (
            "EmbeddingRequest",
            "dimensions",
            json!({"enum": [hidden_size, null]}),
        ),
        (
            "Extension",
            "top_k",
            json!({"minimum": 1, "maximum": MAX_TOP_K}),
        ),
        ("ClusterState", "centroid", vector),
    ];
    for schema in ["ChatRequest", "CompletionRequest"] {
        all.extend([
            (schema, "model", json!({"enum": models})),
            (schema, "max_tokens", new_tokens.clone()),
            (schema, "n", json!({"minimum": 1, "maximum": MAX_CHOICES})),
            (
                schema,
                "seed",
                json!({"minimum": i64::MIN, "maximum": i64::MAX}),
            ),
        ]);
    }
    all
}

/// Rules between parameters.
fn rules() -> [(&'static str, Value); 2] {
    let either = |left: Value, right: Value| json!({"anyOf": [left, right]});
    let is_true = |name: &str| json!({"required": [name], "properties": {name: {"const": true}}});
    let is_null = |name: &str| json!({"properties": {name: {"type": "null"}}});
    let is_not_true = |name: &str| json!({"properties": {name: {"enum": [false, null]}}});
    [
        (
            "ChatRequest",
            json!([
                either(is_true("stream"), is_null("stream_options")),
                either(is_true("logprobs"), is_null("top_logprobs")),
                either(is_null("max_tokens"), is_null("max_completion_tokens")),
            ]),
        ),
        (
            "CompletionRequest",
            json!([
                either(is_true("stream"), is_null("stream_options")),
                either(is_not_true("echo"), is_null("logprobs")),
            ]),
        ),
    ]
}
