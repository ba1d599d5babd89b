//! A server under test, and the few lines of HTTP that it takes to ask it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
    time::Duration,
};

use serde_json::{Value, json};

/// A running server; killed when dropped.
pub(crate) struct Served {
    pub(crate) address: String,
    pub(crate) process: Child,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) const MODEL: &str = "tiny-llama";
pub(crate) const ADAPTED: &str = "tiny-llama:mix";

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tiny-llama")
        .join(name)
}

/// A folder with the adapter `mix`, trained once for all tests.
pub(crate) fn adapter_dir() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        train(&folder.path().join("mix"), folder.path(), &[]);
        folder
    });
    folder.path()
}

/// Trains an adapter of three groups; hidden states are kept in `folder`.
pub(crate) fn train(out: &Path, folder: &Path, more: &[&str]) {
    let flags = "--prefix 8 --seq-len 24 --clusters 3 --rank 2 --batch-size 4 --lr 0.05 --epochs 4";
    let flags: Vec<&str> = flags.split(' ').chain(more.iter().copied()).collect();
    train_on(&fixture("mix.jsonl"), out, folder, &flags);
}

/// Trains an adapter on some texts; hidden states are kept in `folder`.
pub(crate) fn train_on(data: &Path, out: &Path, folder: &Path, flags: &[&str]) {
    let output = Command::new(env!("CARGO_BIN_EXE_chameleon"))
        .args(["train", "--model"])
        .arg(fixture(""))
        .arg("--data")
        .arg(data)
        .args(flags)
        .arg("--out")
        .arg(out)
        .arg("--cache-dir")
        .arg(folder.join("cache"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

impl Served {
    /// Starts a server on a free port.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_bare(&[&["--name", MODEL], flags].concat())
    }

    /// Starts a server that is named by its flags.
    pub(crate) fn start_bare(flags: &[&str]) -> Self {
        let mut process = command(flags).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = lines.next().expect("the server says where it is").unwrap();
        let (_, address) = line.split_once("http://").unwrap();
        Self {
            address: address.to_owned(),
            process,
        }
    }

    /// A server with the adapter `mix`, out of a folder of adapters.
    pub(crate) fn adapted(flags: &[&str]) -> Self {
        let folder = adapter_dir().to_str().unwrap();
        let mix = adapter_dir().join("mix");
        let more = ["--adapter", mix.to_str().unwrap(), "--adapter-dir", folder];
        Self::start(&[&more[..], flags].concat())
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.ask(&format!("GET {path} HTTP/1.1\r\n"), "")
    }

    pub(crate) fn delete(&self, path: &str) -> Reply {
        self.ask(&format!("DELETE {path} HTTP/1.1\r\n"), "")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.post_text(path, &body.to_string())
    }

    pub(crate) fn post_text(&self, path: &str, body: &str) -> Reply {
        let head = format!("POST {path} HTTP/1.1\r\nContent-Type: application/json\r\n");
        self.ask(&head, body)
    }

    /// Sends a request without its last header lines, and reads all that comes back.
    pub(crate) fn ask(&self, head: &str, body: &str) -> Reply {
        let mut stream = self.connect();
        let address = &self.address;
        let length = body.len();
        let request = format!(
            "{head}Host: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        Reply::read(stream)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_mins(1)))
            .unwrap();
        stream
    }

    /// Waits until the numbers of the server are as they should be.
    pub(crate) fn wait_until(&self, is_so: impl Fn(&Value) -> bool) {
        let mut stats = Value::Null;
        for _ in 0..600 {
            stats = self.get("/v1/stats").json();
            if is_so(&stats) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("it never came to that: {stats}");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may be over already, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A server that cannot start.
pub(crate) fn refused(flags: &[&str]) -> Output {
    command(flags).output().unwrap()
}

fn command(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chameleon"));
    command
        .args(["serve", "--model"])
        .arg(fixture(""))
        .args(flags)
        .env("NO_COLOR", "1")
        .env_remove("CHAMELEON_API_KEY")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if !flags.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command
}

impl Reply {
    pub(crate) fn read(mut stream: TcpStream) -> Self {
        let mut bytes = Vec::new();
        // A reset after the answer is still an answer.
        let _ = stream.read_to_end(&mut bytes);
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        Self {
            status: status.unwrap_or(0),
            head: head.to_lowercase(),
            body: if is_chunked {
                unchunk(body)
            } else {
                body.to_owned()
            },
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// The pieces of a stream; the mark of its end must be there, and is left out.
    pub(crate) fn pieces(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{self:?}");
        let mut pieces: Vec<&str> = self
            .body
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .collect();
        assert_eq!(pieces.pop(), Some("[DONE]"), "{self:?}");
        pieces
            .into_iter()
            .map(|piece| serde_json::from_str(piece).unwrap())
            .collect()
    }

    /// Checks that this is an error as clients read it.
    pub(crate) fn is_error(&self, status: u16, code: &str, param: Option<&str>) {
        assert_eq!(self.status, status, "{self:?}");
        let error = &self.json()["error"];
        assert_eq!(error["code"], code, "{self:?}");
        assert_eq!(error["param"], json!(param), "{self:?}");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
        assert!(error["type"].is_string());
    }
}

fn unchunk(mut rest: &str) -> String {
    let mut text = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        text.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    text
}
