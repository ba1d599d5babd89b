//! Schemas of what the server sends.

use serde_json::{Map, Value, json};

use super::{Facts, schema};

pub(super) fn schemas(facts: &Facts) -> Map<String, Value> {
    let named = [
        ("Error", error()),
        (
            "Usage",
            counts(&["prompt_tokens", "completion_tokens", "total_tokens"]),
        ),
        ("GroupNote", group_note()),
        ("Completion", completion()),
        ("ChatCompletion", chat()),
        ("StreamEvent", event()),
        ("EmbeddingList", embeddings(facts)),
        ("Model", model()),
        ("ModelList", list("Model")),
        ("Adapter", adapter()),
        ("AdapterList", list("Adapter")),
        ("Deleted", deleted()),
        ("Clusters", clusters(facts)),
        ("ClustersList", list("Clusters")),
        ("Stats", stats()),
        (
            "Status",
            object(&json!({"status": {"enum": ["ok", "ready"]}})),
        ),
        ("Document", object(&json!({"openapi": {"const": "3.1.0"}}))),
    ];
    named
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect()
}

/// An object with all of these.
fn object(properties: &Value) -> Value {
    let required: Vec<String> = properties
        .as_object()
        .map(|fields| fields.keys().cloned().collect())
        .unwrap_or_default();
    json!({"type": "object", "required": required, "properties": properties})
}

fn list(name: &str) -> Value {
    object(&json!({
        "object": {"const": "list"},
        "data": {"type": "array", "items": schema(name)},
    }))
}

fn text() -> Value {
    json!({"type": "string"})
}

fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

fn or_null(kind: &str) -> Value {
    json!({"type": [kind, "null"]})
}

fn counts(names: &[&str]) -> Value {
    let properties: Map<String, Value> = names
        .iter()
        .map(|name| ((*name).to_owned(), count()))
        .collect();
    object(&Value::Object(properties))
}

fn error() -> Value {
    object(&json!({
        "error": object(&json!({
            "message": text(),
            "type": text(),
            "param": or_null("string"),
            "code": text(),
        })),
    }))
}

fn group_note() -> Value {
    object(&json!({
        "request_id": count(),
        "cluster": or_null("integer"),
        "condition": or_null("string"),
        "group_size": or_null("integer"),
        "distance": or_null("number"),
    }))
}

/// A whole answer with choices of this kind.
fn answer(kind: &str, mut choice: Value) -> Value {
    choice["index"] = count();
    choice["finish_reason"] = json!({"enum": ["stop", "length"]});
    choice["chameleon"] = schema("GroupNote");
    object(&json!({
        "id": text(),
        "object": {"const": kind},
        "created": count(),
        "model": text(),
        "system_fingerprint": {"type": "null"},
        "choices": {"type": "array", "minItems": 1, "items": object(&choice)},
        "usage": schema("Usage"),
    }))
}

fn completion() -> Value {
    let logprobs = object(&json!({
        "tokens": {"type": "array", "items": text()},
        "token_logprobs": {"type": "array", "items": {"type": "number"}},
        "top_logprobs": {
            "type": "array",
            "items": {"type": "object", "additionalProperties": {"type": "number"}},
        },
        "text_offset": {"type": "array", "items": count()},
    }));
    answer(
        "text_completion",
        json!({"text": text(), "logprobs": {"anyOf": [logprobs, {"type": "null"}]}}),
    )
}

fn chat() -> Value {
    let likely = json!({
        "token": text(),
        "logprob": {"type": "number"},
        "bytes": {"type": ["array", "null"], "items": count()},
    });
    let mut chosen = likely.clone();
    chosen["top_logprobs"] = json!({"type": "array", "items": object(&likely)});
    let logprobs = object(&json!({"content": {"type": "array", "items": object(&chosen)}}));
    let message = object(&json!({
        "role": {"const": "assistant"},
        "content": text(),
        "refusal": {"type": "null"},
    }));
    answer(
        "chat.completion",
        json!({"message": message, "logprobs": {"anyOf": [logprobs, {"type": "null"}]}}),
    )
}

/// Every event of a stream.
fn event() -> Value {
    let mut event = object(&json!({"data": text()}));
    event["description"] = json!(
        "One event: `data` is a piece of the answer as JSON, or an error, or `[DONE]` at the end."
    );
    event
}

fn embeddings(facts: &Facts) -> Value {
    let numbers = json!({
        "type": "array",
        "items": {"type": "number"},
        "minItems": facts.hidden_size,
        "maxItems": facts.hidden_size,
    });
    let group = object(&json!({"cluster": count(), "distance": {"type": "number"}}));
    let embedding = object(&json!({
        "object": {"const": "embedding"},
        "index": count(),
        "embedding": {"anyOf": [numbers, text()]},
        "chameleon": {"anyOf": [group, {"type": "null"}]},
    }));
    object(&json!({
        "object": {"const": "list"},
        "data": {"type": "array", "minItems": 1, "items": embedding},
        "model": text(),
        "usage": counts(&["prompt_tokens", "total_tokens"]),
    }))
}

fn model() -> Value {
    object(&json!({
        "id": text(),
        "object": {"const": "model"},
        "created": count(),
        "owned_by": text(),
        "chameleon": object(&json!({
            "adapter": or_null("string"),
            "max_prompt_tokens": count(),
            "max_new_tokens": count(),
        })),
    }))
}

fn adapter() -> Value {
    object(&json!({
        "id": text(),
        "object": {"const": "adapter"},
        "created": count(),
        "model": text(),
        "path": or_null("string"),
        "condition": text(),
        "num_clusters": count(),
        "prefix": count(),
        "memory": {"anyOf": [counts(&["num_entries", "num_bytes"]), {"type": "null"}]},
        "num_requests": count(),
    }))
}

fn deleted() -> Value {
    object(&json!({
        "id": text(),
        "object": {"const": "adapter"},
        "deleted": {"const": true},
    }))
}

fn clusters(facts: &Facts) -> Value {
    let mut cluster = object(&json!({
        "cluster": count(),
        "num_requests": count(),
        "num_running": count(),
        "delta_norm": or_null("number"),
        "position": {
            "type": ["array", "null"],
            "items": {"type": "number"},
            "minItems": 2,
            "maxItems": 2,
        },
        "recent_request_ids": {"type": "array", "items": count()},
    }));
    cluster["properties"]["centroid"] = json!({
        "type": ["array", "null"],
        "items": {"type": "number"},
        "minItems": facts.hidden_size,
        "maxItems": facts.hidden_size,
    });
    object(&json!({
        "object": {"const": "clusters"},
        "adapter": text(),
        "model": text(),
        "clusters": {"type": "array", "items": cluster},
    }))
}

fn stats() -> Value {
    let mut stats = counts(&[
        "requests_running",
        "requests_waiting",
        "requests_finished",
        "requests_cancelled",
        "requests_failed",
        "requests_refused",
        "prompt_tokens",
        "generated_tokens",
        "cached_tokens",
        "reserved_tokens",
        "max_cached_tokens",
        "factor_hits",
        "factor_misses",
        "factors_cached",
    ]);
    for name in ["tokens_per_second", "mean_batch", "uptime_seconds"] {
        stats["properties"][name] = json!({"type": "number"});
    }
    stats["properties"]["object"] = json!({"const": "stats"});
    stats
}
