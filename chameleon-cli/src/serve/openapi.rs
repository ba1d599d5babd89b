//! `GET /openapi.json`: the interface as data, with the limits and the models of this server.
//!
//! It is strict: what it does not allow is refused, and no answer has a status or a shape that is not in it.

mod answers;
mod questions;

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use chameleon_models::CausalLm as _;
use serde_json::{Map, Value, json};

use super::{auth::Access, error::json as respond_json, state::Server};

/// `GET /openapi.json`
pub(crate) async fn document(State(server): State<Arc<Server>>) -> Response {
    respond_json(StatusCode::OK, &write(&Facts::of(&server)))
}

/// What differs from server to server.
#[derive(Debug, Clone)]
struct Facts {
    models: Vec<String>,
    adapters: Vec<String>,
    vocab_size: usize,
    hidden_size: usize,
    max_prompt_tokens: usize,
    max_new_tokens: usize,
    needs_key: bool,
}

impl Facts {
    fn of(server: &Server) -> Self {
        let sizes = server.engine.model().model.sizes();
        let adapters: Vec<String> = server.adapters().keys().cloned().collect();
        let adapted = adapters
            .iter()
            .map(|name| format!("{}:{name}", server.name));
        Self {
            models: std::iter::once(server.name.clone())
                .chain(adapted)
                .collect(),
            adapters,
            vocab_size: sizes.vocab_size,
            hidden_size: sizes.hidden_size,
            max_prompt_tokens: server.max_prompt_tokens(),
            max_new_tokens: server.limits.max_new_tokens,
            needs_key: matches!(server.access, Access::Keys(_)),
        }
    }
}

fn write(facts: &Facts) -> Value {
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Chameleon",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A frozen language model, adapted to the group each request falls in. \
                Compatible with OpenAI's interface; what is ours is under `chameleon`.",
        },
        "paths": paths(facts),
        "components": {
            "schemas": schemas(facts),
            "responses": {
                "Error": {
                    "description": "Why the request is not answered",
                    "content": {"application/json": {"schema": schema("Error")}},
                },
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    });
    if facts.needs_key {
        document["security"] = json!([{"key": []}]);
    }
    document
}

fn schemas(facts: &Facts) -> Map<String, Value> {
    let mut schemas = questions::schemas(facts);
    schemas.extend(answers::schemas(facts));
    schemas
}

/// A schema by its name.
fn schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// One way to ask.
struct Operation {
    id: &'static str,
    summary: &'static str,
    parameters: Vec<Value>,
    /// The schema of the body, if there is one.
    body: Option<&'static str>,
    /// The status of an answer, and its content.
    answer: (u16, Value),
    /// The statuses of errors.
    errors: &'static [u16],
    is_open: bool,
}

impl Operation {
    fn get(id: &'static str, summary: &'static str, answer: &str) -> Self {
        Self {
            id,
            summary,
            parameters: Vec::new(),
            body: None,
            answer: (200, json_content(answer)),
            errors: &[401, 403, 500],
            is_open: false,
        }
    }

    fn post(id: &'static str, summary: &'static str, body: &'static str, answer: Value) -> Self {
        Self {
            body: Some(body),
            answer: (200, answer),
            errors: &[400, 401, 403, 404, 408, 413, 415, 429, 500, 503, 504],
            ..Self::get(id, summary, "")
        }
    }

    fn open(self) -> Self {
        Self {
            errors: &[500],
            is_open: true,
            ..self
        }
    }

    fn value(self) -> Value {
        let (status, content) = self.answer;
        let mut responses = Map::new();
        responses.insert(
            status.to_string(),
            json!({"description": "The answer", "content": content}),
        );
        for status in self.errors {
            let error = json!({"$ref": "#/components/responses/Error"});
            responses.insert(status.to_string(), error);
        }
        let mut value = json!({
            "operationId": self.id,
            "summary": self.summary,
            "parameters": self.parameters,
            "responses": responses,
        });
        if let Some(body) = self.body {
            value["requestBody"] = json!({"required": true, "content": json_content(body)});
        }
        if self.is_open {
            value["security"] = json!([]);
        }
        value
    }
}

fn json_content(name: &str) -> Value {
    json!({"application/json": {"schema": schema(name)}})
}

fn streamed(whole: &str) -> Value {
    json!({
        "application/json": {"schema": schema(whole)},
        "text/event-stream": {"schema": schema("StreamEvent")},
    })
}

fn paths(facts: &Facts) -> Value {
    let completion = Operation::post(
        "createCompletion",
        "Continue prompts",
        "CompletionRequest",
        streamed("Completion"),
    );
    let chat = Operation::post(
        "createChatCompletion",
        "Answer a conversation",
        "ChatRequest",
        streamed("ChatCompletion"),
    );
    let embedding = Operation::post(
        "createEmbedding",
        "The prompt embeddings by which requests are grouped",
        "EmbeddingRequest",
        json_content("EmbeddingList"),
    );
    let model = Operation {
        parameters: vec![in_path("id", &facts.models)],
        errors: &[401, 403, 404, 500],
        ..Operation::get("getModel", "One model", "Model")
    };
    let load = Operation {
        answer: (201, json_content("Adapter")),
        errors: &[400, 401, 403, 404, 408, 409, 413, 415, 500, 503],
        ..Operation::post(
            "loadAdapter",
            "Load an adapter out of the folder of adapters",
            "LoadRequest",
            Value::Null,
        )
    };
    let unload = Operation {
        parameters: vec![in_path("name", &facts.adapters)],
        errors: &[401, 403, 404, 500],
        ..Operation::get("unloadAdapter", "Unload an adapter", "Deleted")
    };
    let clusters = Operation {
        parameters: vec![
            in_query("adapter", &json!({"type": "string"})),
            in_query("centroids", &json!({"type": "boolean"})),
        ],
        errors: &[400, 401, 403, 404, 500],
        ..Operation::get(
            "listClusters",
            "The groups of every adapter",
            "ClustersList",
        )
    };
    let ready = Operation {
        errors: &[500, 503],
        is_open: true,
        ..Operation::get("ready", "Whether requests are taken", "Status")
    };
    let metrics = Operation {
        answer: (200, json!({"text/plain": {"schema": {"type": "string"}}})),
        ..Operation::get("metrics", "The numbers for Prometheus", "")
    };
    let models = Operation::get("listModels", "The models that are served", "ModelList");
    let adapters = Operation::get(
        "listAdapters",
        "The adapters that are loaded",
        "AdapterList",
    );
    let stats = Operation::get("stats", "The numbers as JSON", "Stats");
    let health = Operation::get("health", "Whether the server lives", "Status").open();
    let document = Operation::get("openapi", "This document", "Document").open();
    json!({
        "/v1/completions": {"post": completion.value()},
        "/v1/chat/completions": {"post": chat.value()},
        "/v1/embeddings": {"post": embedding.value()},
        "/v1/models": {"get": models.value()},
        "/v1/models/{id}": {"get": model.value()},
        "/v1/adapters": {"get": adapters.value(), "post": load.value()},
        "/v1/adapters/{name}": {"delete": unload.value()},
        "/v1/clusters": {"get": clusters.value()},
        "/v1/stats": {"get": stats.value()},
        "/metrics": {"get": metrics.value()},
        "/health": {"get": health.value()},
        "/ready": {"get": ready.value()},
        "/openapi.json": {"get": document.value()},
    })
}

fn in_path(name: &str, known: &[String]) -> Value {
    json!({
        "name": name,
        "in": "path",
        "required": true,
        "schema": {"type": "string", "minLength": 1},
        "examples": known
            .iter()
            .map(|value| (value.clone(), json!({"value": value})))
            .collect::<Map<_, _>>(),
    })
}

fn in_query(name: &str, schema: &Value) -> Value {
    json!({"name": name, "in": "query", "required": false, "schema": schema})
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::serve::{
        adapters::LoadRequest, body, chat::ChatRequest, completions::CompletionRequest,
        embeddings::EmbeddingRequest, routes::ROUTES,
    };

    fn facts() -> Facts {
        Facts {
            models: vec!["m".to_owned(), "m:a".to_owned()],
            adapters: vec!["a".to_owned()],
            vocab_size: 320,
            hidden_size: 16,
            max_prompt_tokens: 511,
            max_new_tokens: 64,
            needs_key: true,
        }
    }

    #[test]
    fn every_route_is_described() {
        let document = write(&facts());
        let paths = document["paths"].as_object().unwrap();
        let described: Vec<&str> = paths.keys().map(String::as_str).collect();
        let mut routes = ROUTES.to_vec();
        routes.sort_unstable();
        let mut sorted = described.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, routes);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn visit(value: &Value, document: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(reference)) = fields.get("$ref") {
                        let target = document.pointer(reference.trim_start_matches('#'));
                        assert!(target.is_some(), "{reference}");
                    }
                    fields.values().for_each(|value| visit(value, document));
                }
                Value::Array(values) => values.iter().for_each(|value| visit(value, document)),
                _ => {}
            }
        }
        let document = write(&facts());
        visit(&document, &document);
    }

    /// The names a request knows, as its own error message lists them.
    fn fields_of<T: DeserializeOwned>() -> Vec<String> {
        let Err(error) = body::parse::<T>(br#"{"no such field": 0}"#) else {
            panic!("an unknown field was taken");
        };
        let (_, list) = error.message.split_once("expected").unwrap();
        let mut names: Vec<String> = list
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn requests_are_described_field_by_field() {
        let schemas = schemas(&facts());
        let described = |name: &str| {
            let properties = schemas[name]["properties"].as_object().unwrap();
            assert_eq!(schemas[name]["additionalProperties"], false);
            let mut names: Vec<String> = properties.keys().cloned().collect();
            names.sort_unstable();
            names
        };
        assert_eq!(described("ChatRequest"), fields_of::<ChatRequest>());
        assert_eq!(
            described("CompletionRequest"),
            fields_of::<CompletionRequest>()
        );
        assert_eq!(
            described("EmbeddingRequest"),
            fields_of::<EmbeddingRequest>()
        );
        assert_eq!(described("LoadRequest"), fields_of::<LoadRequest>());
    }
}
