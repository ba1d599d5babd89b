//! A server whose handlers fail, tested over HTTP.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    routing::get,
};
use burn::module::Module as _;
use chameleon_core::RunSeed;
use chameleon_models::engine::{Engine, EngineOptions};
use chameleon_models::{HubOptions, ModelSource, load};
use futures_util::stream;
use tokio::{runtime::Runtime, sync::oneshot, task::JoinHandle};

use super::{Access, Ended, Listening, Server, ServerParts, routes::surround};
use crate::resolve::{MemoryUse, PromptLog, ServeLimits};

fn server(change: impl FnOnce(&mut ServeLimits)) -> Arc<Server> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-llama");
    let device = chameleon_core::device::open("flex".parse().unwrap()).unwrap();
    let source = ModelSource::find(model.to_str().unwrap()).unwrap();
    let mut loaded = load(&source, &HubOptions::from_env(), &device).unwrap();
    loaded.model = loaded.model.no_grad();
    let mut limits = ServeLimits {
        max_batch: 1,
        max_queued: 1,
        max_cached_tokens: 64,
        max_prompt_tokens: None,
        max_new_tokens: 8,
        max_body_bytes: 1000,
        max_connections: 8,
        request_timeout: Duration::from_mins(1),
        write_timeout: Duration::from_mins(1),
        drain_timeout: Duration::from_secs(5),
    };
    change(&mut limits);
    let parts = ServerParts {
        engine: Engine::start(loaded, EngineOptions::default()).unwrap(),
        name: "tiny".to_owned(),
        adapter_dir: None,
        memory: MemoryUse::Used,
        access: Access::Loopback,
        limits,
        seed: RunSeed(1),
        prompt_log: PromptLog::Hidden,
        remembers_answers: false,
    };
    Arc::new(Server::new(parts).unwrap())
}

/// Some routes behind the middleware of a real server.
struct Served {
    runtime: Runtime,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Ended>,
}

impl Served {
    fn start(server: &Arc<Server>, routes: Router) -> Self {
        let runtime = Runtime::new().unwrap();
        let listening = runtime
            .block_on(Listening::open("127.0.0.1:0".parse().unwrap()))
            .unwrap();
        let address = listening.address().unwrap();
        let (stop, stopped) = oneshot::channel();
        let router = surround(routes, server);
        let stopped = async { stopped.await.unwrap_or(()) };
        let ended = runtime.spawn(listening.serve(Arc::clone(server), router, stopped));
        Self {
            runtime,
            address,
            stop,
            ended,
        }
    }

    /// Sends a request and leaves the connection open.
    fn ask(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        stream
    }

    fn stop(self) -> Ended {
        self.stop.send(()).unwrap();
        self.runtime.block_on(self.ended).unwrap()
    }
}

/// One answer that ends with `end`.
fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(end.as_bytes()) {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "the answer ended early");
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

async fn panics() -> &'static str {
    panic!("a panic, as this test expects")
}

async fn fine() -> &'static str {
    "fine."
}

#[test]
fn a_panic_ends_its_own_request_and_nothing_else() {
    let server = server(|_| {});
    let routes = Router::new()
        .route("/panics", get(panics))
        .route("/fine", get(fine));
    let served = Served::start(&server, routes);
    let mut beside = served.ask("/fine");
    for _ in 0..3 {
        let mut stream = served.ask("/panics");
        let answer = read_until(&mut stream, "}}");
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
        assert!(answer.contains("\"code\":\"internal_error\""), "{answer}");
        assert!(!answer.contains("went wrong"), "{answer}");
        // The connection goes on, too.
        write!(stream, "GET /fine HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert!(read_until(&mut stream, "fine.").starts_with("HTTP/1.1 200 "));
    }
    assert!(read_until(&mut beside, "fine.").starts_with("HTTP/1.1 200 "));
    assert_eq!(served.stop(), Ended::AllAnswered);
}

#[test]
fn a_client_that_reads_nothing_blocks_nobody_and_loses_its_place() {
    let server = server(|limits| {
        limits.max_connections = 2;
        limits.write_timeout = Duration::from_millis(400);
    });
    let endless = || async {
        let pieces =
            stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; 1 << 16])));
        Body::from_stream(pieces)
    };
    let routes = Router::new()
        .route("/endless", get(endless))
        .route("/fine", get(fine));
    let served = Served::start(&server, routes);
    let slow = served.ask("/endless");
    // One more connection is allowed, and it is served at once.
    let start = Instant::now();
    let mut quick = served.ask("/fine");
    assert!(read_until(&mut quick, "fine.").starts_with("HTTP/1.1 200 "));
    assert!(start.elapsed() < Duration::from_secs(5));
    // All connections are in use. The next client is served after the slow one is disconnected.
    let mut next = served.ask("/fine");
    assert!(read_until(&mut next, "fine.").starts_with("HTTP/1.1 200 "));
    drop((slow, quick, next));
    assert_eq!(served.stop(), Ended::AllAnswered);
}
