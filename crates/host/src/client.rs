//! Speaking to a daemon through its Unix socket. Each call waits for its answer.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use napa_api::host::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// The longest answer that is kept whole, in bytes: thousands of VMs.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no 'napa host' listens on {}: start one with 'napa host', or name its socket with --socket", .0.display())]
    Absent(PathBuf),
    /// The socket is for others.
    #[error("{} is for other users: run this as the user of 'napa host', or as a member of its --group", .0.display())]
    Denied(PathBuf),
    /// The daemon refused.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// The connection broke, or the answer cannot be read.
    #[error("{}: the daemon's answer cannot be read: {what}", .socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// A daemon that may be spoken to.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The daemon that listens on this socket.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Reads a resource.
    ///
    /// # Errors
    /// The daemon is not there, or refuses.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.read(&self.call(Method::GET, path, None)?)
    }

    /// Has something done, and reads what came of it.
    ///
    /// # Errors
    /// The daemon is not there, or refuses.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        self.read(&self.call(Method::POST, path, Some(body))?)
    }

    /// Removes a resource.
    ///
    /// # Errors
    /// The daemon is not there, or refuses.
    pub fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.call(Method::DELETE, path, None).map(drop)
    }

    /// Reads a resource piece by piece as it comes, until it ends or `take` has enough.
    ///
    /// # Errors
    /// The daemon is not there, refuses, or ends in between.
    pub fn follow(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        self.run(async {
            let mut response = self.send(Method::GET, path, None).await?;
            if !response.status().is_success() {
                return Err(self.refusal(&self.collect(response).await?));
            }
            while let Some(frame) = response.frame().await {
                let frame = frame.map_err(|error| self.broken(error))?;
                if let Some(piece) = frame.data_ref()
                    && take(piece).is_break()
                {
                    break;
                }
            }
            Ok(())
        })
    }

    fn call(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Vec<u8>, ClientError> {
        self.run(async {
            let response = self.send(method, path, body).await?;
            let is_success = response.status().is_success();
            let answer = self.collect(response).await?;
            if is_success { Ok(answer) } else { Err(self.refusal(&answer)) }
        })
    }

    fn run<T>(&self, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        runtime.map_err(|error| self.broken(error))?.block_on(work)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header(HOST, "napa");
        let request = match body {
            Some(body) => request.header(CONTENT_TYPE, "application/json").body(Full::new(Bytes::from(body))),
            None => request.body(Full::default()),
        };
        let request = request.map_err(|error| self.broken(error))?;
        sender.send_request(request).await.map_err(|error| self.broken(error))
    }

    async fn collect(&self, response: Response<Incoming>) -> Result<Vec<u8>, ClientError> {
        let body = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(|error| self.broken(error))?;
        Ok(body.to_bytes().to_vec())
    }

    fn read<T: DeserializeOwned>(&self, answer: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(answer).map_err(|error| self.broken(error))
    }

    fn refusal(&self, answer: &[u8]) -> ClientError {
        match serde_json::from_slice(answer) {
            Ok(problem) => ClientError::Refused(Box::new(problem)),
            Err(error) => self.broken(error),
        }
    }

    fn unreachable(&self, error: &io::Error) -> ClientError {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::Absent(self.socket.clone())
            }
            io::ErrorKind::PermissionDenied => ClientError::Denied(self.socket.clone()),
            _ => self.broken(error),
        }
    }

    fn broken(&self, what: impl std::fmt::Display) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), what: what.to_string() }
    }
}
