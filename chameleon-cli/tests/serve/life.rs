//! How a server fills up, is left alone, is killed and comes to its end.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::client::{MODEL, Served};

/// Asks for sixteen long streamed answers, which together take a while, and reads the first piece.
fn begin(served: &Served) -> BufReader<TcpStream> {
    let body = json!({
        "model": MODEL,
        "prompt": "The fox",
        "n": 16,
        "max_tokens": 480,
        "stream": true,
        "chameleon": {"ignore_eos": true},
    })
    .to_string();
    let mut stream = served.connect();
    let head = "POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n";
    let (address, length) = (&served.address, body.len());
    write!(
        stream,
        "{head}Host: {address}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert_ne!(
            reader.read_line(&mut line).unwrap(),
            0,
            "the answer ended early"
        );
    }
    reader
}

fn terminate(served: &Served) {
    let status = Command::new("kill")
        .arg(served.process.id().to_string())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn clients_that_vanish_free_their_places() {
    let served = Served::start(&["--max-batch", "2"]);
    let streams: Vec<_> = (0..2).map(|_| begin(&served)).collect();
    drop(streams);
    served.wait_until(|stats| {
        stats["requests_running"] == 0
            && stats["requests_waiting"] == 0
            && stats["reserved_tokens"] == 0
    });
    let stats = served.get("/v1/stats").json();
    assert!(stats["requests_cancelled"].as_u64() > Some(0), "{stats}");
}

#[test]
fn clients_that_read_nothing_hold_nobody_up() {
    let served = Served::start(&["--max-batch", "16"]);
    let unread = begin(&served);
    let reply = served.post(
        "/v1/completions",
        &json!({"model": MODEL, "prompt": "The fox", "max_tokens": 4}),
    );
    assert_eq!(reply.status, 200, "{reply:?}");
    // What nobody reads is decoded to its end all the same, and makes room.
    served.wait_until(|stats| {
        stats["requests_running"] == 0
            && stats["requests_waiting"] == 0
            && stats["reserved_tokens"] == 0
    });
    let stats = served.get("/v1/stats").json();
    assert_eq!(stats["requests_cancelled"], 0, "{stats}");
    drop(unread);
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let served = Served::start(&["--max-batch", "1", "--max-queued", "1"]);
    // One runs, one waits, and there is no place for the third.
    let body = json!({"model": MODEL, "prompt": "The fox", "n": 3, "max_tokens": 400});
    let reply = served.post("/v1/completions", &body);
    reply.is_error(429, "queue_full", None);
    assert!(reply.head.contains("retry-after: "), "{reply:?}");
    // What was queued of the refused request is gone again.
    served.wait_until(|stats| stats["requests_waiting"] == 0);
}

#[test]
fn a_request_may_not_take_for_ever() {
    let served = Served::start(&["--request-timeout", "0.000001"]);
    let body = json!({"model": MODEL, "prompt": "The fox", "max_tokens": 400});
    served
        .post("/v1/completions", &body)
        .is_error(504, "timeout", None);
    served.wait_until(|stats| stats["requests_running"] == 0);
}

#[test]
fn asked_to_stop_it_finishes_what_it_began() {
    let mut served = Served::start(&[]);
    let mut answer = begin(&served);
    terminate(&served);
    let mut rest = String::new();
    // The connection is closed after the answer, or reset once it is complete.
    let _ = answer.read_to_string(&mut rest);
    assert!(rest.contains("data: [DONE]"), "{rest}");
    assert!(rest.contains("\"finish_reason\":\"length\""));
    assert_eq!(served.process.wait().unwrap().code(), Some(0));
    assert!(TcpStream::connect(&served.address).is_err());
}

#[test]
fn answers_that_take_too_long_are_cut_off() {
    let mut served = Served::start(&["--max-batch", "1", "--drain-timeout", "0.001"]);
    let answer = begin(&served);
    let asked = Instant::now();
    terminate(&served);
    assert_eq!(served.process.wait().unwrap().code(), Some(1));
    assert!(asked.elapsed() < Duration::from_secs(10));
    drop(answer);
}

#[test]
fn killed_it_starts_again_and_answers_the_same() {
    let body = json!({"model": MODEL, "prompt": "The fox", "max_tokens": 12, "seed": 3});
    let text = |served: &Served| {
        served.post("/v1/completions", &body).json()["choices"][0]["text"].clone()
    };
    let mut served = Served::start(&[]);
    let before = text(&served);
    let _interrupted = begin(&served);
    let address = served.address.clone();
    served.process.kill().unwrap();
    served.process.wait().unwrap();
    let again = Served::start(&["--listen", &address]);
    assert_eq!(text(&again), before);
}
