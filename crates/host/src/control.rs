//! Talking to a VM through its control socket.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use napa_api::control::{Command, Exchange, ExchangeError, Id, Progress, Request, RpcError};
use serde::de::DeserializeOwned;

/// How long a VM may take to answer: its socket is served by the thread that serves its devices.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a VM did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It refused.
    #[error("the VM refused: {0}")]
    Refused(RpcError),
    /// It cannot be reached, or says nothing that can be read.
    #[error("the VM does not answer: {0}")]
    Silent(#[from] io::Error),
}

impl From<ExchangeError> for ControlError {
    fn from(error: ExchangeError) -> Self {
        match error {
            ExchangeError::Refused(error) => Self::Refused(error),
            ExchangeError::Broken(error) => Self::Silent(error),
            ExchangeError::Nonsense(error) => Self::Silent(io::Error::other(error)),
        }
    }
}

/// Asks a VM, and waits for its answer.
///
/// # Errors
/// It refuses, or does not answer in time.
pub fn ask<T: DeserializeOwned>(socket: &Path, command: Command) -> Result<T, ControlError> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    match Exchange::new(command).advance(&stream)? {
        Progress::Answered(answer) => Ok(answer),
        Progress::Sending | Progress::Waiting => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
    }
}

/// Asks a VM without waiting for anything. The answer can be read from what is returned, which does not block.
///
/// # Errors
/// The VM does not listen, or not yet.
pub fn send(socket: &Path, command: Command) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_nonblocking(true)?;
    // A line fits into an empty socket.
    stream.write_all(&Request { id: Some(Id::Number(1.into())), command }.encode())?;
    Ok(stream)
}
