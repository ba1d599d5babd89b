//! Requests that must be refused, clearly and without harm.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::client::{MODEL, Reply, Served, adapter_dir, refused};

fn asked(more: Value) -> Value {
    let mut body = json!({"model": MODEL, "prompt": "The fox", "max_tokens": 4});
    let (Value::Object(fields), Value::Object(more)) = (&mut body, more) else {
        panic!("bodies are objects");
    };
    fields.extend(more);
    body
}

#[test]
fn wrong_values_are_named() {
    let served = Served::adapted(&[]);
    for (more, param) in [
        (json!({"temperature": 3}), "temperature"),
        (json!({"temperature": "warm"}), "temperature"),
        (json!({"top_p": -1}), "top_p"),
        (json!({"n": 0}), "n"),
        (json!({"n": 17}), "n"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": 100_000}), "max_tokens"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"stop": ""}), "stop"),
        (json!({"logprobs": 21}), "logprobs"),
        (json!({"prompt": []}), "prompt"),
        (json!({"prompt": ""}), "prompt"),
        (json!({"prompt": [320]}), "prompt"),
        (json!({"prompt": {"text": "x"}}), "prompt"),
        (json!({"seed": 0.5}), "seed"),
        (json!({"chameleon": {"scale": 1e9}}), "scale"),
        (
            json!({"chameleon": {"condition": "none"}}),
            "chameleon.condition",
        ),
        (json!({"chameleon": {"top_k": 0}}), "chameleon.top_k"),
        (json!({"chameleon": {"colour": 1}}), "chameleon.colour"),
        (json!({"no_such_thing": 1}), "no_such_thing"),
    ] {
        let reply = served.post("/v1/completions", &asked(more));
        reply.is_error(400, "invalid_value", Some(param));
    }
    for (more, param) in [
        (json!({"logit_bias": {"5": 1}}), "logit_bias"),
        (json!({"presence_penalty": 0.5}), "presence_penalty"),
        (json!({"suffix": "x"}), "suffix"),
        (json!({"best_of": 2}), "best_of"),
    ] {
        let reply = served.post("/v1/completions", &asked(more));
        reply.is_error(400, "unsupported_value", Some(param));
    }
    let too_long = asked(json!({"prompt": "The fox ".repeat(400)}));
    served.post("/v1/completions", &too_long).is_error(
        400,
        "context_length_exceeded",
        Some("prompt"),
    );
    served
        .post("/v1/completions", &asked(json!({"model": "other"})))
        .is_error(404, "model_not_found", Some("model"));
    served
        .post(
            "/v1/completions",
            &asked(json!({"model": "tiny-llama:none"})),
        )
        .is_error(404, "model_not_found", Some("model"));
}

#[test]
fn what_is_not_a_request_is_refused() {
    let served = Served::start(&["--max-body-bytes", "2000"]);
    let nested = "[".repeat(1000);
    for body in [
        "",
        "{",
        "null",
        "[]",
        "\"x\"",
        "{\"model\": 1}",
        &nested,
        "{} {}",
    ] {
        let reply = served.post_text("/v1/completions", body);
        assert_eq!(reply.status, 400, "{body}: {reply:?}");
    }
    let large = asked(json!({"prompt": "x".repeat(3000)}));
    served
        .post("/v1/completions", &large)
        .is_error(413, "body_too_large", None);
    let plain = "POST /v1/completions HTTP/1.1\r\nContent-Type: text/plain\r\n";
    served
        .ask(plain, "{}")
        .is_error(415, "unsupported_media_type", None);
    let wrong_method = served.delete("/v1/completions");
    wrong_method.is_error(405, "method_not_allowed", None);
    assert!(
        wrong_method.head.contains("allow: post"),
        "{wrong_method:?}"
    );
    served.get("/nothing").is_error(404, "not_found", None);
    served
        .get("/v1/models/%ff")
        .is_error(404, "model_not_found", None);
    for raw in [
        "\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\u{0}\u{1}\u{2}\r\n\r\n",
    ] {
        let mut stream = served.connect();
        stream.write_all(raw.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let reply = Reply::read(stream);
        assert!(
            reply.status == 0 || reply.status == 400,
            "{raw:?}: {reply:?}"
        );
    }
    assert_eq!(served.get("/health").status, 200);
}

#[test]
fn keys_are_asked_for_where_they_are_set() {
    let served = Served::start(&["--api-key", "secret"]);
    let get = |key: &str| served.ask(&format!("GET /v1/models HTTP/1.1\r\n{key}"), "");
    get("").is_error(401, "invalid_api_key", None);
    get("Authorization: Bearer wrong\r\n").is_error(401, "invalid_api_key", None);
    assert_eq!(get("Authorization: Bearer secret\r\n").status, 200);
    for path in ["/metrics", "/v1/stats", "/v1/clusters", "/v1/adapters"] {
        served.get(path).is_error(401, "invalid_api_key", None);
    }
    for path in ["/health", "/ready", "/openapi.json"] {
        assert_eq!(served.get(path).status, 200);
    }
}

#[test]
fn other_addresses_need_a_key() {
    let output = refused(&["--listen", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("--insecure-listen"), "{message}");
    let empty = refused(&["--api-key", ""]);
    assert_eq!(empty.status.code(), Some(2));
}

#[test]
fn pages_of_strangers_learn_nothing() {
    let served = Served::start(&[]);
    let mut stream = served.connect();
    stream
        .write_all(b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        .unwrap();
    Reply::read(stream).is_error(403, "foreign_host", None);
}

#[test]
fn adapters_are_loaded_out_of_their_folder_only() {
    let served = Served::adapted(&[]);
    let load = |path: &str| served.post("/v1/adapters", &json!({"name": "x", "path": path}));
    for path in ["/etc/passwd", "../mix", "mix/../../x", "..", "", "mix\u{0}"] {
        load(path).is_error(400, "invalid_value", Some("path"));
    }
    load("none").is_error(404, "adapter_not_found", Some("path"));
    load("cache").is_error(404, "adapter_not_found", Some("path"));
    served
        .post("/v1/adapters", &json!({"name": "a/b", "path": "mix"}))
        .is_error(400, "invalid_value", Some("name"));
    let closed = Served::start(&[]);
    closed
        .post("/v1/adapters", &json!({"name": "x", "path": "mix"}))
        .is_error(403, "loading_forbidden", None);
}

#[test]
fn an_adapter_of_another_base_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("foreign");
    std::fs::create_dir(&copy).unwrap();
    for name in ["adapter_config.json", "adapter.safetensors"] {
        std::fs::copy(adapter_dir().join("mix").join(name), copy.join(name)).unwrap();
    }
    let path = copy.join("adapter_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["base"]["fingerprint"] = "0123456789abcdef".into();
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(config.to_string().as_bytes()).unwrap();
    let served = Served::start(&["--adapter-dir", folder.path().to_str().unwrap()]);
    let reply = served.post("/v1/adapters", &json!({"name": "x", "path": "foreign"}));
    reply.is_error(409, "wrong_base", Some("path"));
    assert!(reply.body.contains("0123456789abcdef"));
    assert!(
        !reply.body.contains(folder.path().to_str().unwrap()),
        "{reply:?}"
    );
    std::fs::File::create(copy.join("adapter_config.json")).unwrap();
    let broken = served.post("/v1/adapters", &json!({"name": "x", "path": "foreign"}));
    broken.is_error(400, "broken_adapter", Some("path"));
    assert!(
        !broken.body.contains(folder.path().to_str().unwrap()),
        "{broken:?}"
    );
}
