//! A command that runs in a host.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::connection::{Connection, Disconnected};
use crate::protocol::{CommandLine, Message, PAYLOAD_MAX, TerminalSize};

const SIGKILL: i32 = 9;

/// Output of one job that is kept; a job that prints more is stopped, so that no test fills the memory.
const OUTPUT_MAX: usize = 64 << 20;

/// How a command ended, and what it printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code, or 128 + the signal that ended it.
    pub status: i32,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

/// Why there is no [`Output`].
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The bound passed first; the command is killed when the job is dropped.
    #[error("`{command}` was not done after {bound:?}; it printed:\n{printed}")]
    Timeout {
        /// The words of the command.
        command: String,
        /// How long it was waited for.
        bound: Duration,
        /// The end of its output.
        printed: String,
    },
    /// The command ended before it printed what was waited for.
    #[error("`{command}` ended with code {status} before it printed {expected:?}; it printed:\n{printed}")]
    Ended {
        /// The words of the command.
        command: String,
        /// Its exit code.
        status: i32,
        /// What was waited for.
        expected: String,
        /// The end of its output.
        printed: String,
    },
    /// The command cannot be started.
    #[error("`{command}` cannot be started: {reason}")]
    NotStarted {
        /// The words of the command.
        command: String,
        /// The agent's reason.
        reason: String,
    },
    /// It printed more than the lab keeps.
    #[error("`{0}` printed more than {OUTPUT_MAX} bytes")]
    TooMuchOutput(String),
    /// The emulator of the host ended: a defect of the lab, never of what runs in it.
    #[error("the host of `{0}` is gone")]
    HostGone(String),
}

/// A running command. It is killed when this value is dropped before the command's end.
pub struct Job {
    input: Input,
    messages: Receiver<Message>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// How much of standard output [`Job::wait_for`] has passed.
    matched: usize,
    status: Option<i32>,
}

impl Job {
    /// Starts a command.
    ///
    /// # Errors
    /// The host is gone.
    pub(crate) fn start(connection: &Arc<Connection>, command_line: CommandLine) -> Result<Job, JobError> {
        let command: Arc<str> = command_line.words.join(" ").into();
        let gone = |Disconnected| JobError::HostGone(command.to_string());
        let (number, messages) = connection.register().map_err(gone)?;
        connection.send(number, Message::Start(command_line)).map_err(gone)?;
        let (stdout, stderr) = (Vec::new(), Vec::new());
        let input = Input { connection: connection.clone(), number, command };
        Ok(Job { input, messages, stdout, stderr, matched: 0, status: None })
    }

    /// What can be said to the command while somebody else waits for it.
    pub fn input(&self) -> Input {
        self.input.clone()
    }

    /// Gives the command bytes to read.
    ///
    /// # Errors
    /// The host is gone.
    pub fn write(&self, bytes: &[u8]) -> Result<(), JobError> {
        self.input.write(bytes)
    }

    /// Ends the command's standard input.
    ///
    /// # Errors
    /// The host is gone.
    pub fn end_input(&self) -> Result<(), JobError> {
        self.input.end()
    }

    /// Sends a signal to the command and its descendants.
    ///
    /// # Errors
    /// The host is gone.
    pub fn signal(&self, number: i32) -> Result<(), JobError> {
        self.input.signal(number)
    }

    /// What the command has written to standard output once `pause` has passed.
    ///
    /// # Errors
    /// The command cannot be started, or the host is gone.
    pub fn stdout_after(&mut self, pause: Duration) -> Result<String, JobError> {
        let deadline = Instant::now() + pause;
        while self.status.is_none() {
            match self.receive(deadline, pause) {
                Err(JobError::Timeout { .. }) => break,
                received => received?,
            }
        }
        Ok(String::from_utf8_lossy(&self.stdout).into_owned())
    }

    /// Waits until standard output holds `expected` after what was waited for before.
    ///
    /// # Errors
    /// The bound passes or the command ends first, it cannot be started, or the host is gone.
    pub fn wait_for(&mut self, expected: &str, bound: Duration) -> Result<(), JobError> {
        let deadline = Instant::now() + bound;
        loop {
            if let Some(at) = find(&self.stdout[self.matched..], expected.as_bytes()) {
                self.matched += at + expected.len();
                return Ok(());
            }
            if let Some(status) = self.status {
                let (command, expected) = (self.command(), expected.to_owned());
                return Err(JobError::Ended { command, status, expected, printed: self.printed() });
            }
            self.receive(deadline, bound)?;
        }
    }

    /// Waits until the command has ended.
    ///
    /// # Errors
    /// The bound passes first, the command cannot be started, or the host is gone.
    pub fn wait(mut self, bound: Duration) -> Result<Output, JobError> {
        let deadline = Instant::now() + bound;
        loop {
            if let Some(status) = self.status {
                let (stdout, stderr) = (std::mem::take(&mut self.stdout), std::mem::take(&mut self.stderr));
                return Ok(Output { status, stdout, stderr });
            }
            self.receive(deadline, bound)?;
        }
    }

    /// Hands each piece of output to `show` as it arrives, and none is kept; ends with the exit code.
    ///
    /// # Errors
    /// The command cannot be started, or the host is gone.
    pub fn stream(mut self, mut show: impl FnMut(Stream, &[u8])) -> Result<i32, JobError> {
        loop {
            match self.messages.recv() {
                Ok(Message::Stdout(bytes)) => show(Stream::Output, &bytes),
                Ok(Message::Stderr(bytes)) => show(Stream::Error, &bytes),
                Ok(message) => self.take(message)?,
                Err(_) => return Err(JobError::HostGone(self.command())),
            }
            if let Some(status) = self.status {
                return Ok(status);
            }
        }
    }

    fn receive(&mut self, deadline: Instant, bound: Duration) -> Result<(), JobError> {
        match self.messages.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(message) => self.take(message),
            Err(RecvTimeoutError::Disconnected) => Err(JobError::HostGone(self.command())),
            Err(RecvTimeoutError::Timeout) => {
                Err(JobError::Timeout { command: self.command(), bound, printed: self.printed() })
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<(), JobError> {
        match message {
            Message::Stdout(bytes) => self.stdout.extend(bytes),
            Message::Stderr(bytes) => self.stderr.extend(bytes),
            Message::Exit(status) => self.status = Some(status),
            Message::Failed(reason) => {
                return Err(JobError::NotStarted { command: self.command(), reason });
            }
            // The agent sends nothing else about a job.
            _ => {}
        }
        if self.stdout.len() + self.stderr.len() > OUTPUT_MAX {
            return Err(JobError::TooMuchOutput(self.command()));
        }
        Ok(())
    }

    fn command(&self) -> String {
        self.input.command.to_string()
    }

    fn printed(&self) -> String {
        [&self.stdout, &self.stderr].map(|stream| tail(stream)).join("\n")
    }
}

impl Input {
    /// Gives the command bytes to read.
    ///
    /// # Errors
    /// The host is gone.
    pub fn write(&self, bytes: &[u8]) -> Result<(), JobError> {
        bytes.chunks(PAYLOAD_MAX).try_for_each(|piece| self.tell(Message::Stdin(piece.to_vec())))
    }

    /// Ends the command's standard input.
    ///
    /// # Errors
    /// The host is gone.
    pub fn end(&self) -> Result<(), JobError> {
        self.tell(Message::StdinEnd)
    }

    /// Gives the command's terminal another size.
    ///
    /// # Errors
    /// The host is gone.
    pub fn resize(&self, size: TerminalSize) -> Result<(), JobError> {
        self.tell(Message::Resize(size))
    }

    /// Sends a signal to the command and its descendants.
    ///
    /// # Errors
    /// The host is gone.
    pub fn signal(&self, number: i32) -> Result<(), JobError> {
        self.tell(Message::Signal(number))
    }

    fn tell(&self, message: Message) -> Result<(), JobError> {
        let sent = self.connection.send(self.number, message);
        sent.map_err(|Disconnected| JobError::HostGone(self.command.to_string()))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.status.is_none() {
            // If this fails the host is gone, and the command with it.
            let _ = self.input.signal(SIGKILL);
        }
        self.input.connection.forget(self.input.number);
    }
}

/// The way to a running command.
#[derive(Clone)]
pub struct Input {
    connection: Arc<Connection>,
    number: u32,
    command: Arc<str>,
}

/// Which of its outputs a command wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

impl Output {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len().max(1)).position(|window| window == part)
}

/// The end of an output, for a person to see what happened last.
fn tail(bytes: &[u8]) -> String {
    const LENGTH_MAX: usize = 8000;
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LENGTH_MAX)..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Frame;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    const BOUND: Duration = Duration::from_secs(60);

    fn job(messages: &[Message]) -> (Job, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let connection = Arc::new(Connection::new(ours).unwrap());
        let words = vec!["prog".to_owned(), "arg".to_owned()];
        let command_line = CommandLine { words, environment: Vec::new(), terminal: None };
        let job = Job::start(&connection, command_line).unwrap();
        for message in messages {
            let frame = Frame { job: job.input.number, message: message.clone() };
            theirs.write_all(&frame.encode()).unwrap();
        }
        (job, theirs)
    }

    fn stdout(text: &str) -> Message {
        Message::Stdout(text.into())
    }

    #[test]
    fn output_and_code_are_collected() {
        let (job, _host) =
            job(&[stdout("a"), Message::Stderr(b"e".to_vec()), stdout("b"), Message::Exit(143)]);
        let output = job.wait(BOUND).unwrap();
        assert_eq!(output, Output { status: 143, stdout: b"ab".to_vec(), stderr: b"e".to_vec() });
    }

    #[test]
    fn a_marker_is_found_across_pieces_and_once() {
        let (mut job, _host) = job(&[stdout("log"), stdout("in: x lo"), stdout("gin: y"), Message::Exit(0)]);
        job.wait_for("login:", BOUND).unwrap();
        job.wait_for("login:", BOUND).unwrap();
        assert!(matches!(job.wait_for("login:", BOUND), Err(JobError::Ended { status: 0, .. })));
    }

    #[test]
    fn a_bound_that_passes_shows_what_was_printed() {
        let (mut job, _host) = job(&[stdout("booting")]);
        job.wait_for("boot", BOUND).unwrap();
        let error = job.wait_for("login:", Duration::ZERO).unwrap_err();
        assert!(
            matches!(&error, JobError::Timeout { printed, .. } if printed.contains("booting")),
            "{error}"
        );
    }

    #[test]
    fn a_host_that_ends_is_told_from_a_command_that_fails() {
        let (job_of_dead_host, host) = job(&[stdout("x")]);
        drop(host);
        assert!(matches!(job_of_dead_host.wait(BOUND), Err(JobError::HostGone(_))));
        let (job, _host) = job(&[Message::Failed("no such file".to_owned())]);
        let error = job.wait(BOUND).unwrap_err();
        assert_eq!(error.to_string(), "`prog arg` cannot be started: no such file");
    }
}
