//! Where reports come from: the host's daemon, asked over its socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use napa_api::host::{HostReport, Problem};

/// A daemon that has not answered by then hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// No report is longer: a row takes less than 1 KiB, and a host has fewer than 10,000 VMs.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// HTTP/1.0: the answer comes in one piece, and the daemon closes behind it (RFC 1945).
const REQUEST: &[u8] = b"GET /v1/host HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\r\n";

/// The daemon of this host.
#[derive(Clone, Debug)]
pub struct Source {
    socket: PathBuf,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no daemon, or not there.
    #[error("nobody listens on {}: start the daemon with 'napa host', or name its socket with --socket", .0.display())]
    Nobody(PathBuf),
    /// The socket's permissions exclude this user.
    #[error("{} does not let you in: run this verb as the daemon's user", .0.display())]
    Denied(PathBuf),
    /// The path cannot be a socket's.
    #[error("{} is too long for a socket's path: 107 bytes at most", .0.display())]
    PathTooLong(PathBuf),
    /// The daemon answers with an error of its own.
    #[error("the host's daemon says: {0}")]
    Problem(Problem),
    /// What comes is not a report.
    #[error("the answer of the host's daemon cannot be read: {0}; look at the daemon's log")]
    Nonsense(String),
    /// The daemon hangs.
    #[error("the host's daemon has not answered within {} seconds; look at its log", ANSWER_TIMEOUT.as_secs())]
    Late,
    /// The connection broke.
    #[error("the connection to the host's daemon broke: {0}")]
    Broken(#[source] io::Error),
}

impl SourceError {
    /// Whether it is the user who can mend it with other words on the command line.
    pub const fn is_bad_input(&self) -> bool {
        matches!(self, Self::Nobody(_) | Self::Denied(_) | Self::PathTooLong(_))
    }
}

impl Source {
    /// The daemon that listens on this socket.
    pub const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Asks for the last report.
    ///
    /// # Errors
    /// The daemon is not there or gives none.
    pub fn report(&self) -> Result<HostReport, SourceError> {
        let mut stream = UnixStream::connect(&self.socket).map_err(|error| nobody(&self.socket, error))?;
        let answer = exchange(&mut stream).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => SourceError::Late,
            _ => SourceError::Broken(error),
        })?;
        read_answer(&answer)
    }
}

fn nobody(socket: &Path, error: io::Error) -> SourceError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => SourceError::Nobody(socket.to_owned()),
        io::ErrorKind::PermissionDenied => SourceError::Denied(socket.to_owned()),
        io::ErrorKind::InvalidInput => SourceError::PathTooLong(socket.to_owned()),
        _ => SourceError::Broken(error),
    }
}

fn exchange(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let until = Instant::now() + ANSWER_TIMEOUT;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(REQUEST)?;
    let mut answer = Vec::new();
    let mut piece = vec![0; 64 << 10];
    while (answer.len() as u64) < ANSWER_BYTES_MAX {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

/// Takes an answer apart (RFC 1945 §6): a status line, headers, an empty line, the body.
fn read_answer(answer: &[u8]) -> Result<HostReport, SourceError> {
    let nonsense = |what: &str| SourceError::Nonsense(what.to_owned());
    if answer.is_empty() {
        return Err(nonsense("it ended before it began"));
    }
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let (head, body) =
        end.map(|end| (&answer[..end], &answer[end + 4..])).ok_or_else(|| nonsense("it is not HTTP"))?;
    let head = std::str::from_utf8(head).map_err(|_| nonsense("it is not HTTP"))?;
    let status = status_of(head).ok_or_else(|| nonsense("it is not HTTP"))?;
    if length_of(head).is_some_and(|length| length != body.len()) {
        return Err(nonsense("it is cut off"));
    }
    if status != 200 {
        let problem = serde_json::from_slice(body).map(SourceError::Problem);
        return Err(problem.unwrap_or_else(|_| nonsense(&format!("its status is {status}"))));
    }
    serde_json::from_slice(body).map_err(|error| nonsense(&error.to_string()))
}

fn status_of(head: &str) -> Option<u16> {
    let line = head.lines().next()?.strip_prefix("HTTP/1.")?;
    line.split(' ').nth(1)?.parse().ok()
}

fn length_of(head: &str) -> Option<usize> {
    let headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let mut lengths = headers.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths.next()?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use napa_api::host::ProblemKind;

    use super::*;
    use crate::top::fixture;

    /// What is made of an answer.
    fn asked(answer: Vec<u8>) -> Result<HostReport, String> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("host.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; REQUEST.len()];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(&answer).unwrap();
            request
        });
        let report = Source::new(socket).report();
        assert_eq!(daemon.join().unwrap(), *REQUEST);
        report.map_err(|error| error.to_string())
    }

    fn http(status: &str, body: &str) -> Vec<u8> {
        format!("HTTP/1.0 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    #[test]
    fn an_answer_is_a_report_or_an_error_that_says_why() {
        let report = fixture::report(3);
        assert_eq!(asked(http("200 OK", &serde_json::to_string(&report).unwrap())), Ok(report));
        let problem = Problem::new(ProblemKind::Internal, "there was no look at memory so far");
        let problem = http("500 Internal Server Error", &serde_json::to_string(&problem).unwrap());
        let mut short = http("200 OK", "{}");
        short.pop();
        for (answer, expected) in [
            (problem, "says: there was no look at memory so far"),
            (http("404 Not Found", "no"), "its status is 404"),
            (http("200 OK", "{}"), "missing field"),
            (short, "cut off"),
            (Vec::new(), "ended before it began"),
            (b"220 smtp\r\n\r\n".to_vec(), "not HTTP"),
            (b"HTTP/1.1 200 OK\r\n".to_vec(), "not HTTP"),
            (b"HTTP/1.1 \xff\r\n\r\n".to_vec(), "not HTTP"),
        ] {
            let error = asked(answer).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn who_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.sock");
        let error = Source::new(path.clone()).report().unwrap_err();
        assert!(error.is_bad_input() && error.to_string().contains("napa host"), "{error}");
        drop(UnixListener::bind(&path).unwrap());
        assert!(matches!(Source::new(path).report(), Err(SourceError::Nobody(_))));
        let long = folder.path().join("x".repeat(120));
        assert!(matches!(Source::new(long).report(), Err(SourceError::PathTooLong(_))));
    }
}
