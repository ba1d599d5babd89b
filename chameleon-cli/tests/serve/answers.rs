//! Answers: whole and streamed, with and without an adapter, and the metadata in their responses.

use serde_json::{Value, json};

use crate::client::{ADAPTED, MODEL, Served, train};

/// A greedy completion of eight tokens.
fn completion(model: &str) -> Value {
    json!({"model": model, "prompt": "The fox", "max_tokens": 8, "temperature": 0})
}

fn with(mut body: Value, more: Value) -> Value {
    let (Value::Object(fields), Value::Object(more)) = (&mut body, more) else {
        panic!("bodies are objects");
    };
    fields.extend(more);
    body
}

fn chat(model: &str) -> Value {
    let messages = [json!({"role": "user", "content": "The fox"})];
    json!({"model": model, "messages": messages, "max_tokens": 8, "temperature": 0})
}

fn text_of(choice: &Value) -> String {
    let text = choice["text"].as_str();
    let content = choice["message"]["content"].as_str();
    text.or(content).unwrap().to_owned()
}

/// The text of a stream's first choice, from its pieces.
fn joined(pieces: &[Value]) -> String {
    let texts = pieces.iter().filter_map(|piece| {
        let choice = piece["choices"].get(0)?;
        choice["text"]
            .as_str()
            .or(choice["delta"]["content"].as_str())
    });
    texts.collect()
}

#[test]
fn an_answer_is_the_same_whole_and_in_pieces() {
    let served = Served::adapted(&[]);
    for model in [MODEL, ADAPTED] {
        for (path, body) in [
            ("/v1/completions", completion(model)),
            ("/v1/chat/completions", chat(model)),
        ] {
            let whole = served.post(path, &body).json();
            let choice = &whole["choices"][0];
            assert_eq!(whole["model"], model);
            assert_eq!(whole["usage"]["completion_tokens"], 8, "{whole}");
            assert_eq!(choice["finish_reason"], "length");
            let streamed = json!({"stream": true, "stream_options": {"include_usage": true}});
            let pieces = served.post(path, &with(body, streamed)).pieces();
            assert_eq!(joined(&pieces), text_of(choice));
            let (last, others) = pieces.split_last().unwrap();
            assert_eq!(last["usage"], whole["usage"]);
            assert_eq!(last["choices"], json!([]));
            assert!(others.iter().all(|piece| piece["usage"].is_null()));
            let ends: Vec<&Value> = others
                .iter()
                .filter(|piece| !piece["choices"][0]["finish_reason"].is_null())
                .collect();
            assert_eq!(ends.len(), 1);
        }
    }
}

#[test]
fn an_adapted_answer_says_how_it_was_adapted() {
    let served = Served::adapted(&[]);
    let ask = |body: Value| served.post("/v1/completions", &body).json()["choices"][0].clone();
    let base = ask(completion(MODEL));
    assert_eq!(base["chameleon"]["cluster"], Value::Null);
    let adapted = ask(completion(ADAPTED));
    let note = &adapted["chameleon"];
    assert_eq!(note["condition"], "centroid");
    assert_eq!(note["group_size"], 1);
    assert!(note["distance"].is_number() && note["cluster"].is_u64());
    assert_ne!(
        adapted["text"], base["text"],
        "the adapter changes something"
    );
    let switched_off = ask(with(
        completion(ADAPTED),
        json!({"chameleon": {"scale": 0}}),
    ));
    assert_eq!(switched_off["text"], base["text"]);
    let alone = ask(with(
        completion(ADAPTED),
        json!({"chameleon": {"condition": "prompt"}}),
    ));
    assert_eq!(alone["chameleon"]["condition"], "prompt");

    let clusters = served.get("/v1/clusters?centroids=true").json();
    let clusters = clusters["data"][0]["clusters"].as_array().unwrap().clone();
    let number = usize::try_from(note["cluster"].as_u64().unwrap()).unwrap();
    let cluster = &clusters[number];
    assert_eq!(clusters.len(), 3);
    assert_eq!(cluster["num_requests"], 3);
    assert!(cluster["delta_norm"].as_f64().unwrap() > 0.0);
    assert_eq!(cluster["centroid"].as_array().unwrap().len(), 16);
    let recent = cluster["recent_request_ids"].as_array().unwrap();
    assert!(recent.contains(&note["request_id"]));
}

#[test]
fn seeds_choices_stops_and_echo_do_what_they_say() {
    let served = Served::start(&[]);
    let ask = |more: Value| {
        let body = json!({"model": MODEL, "prompt": "The fox", "max_tokens": 12});
        served.post("/v1/completions", &with(body, more)).json()["choices"].clone()
    };
    let first = ask(json!({"seed": 7}));
    assert_eq!(first[0]["text"], ask(json!({"seed": 7}))[0]["text"]);
    let three = ask(json!({"seed": 7, "n": 3}));
    assert_eq!(three.as_array().unwrap().len(), 3);
    assert_eq!(three[0]["text"], first[0]["text"]);
    assert_ne!(three[1]["text"], first[0]["text"]);
    let greedy = ask(json!({"temperature": 0, "max_tokens": 24}));
    let text = text_of(&greedy[0]);
    let stop = text.split_once('.').map_or("ed", |_| ".");
    let stopped = ask(json!({"temperature": 0, "max_tokens": 24, "stop": [stop]}));
    assert_eq!(stopped[0]["finish_reason"], "stop");
    assert_eq!(text_of(&stopped[0]), text.split(stop).next().unwrap());
    let echoed = ask(json!({"temperature": 0, "max_tokens": 24, "echo": true}));
    assert_eq!(text_of(&echoed[0]), format!("The fox{text}"));
    let many = ask(json!({"temperature": 0, "prompt": ["The fox", "fn total"], "n": 2}));
    let indices: Vec<&Value> = many
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| &choice["index"])
        .collect();
    assert_eq!(indices, [0, 1, 2, 3]);
    assert_eq!(many[0]["text"], many[1]["text"]);
    assert_ne!(many[0]["text"], many[2]["text"]);
}

#[test]
fn probabilities_come_in_both_shapes() {
    let served = Served::start(&[]);
    let body = with(completion(MODEL), json!({"logprobs": 2}));
    let choice = served.post("/v1/completions", &body).json()["choices"][0].clone();
    let logprobs = &choice["logprobs"];
    for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(logprobs[list].as_array().unwrap().len(), 8, "{list}");
    }
    let tokens = logprobs["tokens"].as_array().unwrap();
    let text: String = tokens.iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(text, text_of(&choice));

    let body = with(chat(MODEL), json!({"logprobs": true, "top_logprobs": 3}));
    let whole = served.post("/v1/chat/completions", &body).json();
    let content = whole["choices"][0]["logprobs"]["content"].clone();
    let content = content.as_array().unwrap();
    assert_eq!(content.len(), 8);
    for token in content {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        // Greedy: the chosen token is the likeliest one.
        assert_eq!(top[0]["token"], token["token"]);
        assert_eq!(top[0]["logprob"], token["logprob"]);
    }
    let pieces = served
        .post("/v1/chat/completions", &with(body, json!({"stream": true})))
        .pieces();
    let streamed: Vec<Value> = pieces
        .iter()
        .filter_map(|piece| piece["choices"][0]["logprobs"]["content"].as_array())
        .flatten()
        .cloned()
        .collect();
    assert_eq!(&streamed, content);
}

#[test]
fn embeddings_are_unit_vectors_in_both_encodings() {
    let served = Served::adapted(&[]);
    let ask = |more: Value| {
        let body = with(
            json!({"model": ADAPTED, "input": ["The fox", "[server]"]}),
            more,
        );
        served.post("/v1/embeddings", &body).json()
    };
    let floats = ask(json!({}));
    let vector = floats["data"][1]["embedding"].as_array().unwrap();
    let norm: f64 = vector
        .iter()
        .map(|value| value.as_f64().unwrap().powi(2))
        .sum();
    assert_eq!(vector.len(), 16);
    assert!((norm - 1.0).abs() < 1e-5, "{norm}");
    assert!(floats["data"][1]["chameleon"]["cluster"].is_u64());
    assert!(ask(json!({"encoding_format": "base64"}))["data"][0]["embedding"].is_string());
}

#[test]
fn adapters_come_and_go_while_the_server_runs() {
    let served = Served::adapted(&[]);
    let names = || {
        let models = served.get("/v1/models").json();
        let models = models["data"].as_array().unwrap().clone();
        models
            .iter()
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(), [MODEL, ADAPTED]);
    let second = json!({"name": "second", "path": "mix"});
    assert_eq!(served.post("/v1/adapters", &second).status, 201);
    assert_eq!(names(), [MODEL, ADAPTED, "tiny-llama:second"]);
    served
        .post("/v1/adapters", &second)
        .is_error(409, "name_taken", Some("name"));
    let text =
        |model| text_of(&served.post("/v1/completions", &completion(model)).json()["choices"][0]);
    assert_eq!(text("tiny-llama:second"), text(ADAPTED));
    assert_eq!(
        served.get("/v1/models/tiny-llama:second").json()["id"],
        "tiny-llama:second"
    );
    assert_eq!(served.delete("/v1/adapters/second").json()["deleted"], true);
    served
        .post("/v1/completions", &completion("tiny-llama:second"))
        .is_error(404, "model_not_found", Some("model"));
    served
        .delete("/v1/adapters/second")
        .is_error(404, "model_not_found", Some("name"));
}

#[test]
fn adapters_tell_what_they_remember() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("told");
    train(&out, folder.path(), &["--memory", "--memory-tokens", "50"]);
    let memory = |flags: &[&str]| {
        let served = Served::start(&[&["--adapter", out.to_str().unwrap()], flags].concat());
        let listed = served.get("/v1/adapters").json();
        assert_eq!(listed["data"][0]["id"], "told");
        listed["data"][0]["memory"].clone()
    };
    let told = memory(&[]);
    let num_entries = told["num_entries"].as_u64().unwrap();
    assert!((1..=3 * 50).contains(&num_entries), "{told}");
    // Sixteen numbers of two bytes, and a token.
    assert_eq!(told["num_bytes"], num_entries * 36);
    assert_eq!(memory(&["--no-memory"]), Value::Null);
    let without = Served::adapted(&[]).get("/v1/adapters").json();
    assert_eq!(without["data"][0]["memory"], Value::Null);
}

#[test]
fn numbers_add_up() {
    let served = Served::adapted(&[]);
    for _ in 0..3 {
        assert_eq!(
            served.post("/v1/completions", &completion(ADAPTED)).status,
            200
        );
    }
    served.wait_until(|stats| stats["requests_finished"] == 3 && stats["cached_tokens"] == 0);
    let metrics = served.get("/metrics");
    for line in [
        "chameleon_requests_finished_total 3",
        "chameleon_generated_tokens_total 24",
        "chameleon_time_to_first_token_seconds_count 3",
        "chameleon_time_between_tokens_seconds_count 21",
        "chameleon_adapter_requests_total{adapter=\"mix\"} 3",
        "chameleon_http_responses_total{route=\"/v1/completions\",status=\"200\"} 3",
    ] {
        assert!(
            metrics.body.lines().any(|found| found == line),
            "{line}\n{}",
            metrics.body
        );
    }
}
