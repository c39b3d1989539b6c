//! The control socket of a VMM under measurement: napa's JSON-RPC or QEMU's QMP, a line each.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use napa_units::Bytes;
use serde_json::{Value, json};

use super::figure::Subject;
use super::{BenchError, subject};

/// How long the socket may take to appear, and an answer to come.
const BOUND: Duration = Duration::from_secs(30);
/// How long a guest may work at its end.
pub const STOP_BOUND: Duration = Duration::from_secs(900);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Lines that are no answers (events) before the answer has to come.
const EVENTS_MAX: usize = 1000;

/// A connection that asks for balloons.
pub struct Remote {
    subject: Subject,
    stream: BufReader<UnixStream>,
    memory: Bytes,
}

impl Remote {
    /// Connects to the VMM of a guest with `memory` at `path`.
    ///
    /// # Errors
    /// Nobody answers there.
    pub fn connect(subject: Subject, path: &Path, memory: Bytes) -> Result<Self, BenchError> {
        let stream = open(path).map_err(|error| broken(subject, error))?;
        let mut remote = Self { subject, stream: BufReader::new(stream), memory };
        if subject != Subject::Napa {
            remote.ask(&json!({ "execute": "qmp_capabilities" }))?;
        }
        Ok(remote)
    }

    /// Asks the guest for a balloon of `size`; it follows in its own time.
    ///
    /// # Errors
    /// The VMM refuses, or does not answer.
    pub fn balloon(&mut self, size: Bytes) -> Result<(), BenchError> {
        let request = match self.subject {
            Subject::Napa => {
                json!({ "jsonrpc": "2.0", "id": 1, "method": "balloon", "params": { "target": size } })
            }
            // There the size is that of the memory which is left.
            _ => json!({ "execute": "balloon", "arguments": { "value": self.memory.0 - size.0 } }),
        };
        self.ask(&request)
    }

    /// Asks napa to end its guest in order, however long that takes. Others are not asked.
    ///
    /// # Errors
    /// The VMM refuses, or does not answer.
    pub fn stop(&mut self) -> Result<(), BenchError> {
        let params = json!({ "timeout_s": STOP_BOUND.as_secs() });
        self.ask(&json!({ "jsonrpc": "2.0", "id": 1, "method": "stop", "params": params }))
    }

    fn ask(&mut self, request: &Value) -> Result<(), BenchError> {
        let answer = self.exchange(request).map_err(|error| broken(self.subject, error))?;
        match answer.get("error") {
            None => Ok(()),
            Some(error) => Err(broken(self.subject, error)),
        }
    }

    fn exchange(&mut self, request: &Value) -> io::Result<Value> {
        writeln!(self.stream.get_mut(), "{request}")?;
        for _ in 0..EVENTS_MAX {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                break;
            }
            let message: Value = serde_json::from_str(&line)?;
            if ["result", "return", "error"].iter().any(|key| message.get(key).is_some()) {
                return Ok(message);
            }
        }
        Err(io::Error::other("there is no answer"))
    }
}

fn open(path: &Path) -> io::Result<UnixStream> {
    let until = Instant::now() + BOUND;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream.set_read_timeout(Some(BOUND))?;
                stream.set_write_timeout(Some(BOUND))?;
                return Ok(stream);
            }
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => thread::sleep(LOOK_EVERY),
        }
    }
}

fn broken(subject: Subject, error: impl std::fmt::Display) -> BenchError {
    BenchError::failed(format!("the control socket of {}: {error}", subject::name(subject)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    /// What a VMM was sent that answers each line with one of `answers`.
    fn sent(subject: Subject, answers: &'static [&'static str]) -> (Vec<Value>, Result<(), String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let vmm = thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut lines = Vec::new();
            for answer in answers {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                lines.push(serde_json::from_str(&line).unwrap());
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
            }
            lines
        });
        let remote = Remote::connect(subject, &path, Bytes::mib(512));
        let result = remote.and_then(|mut remote| remote.balloon(Bytes::mib(128)));
        (vmm.join().unwrap(), result.map_err(|error| error.to_string()))
    }

    #[test]
    fn each_vmm_is_asked_in_its_own_words() {
        let (sent_to_napa, result) = sent(Subject::Napa, &["{\"result\":{}}\n"]);
        assert_eq!((sent_to_napa[0]["method"].as_str(), result), (Some("balloon"), Ok(())));
        let qemu: &[&str] = &["{\"QMP\":{}}\n{\"return\":{}}\n", "{\"event\":\"X\"}\n{\"return\":{}}\n"];
        let (sent_to_qemu, result) = sent(Subject::QemuMicrovm, qemu);
        assert_eq!(sent_to_qemu[1]["arguments"]["value"], 384 << 20);
        assert_eq!(result, Ok(()));
    }

    #[test]
    fn a_refusal_is_an_error() {
        let (_, result) = sent(Subject::Napa, &["{\"error\":{\"message\":\"no balloon\"}}\n"]);
        assert!(result.unwrap_err().contains("no balloon"));
    }
}
