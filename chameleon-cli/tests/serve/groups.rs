//! Groups by key over HTTP: examples count at once, for their own key alone, and survive a restart.

use std::fmt::Write as _;
use std::path::Path;

use chameleon_models::files::atomic_file;
use serde_json::{Value, json};

use crate::client::{Served, refused, train, train_on};

const MODEL: &str = "tiny-llama:steps";

/// A folder with an adapter that learned steps over the labels of the tests' texts.
pub(crate) fn adapter(folder: &Path) -> std::path::PathBuf {
    let out = folder.join("steps");
    let flags = "--prefix 2 --seq-len 48 --clusters 2 --rank 2 --batch-size 4 --lr 0.02 --epochs 4 --method steps --group-field kind --targets o_proj,down_proj --valid-fraction 0.5 --exemplars 2 \
                 --inner-steps 2";
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let rows = folder.join("rows.jsonl");
    atomic_file::write(&rows, rows_of_groups().as_bytes()).unwrap();
    train_on(&rows, &out, folder, &flags);
    out
}

/// Answered requests of eight groups, each with a word of its own.
fn rows_of_groups() -> String {
    let words = [
        "fox", "heron", "otter", "lizard", "fn", "let", "the", "wandered",
    ];
    let mut rows = String::new();
    for (group, word) in words.iter().enumerate() {
        for idx in 0..6 {
            let row = json!({
                "kind": format!("group {group}"),
                "prompt": format!("The {} ->", words[(group + idx) % words.len()]),
                "completion": format!(" {word} {word}"),
            });
            writeln!(rows, "{row}").unwrap();
        }
    }
    rows
}

fn served(adapter: &Path) -> Served {
    Served::start(&["--adapter", &format!("steps={}", adapter.display())])
}

fn completion(key: Option<&str>) -> Value {
    let mut body = json!({
        "model": MODEL, "prompt": "The fox ->", "max_tokens": 8, "temperature": 0, "logprobs": 1,
    });
    if let Some(key) = key {
        body["user"] = json!(key);
    }
    body
}

/// The answer, and its probabilities, and the number of examples that applied.
fn ask(served: &Served, body: &Value) -> (Value, u64) {
    let reply = served.post("/v1/completions", body).json();
    let choice = &reply["choices"][0];
    let applied = choice["chameleon"]["num_examples"].as_u64().unwrap();
    (json!([choice["text"], choice["logprobs"]]), applied)
}

fn examples(word: &str, num: usize) -> Value {
    let examples: Vec<Value> = (0..num)
        .map(|idx| json!({"prompt": format!("The otter {idx} ->"), "completion": format!(" {word}")}))
        .collect();
    json!({ "examples": examples })
}

#[test]
fn examples_count_at_once_for_their_own_key_alone() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = adapter(folder.path());
    let canary = "zebra crossing";
    let (base, adapted) = {
        let served = served(&adapter);
        let base = ask(&served, &completion(None));
        assert_eq!(base.1, 0);
        let added = served.post("/v1/groups/acme/examples", &examples(canary, 3));
        assert_eq!(added.status, 201, "{}", added.body);
        let added = added.json();
        assert_eq!(added["num_examples"], 3);
        assert_eq!(added["example_ids"], json!([0, 1, 2]));

        let adapted = ask(&served, &completion(Some("acme")));
        assert_eq!(adapted.1, 3, "a request waits for what was added before it");
        assert_ne!(adapted.0, base.0);
        let extension = json!({"group": "acme"});
        let mut body = completion(Some("somebody"));
        body["chameleon"] = extension;
        assert_eq!(
            ask(&served, &body),
            adapted,
            "`chameleon.group` goes before `user`"
        );
        assert_eq!(ask(&served, &completion(None)), base);
        assert_eq!(ask(&served, &completion(Some("other"))), base);

        let listed = served.get("/v1/groups").json();
        assert_eq!(listed["data"][0]["key"], "acme");
        assert_eq!(listed["data"][0]["state"], "ready");
        let listed = served.get("/v1/groups/acme/examples").json();
        assert_eq!(listed["data"][2]["completion"], format!(" {canary}"));
        (base, adapted)
    };
    let served = served(&adapter);
    assert_eq!(
        ask(&served, &completion(Some("acme"))),
        adapted,
        "after a restart"
    );
    let deleted = served.delete("/v1/groups/acme/examples/1");
    assert_eq!(deleted.status, 200, "{}", deleted.body);
    assert_eq!(ask(&served, &completion(Some("acme"))).1, 2);
    assert_eq!(served.delete("/v1/groups/acme").status, 200);
    assert_eq!(served.delete("/v1/groups/acme").status, 404);
    assert_eq!(ask(&served, &completion(Some("acme"))), base);
    assert!(!holds(&adapter, canary), "a deleted text is in a file");
}

/// Whether a file in a folder has these bytes.
fn holds(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, text);
        }
        let bytes = std::fs::read(&path).unwrap();
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    })
}

#[test]
fn examples_that_cannot_be_used_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = adapter(folder.path());
    let served = served(&adapter);
    let post = |body: Value| served.post("/v1/groups/acme/examples", &body);
    for (body, param) in [
        (json!({"examples": []}), "examples"),
        (json!({"examples": [{"prompt": "a"}]}), "examples[0]"),
        (
            json!({"examples": [{"prompt": "", "completion": " "}]}),
            "examples",
        ),
        (
            json!({"examples": [{"messages": [{"role": "user", "content": "a"}]}]}),
            "examples[0]",
        ),
        (
            json!({"model": "tiny-llama", "examples": [{"prompt": "a", "completion": "b"}]}),
            "model",
        ),
    ] {
        let reply = post(body);
        assert_eq!(reply.status, 400, "{}", reply.body);
        assert_eq!(reply.json()["error"]["param"], param);
    }
    let long = "k".repeat(257);
    let mut body = completion(None);
    body["chameleon"] = json!({ "group": long });
    assert_eq!(served.post("/v1/completions", &body).status, 400);
    assert_eq!(served.get("/v1/groups/nobody/examples").status, 404);
    assert_eq!(post(examples("fox", 1)).status, 201);
    let second = refused(&["--adapter", &format!("steps={}", adapter.display())]);
    assert_eq!(second.status.code(), Some(2), "two servers on one folder");
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(message.contains("is used by another process"), "{message}");
}

#[test]
fn an_adapter_without_learned_steps_has_no_groups() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("mix");
    train(&out, folder.path(), &[]);
    let served = Served::start(&["--adapter", &format!("mix={}", out.display())]);
    let reply = served.post("/v1/groups/acme/examples", &examples("fox", 1));
    assert_eq!(reply.status, 400, "{}", reply.body);
    assert_eq!(served.get("/v1/groups").status, 400);
}

#[test]
fn accepted_and_corrected_answers_become_examples() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = adapter(folder.path());
    let flag = format!("steps={}", adapter.display());
    let served = Served::start(&["--adapter", &flag, "--remember-answers"]);
    let answer = served
        .post("/v1/completions", &completion(Some("acme")))
        .json();
    let text = answer["choices"][0]["text"].as_str().unwrap().to_owned();
    let accepted = json!({ "id": answer["id"] });
    let added = served.post("/v1/feedback", &accepted);
    assert_eq!(added.status, 201, "{}", added.body);
    assert_eq!(added.json()["key"], "acme");
    assert_eq!(
        served.post("/v1/feedback", &accepted).status,
        404,
        "it counts once"
    );
    let mut streamed = completion(Some("acme"));
    streamed["stream"] = json!(true);
    let pieces = served.post("/v1/completions", &streamed).pieces();
    let corrected = json!({"id": pieces[0]["id"], "completion": " heron"});
    assert_eq!(served.post("/v1/feedback", &corrected).status, 201);
    let listed = served.get("/v1/groups/acme/examples").json();
    assert_eq!(listed["data"][0]["prompt"], "The fox ->");
    assert_eq!(listed["data"][0]["completion"], text);
    assert_eq!(listed["data"][1]["completion"], " heron");
    let without_group = served.post("/v1/completions", &completion(None)).json();
    let feedback = json!({ "id": without_group["id"] });
    assert_eq!(served.post("/v1/feedback", &feedback).status, 404);

    drop(served);
    let served = Served::start(&["--adapter", &flag]);
    served
        .post("/v1/feedback", &feedback)
        .is_error(403, "feedback_forbidden", None);
}
