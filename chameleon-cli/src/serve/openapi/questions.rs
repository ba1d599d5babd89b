//! Schemas of what clients send.

use serde_json::{Map, Value, json};

use super::{Facts, schema};
use crate::serve::{
    completions::MAX_PROMPTS,
    embeddings::MAX_INPUTS,
    settings::{MAX_CHOICES, MAX_STOP_LEN, MAX_STOPS, MAX_TOP_K, MAX_TOP_LOGPROBS},
};

pub(super) fn schemas(facts: &Facts) -> Map<String, Value> {
    let named = [
        ("ModelId", json!({"type": "string", "enum": facts.models})),
        ("Nothing", nothing()),
        ("Stop", stop()),
        ("StreamOptions", stream_options()),
        ("Extension", extension()),
        ("Prompt", texts(facts, MAX_PROMPTS)),
        ("EmbeddingInput", texts(facts, MAX_INPUTS)),
        ("Message", message()),
        ("ChatRequest", chat(facts)),
        ("CompletionRequest", completion(facts)),
        ("EmbeddingRequest", embedding(facts)),
        ("LoadRequest", load()),
    ];
    named
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect()
}

fn nothing() -> Value {
    json!({
        "description": "OpenAI has this parameter and this server does not; values that ask for nothing are taken.",
        "enum": [null, false, 0, [], {}],
    })
}

fn optional(kind: &str, minimum: impl Into<Value>, maximum: impl Into<Value>) -> Value {
    json!({"type": [kind, "null"], "minimum": minimum.into(), "maximum": maximum.into()})
}

fn flag() -> Value {
    json!({"type": ["boolean", "null"]})
}

fn or_null(name: &str) -> Value {
    json!({"anyOf": [schema(name), {"type": "null"}]})
}

fn stop() -> Value {
    let text = json!({"type": "string", "minLength": 1, "maxLength": MAX_STOP_LEN});
    json!({
        "description": "Texts that end the answer and are no part of it.",
        "anyOf": [text, {"type": "array", "items": text, "maxItems": MAX_STOPS}],
    })
}

fn stream_options() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {"include_usage": flag()},
    })
}

fn extension() -> Value {
    json!({
        "description": "What OpenAI's interface has no words for.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "condition": {
                "description": "What the hypernetwork sees of the group: `batch`, `centroid`, `prompt`, `blend` or \
                    `blend:STRENGTH`. By default what the adapter was trained with.",
                "anyOf": [
                    {"enum": ["batch", "centroid", "prompt", "blend", null]},
                    {"type": "string", "pattern": "^blend:[0-9]{1,6}$"},
                ],
            },
            "scale": {
                "description": "Multiplies what the adapter adds; 0 is the base model.",
                "type": ["number", "null"],
                "minimum": -1000,
                "maximum": 1000,
            },
            "top_k": {
                "description": "Sample among the likeliest tokens only.",
                "type": ["integer", "null"],
                "minimum": 1,
                "maximum": MAX_TOP_K,
            },
            "ignore_eos": {
                "description": "Write as many tokens as asked for, even if the model would end.",
                "type": ["boolean", "null"],
            },
        },
    })
}

fn texts(facts: &Facts, max_items: usize) -> Value {
    let text = json!({"type": "string", "minLength": 1});
    let token = json!({"type": "integer", "minimum": 0, "maximum": facts.vocab_size - 1});
    let tokens = json!({
        "type": "array",
        "items": token,
        "minItems": 1,
        "maxItems": facts.max_prompt_tokens,
    });
    json!({
        "description": "A text, texts, token ids of a text, or token ids of texts.",
        "anyOf": [
            text,
            {"type": "array", "items": text, "minItems": 1, "maxItems": max_items},
            tokens,
            {"type": "array", "items": tokens, "minItems": 1, "maxItems": max_items},
        ],
    })
}

fn message() -> Value {
    let part = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["type", "text"],
        "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    });
    let mut properties = json!({
        "role": {"enum": ["system", "developer", "user", "assistant"]},
        "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": part}]},
    });
    for name in [
        "name",
        "refusal",
        "tool_calls",
        "function_call",
        "audio",
        "annotations",
    ] {
        properties[name] = schema("Nothing");
    }
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["role", "content"],
        "properties": properties,
    })
}

/// What both kinds of answers take.
fn shared(facts: &Facts) -> Value {
    let mut properties = json!({
        "model": schema("ModelId"),
        "max_tokens": optional("integer", 1, facts.max_new_tokens),
        "temperature": optional("number", 0, 2),
        "top_p": optional("number", 0, 1),
        "n": optional("integer", 1, MAX_CHOICES),
        "stream": flag(),
        "stream_options": or_null("StreamOptions"),
        "stop": or_null("Stop"),
        "seed": optional("integer", i64::MIN, i64::MAX),
        "chameleon": or_null("Extension"),
        "user": {"type": ["string", "null"]},
    });
    for name in ["frequency_penalty", "presence_penalty", "logit_bias"] {
        properties[name] = schema("Nothing");
    }
    properties
}

/// `stream_options` are for streamed answers only.
fn streamed_or_without_options() -> Value {
    json!({"anyOf": [
        {"required": ["stream"], "properties": {"stream": {"const": true}}},
        {"properties": {"stream_options": {"type": "null"}}},
    ]})
}

fn chat(facts: &Facts) -> Value {
    let mut properties = shared(facts);
    properties["messages"] = json!({"type": "array", "items": schema("Message"), "minItems": 1});
    properties["max_completion_tokens"] = optional("integer", 1, facts.max_new_tokens);
    properties["logprobs"] = flag();
    properties["top_logprobs"] = optional("integer", 0, MAX_TOP_LOGPROBS);
    properties["response_format"] = json!({"anyOf": [
        {"type": "null"},
        {
            "type": "object",
            "additionalProperties": false,
            "required": ["type"],
            "properties": {"type": {"const": "text"}},
        },
    ]});
    properties["tool_choice"] = json!({"anyOf": [schema("Nothing"), {"enum": ["none", "auto"]}]});
    for name in [
        "tools",
        "parallel_tool_calls",
        "functions",
        "function_call",
        "store",
        "metadata",
    ] {
        properties[name] = schema("Nothing");
    }
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["model", "messages"],
        "properties": properties,
        "allOf": [
            streamed_or_without_options(),
            {"anyOf": [
                {"required": ["logprobs"], "properties": {"logprobs": {"const": true}}},
                {"properties": {"top_logprobs": {"type": "null"}}},
            ]},
            {"anyOf": [
                {"properties": {"max_tokens": {"type": "null"}}},
                {"properties": {"max_completion_tokens": {"type": "null"}}},
            ]},
        ],
    })
}

fn completion(facts: &Facts) -> Value {
    let mut properties = shared(facts);
    properties["prompt"] = schema("Prompt");
    properties["logprobs"] = optional("integer", 0, MAX_TOP_LOGPROBS);
    properties["echo"] = flag();
    properties["best_of"] = json!({"enum": [1, null]});
    properties["suffix"] = schema("Nothing");
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["model", "prompt"],
        "properties": properties,
        "allOf": [
            streamed_or_without_options(),
            {"anyOf": [
                {"properties": {"echo": {"enum": [false, null]}}},
                {"properties": {"logprobs": {"type": "null"}}},
            ]},
        ],
    })
}

fn embedding(facts: &Facts) -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["model", "input"],
        "properties": {
            "model": schema("ModelId"),
            "input": schema("EmbeddingInput"),
            "encoding_format": {"enum": ["float", "base64", null]},
            "dimensions": {"enum": [facts.hidden_size, null]},
            "user": {"type": ["string", "null"]},
        },
    })
}

fn load() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["name", "path"],
        "properties": {
            "name": {
                "description": "1 to 64 letters, digits, `-`, `_` and `.`",
                "type": "string",
                "pattern": "^[A-Za-z0-9._-]{1,64}$",
            },
            "path": {
                "description": "Inside the folder of adapters: relative, without `..`",
                "type": "string",
                "pattern": "^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$",
            },
        },
    })
}
