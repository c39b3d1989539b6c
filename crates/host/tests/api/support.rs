//! A server on a socket, without VMs that run.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use napa_api::host::{HostFigures, HostReport, Level, Problem, Time};
use napa_host::server::{Latest, Sources, UnixSocket, router};
use napa_host::state::{FolderLock, Store};
use napa_host::supervisor::{AdmitAll, Groups, Settings, Supervisor};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Longer than any answer takes; what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server that ends with the test.
pub struct Api {
    folder: TempDir,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub body: Vec<u8>,
}

impl Api {
    /// Its VMs are a program that ends at once.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (end, ended) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let path = folder.path().to_owned();
        let thread = std::thread::spawn(move || serve(&path, &ready, ended));
        is_ready.recv().unwrap();
        Self { folder, end: Some(end), thread: Some(thread) }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("host.sock")
    }

    /// Sends a request with a body.
    pub fn send(&self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: napa\r\nConnection: close\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.exchange(&[head.as_bytes(), body].concat())
    }

    pub fn json(&self, method: &str, path: &str, body: &Value) -> Answer {
        self.send(method, path, "application/json", body.to_string().as_bytes())
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "application/json", b"")
    }

    fn exchange(&self, request: &[u8]) -> Answer {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // A server that has read enough of a long body hangs up.
        let _ = stream.write_all(request);
        Answer::read(&mut stream)
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let _ = self.end.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Answer {
    /// Reads an answer; of a stream of events the head alone.
    pub fn read(stream: &mut impl Read) -> Self {
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            match stream.read(&mut piece) {
                Ok(count) if count > 0 => bytes.extend(&piece[..count]),
                // The end, or a connection that was reset after the answer.
                _ => break,
            }
            if bytes.windows(24).any(|window| window.eq_ignore_ascii_case(b"type: text/event-stream\r")) {
                break;
            }
        }
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        let content_type = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-type").then(|| value.to_owned())
        });
        Self { status, content_type: content_type.unwrap_or_default(), body: bytes[end + 4..].to_vec() }
    }

    /// The problem that it is.
    pub fn problem(&self) -> Problem {
        assert_eq!(self.content_type, "application/problem+json", "{self:?}");
        let problem: Problem = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem.status, self.status, "{problem:?}");
        problem
    }

    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// The API over a state folder.
pub fn sources(state: &Path) -> Arc<Sources> {
    let store = Store::open(state).unwrap();
    let settings =
        Settings { state: state.to_owned(), program: PathBuf::from("/bin/false"), groups: Groups::None };
    let supervisor = Supervisor::begin(settings, store, Box::new(AdmitAll)).unwrap();
    let latest = Latest::default();
    latest.tell(report());
    Arc::new(Sources { supervisor, latest: Arc::new(latest) })
}

fn serve(folder: &Path, ready: &std::sync::mpsc::Sender<()>, ended: oneshot::Receiver<()>) {
    let state = folder.join("state");
    let _lock = FolderLock::take(&state).unwrap();
    let socket = UnixSocket::bind(&folder.join("host.sock"), None).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = socket.for_server().unwrap();
        let sources = sources(&state);
        ready.send(()).unwrap();
        tokio::select! {
            served = axum::serve(listener, router(sources)) => served.unwrap(),
            _ = ended => {}
        }
    });
}

fn report() -> HostReport {
    HostReport {
        time: Time(1),
        level: Level::Clear,
        reasons: vec!["for a test".into()],
        policy: "static".into(),
        admission_open: true,
        host: HostFigures::default(),
        guarantees: Default::default(),
        vms: vec![Default::default()],
        decisions: Vec::new(),
        troubles: Vec::new(),
    }
}
