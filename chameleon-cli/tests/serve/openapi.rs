//! The `OpenAPI` document and the responses that it describes.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::client::{ADAPTED, MODEL, Served};

/// One successful request for every operation: method, described path, requested path and body. `answer_id` is that of
/// an answer to a request with a group.
fn requests(answer_id: &Value) -> Vec<(&'static str, &'static str, String, Value)> {
    let get =
        |path: &'static str, query: &str| ("get", path, format!("{path}{query}"), Value::Null);
    let post = |path: &'static str, body: Value| ("post", path, path.to_owned(), body);
    let completion = json!({"model": ADAPTED, "prompt": "The fox", "max_tokens": 4, "logprobs": 2});
    let chat = json!({
        "model": ADAPTED,
        "messages": [{"role": "user", "content": "The fox"}],
        "max_tokens": 4,
        "logprobs": true,
        "top_logprobs": 2,
    });
    let show = |id: &str| {
        (
            "get",
            "/v1/models/{id}",
            format!("/v1/models/{id}"),
            Value::Null,
        )
    };
    vec![
        post("/v1/completions", completion),
        post(
            "/v1/completions",
            json!({"model": MODEL, "prompt": "The fox"}),
        ),
        post("/v1/chat/completions", chat),
        post(
            "/v1/embeddings",
            json!({"model": ADAPTED, "input": "The fox"}),
        ),
        post(
            "/v1/embeddings",
            json!({"model": MODEL, "input": "The fox", "encoding_format": "base64"}),
        ),
        get("/v1/models", ""),
        show(MODEL),
        show(ADAPTED),
        post("/v1/adapters", json!({"name": "second", "path": "mix"})),
        get("/v1/adapters", ""),
        get("/v1/clusters", ""),
        get("/v1/clusters", "?centroids=true"),
        (
            "delete",
            "/v1/adapters/{name}",
            "/v1/adapters/second".to_owned(),
            Value::Null,
        ),
        post("/v1/feedback", json!({ "id": answer_id })),
        (
            "post",
            "/v1/groups/{key}/examples",
            "/v1/groups/acme/examples".to_owned(),
            json!({"examples": [{"prompt": "The fox ->", "completion": " heron"}]}),
        ),
        get("/v1/groups", ""),
        (
            "get",
            "/v1/groups/{key}/examples",
            "/v1/groups/acme/examples".to_owned(),
            Value::Null,
        ),
        (
            "delete",
            "/v1/groups/{key}/examples/{id}",
            "/v1/groups/acme/examples/0".to_owned(),
            Value::Null,
        ),
        (
            "delete",
            "/v1/groups/{key}",
            "/v1/groups/acme".to_owned(),
            Value::Null,
        ),
        get("/v1/stats", ""),
        get("/metrics", ""),
        get("/health", ""),
        get("/ready", ""),
        get("/openapi.json", ""),
    ]
}

#[test]
fn every_response_has_the_described_shape() {
    let folder = tempfile::tempdir().unwrap();
    let steps = format!("steps={}", crate::groups::adapter(folder.path()).display());
    let served = Served::adapted(&["--adapter", &steps, "--remember-answers"]);
    let asked = json!({"model": format!("{MODEL}:steps"), "prompt": "The fox ->", "user": "acme"});
    let answer_id = served.post("/v1/completions", &asked).json()["id"].clone();
    let document = served.get("/openapi.json").json();
    let mut described = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            described.insert(format!("{method} {path}"));
        }
    }
    for (method, described_path, path, body) in requests(&answer_id) {
        let reply = match method {
            "get" => served.get(&path),
            "post" => served.post(&path, &body),
            _ => served.delete(&path),
        };
        let responses = &document["paths"][described_path][method]["responses"];
        let response = &responses[reply.status.to_string()];
        assert!((200..300).contains(&reply.status), "{path}: {reply:?}");
        let Some(schema) = response["content"].get("application/json") else {
            assert!(
                response["content"]["text/plain"].is_object(),
                "{path}: {response}"
            );
            continue;
        };
        let found = check(&document, &schema["schema"], &reply.json());
        assert_eq!(found, Ok(()), "{method} {path}: {reply:?}");
        described.remove(&format!("{method} {described_path}"));
        if method == "post" {
            let refused = served.post(&path, &json!({}));
            let response = resolve(&document, &responses[refused.status.to_string()]);
            let schema = &response["content"]["application/json"]["schema"];
            assert_eq!(check(&document, schema, &refused.json()), Ok(()), "{path}");
        }
    }
    described.remove("get /metrics");
    assert!(described.is_empty(), "not requested: {described:?}");
}

#[test]
fn the_document_has_the_limits_of_its_server() {
    let served = Served::adapted(&["--max-new-tokens", "100"]);
    let document = served.get("/openapi.json").json();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in [
        "ChatRequest",
        "CompletionRequest",
        "EmbeddingRequest",
        "LoadRequest",
    ] {
        assert_eq!(schemas[name]["additionalProperties"], false, "{name}");
    }
    let properties = &schemas["ChatRequest"]["properties"];
    assert_eq!(properties["model"]["enum"], json!([MODEL, ADAPTED]));
    assert_eq!(properties["max_tokens"]["maximum"], 100);
    assert_eq!(properties["temperature"]["maximum"], 2.0);
    let required = schemas["ChatRequest"]["required"].as_array().unwrap();
    assert_eq!(required, &["model", "messages"]);
    assert_eq!(document.get("security"), None);
    references_lead_somewhere(&document, &document);
}

fn references_lead_somewhere(value: &Value, document: &Value) {
    match value {
        Value::Object(fields) => {
            assert_ne!(resolve(document, value), &Value::Null, "{value}");
            fields
                .values()
                .for_each(|value| references_lead_somewhere(value, document));
        }
        Value::Array(values) => values
            .iter()
            .for_each(|value| references_lead_somewhere(value, document)),
        _ => {}
    }
}

/// What a reference leads to; anything else is itself.
fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document
            .pointer(reference.trim_start_matches('#'))
            .unwrap_or(&Value::Null),
        None => schema,
    }
}

/// Checks a value against the keywords that our schemas of responses use.
fn check(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let mut known = BTreeSet::new();
    check_part(document, schema, value, &mut known)?;
    match value {
        Value::Object(fields) if !known.is_empty() => {
            let unknown = fields.keys().find(|key| !known.contains(*key));
            unknown.map_or(Ok(()), |key| Err(format!("`{key}` is not described")))
        }
        _ => Ok(()),
    }
}

fn check_part(
    document: &Value,
    schema: &Value,
    value: &Value,
    known: &mut BTreeSet<String>,
) -> Result<(), String> {
    let schema = resolve(document, schema);
    let wrong = || Err(format!("{value} is not {schema}"));
    let parts = |keyword: &str| schema[keyword].as_array().into_iter().flatten();
    for part in parts("allOf") {
        check_part(document, part, value, known)?;
    }
    for keyword in ["oneOf", "anyOf"] {
        let mut found = parts(keyword).map(|part| {
            let mut known = BTreeSet::new();
            check_part(document, part, value, &mut known).map(|()| known)
        });
        if let Some(fits) = found.find(Result::is_ok) {
            known.extend(fits?);
        } else if schema.get(keyword).is_some() {
            return wrong();
        }
    }
    let allowed = schema.get("enum").and_then(Value::as_array);
    if allowed.is_some_and(|allowed| !allowed.contains(value)) {
        return wrong();
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let has_type = |kind: &str| match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    };
    if !types.is_empty() && !types.into_iter().any(has_type) {
        return wrong();
    }
    for item in value.as_array().into_iter().flatten() {
        if let Some(items) = schema.get("items") {
            check(document, items, item)?;
        }
    }
    let Value::Object(fields) = value else {
        return Ok(());
    };
    for name in parts("required").filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            return Err(format!("`{name}` is missing in {value}"));
        }
    }
    let no_properties = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&no_properties);
    for (name, value) in fields {
        let more = schema
            .get("additionalProperties")
            .filter(|more| more.is_object());
        if let Some(schema) = properties.get(name).or(more) {
            check(document, schema, value)?;
            known.insert(name.clone());
        }
    }
    Ok(())
}
