//! A VMM's process under measurement: when it was started, what its guest says, and its end.

#![allow(unsafe_code)] // The child takes the time between fork and exec.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use napa_sys::signal::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use super::BenchError;
use crate::guests::{Line, LineReader, end_with_parent};

/// How long a machine may take from its start to its first word: firmware is slow where it is emulated.
const START_BOUND: Duration = Duration::from_secs(60);
/// Bytes of complaints that are repeated to the user.
const COMPLAINT_BYTES_MAX: u64 = 600;

/// A VMM that runs. Dropping it kills the process and waits for its end.
pub struct Vm<'a> {
    child: Child,
    output: LineReader<ChildStdout>,
    name: &'static str,
    signals: &'a SignalFd,
    exec_ns: u64,
}

impl<'a> Vm<'a> {
    /// Starts `command`, whose standard output is the guest's serial line.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn start(
        name: &'static str,
        mut command: Command,
        signals: &'a SignalFd,
    ) -> Result<Self, BenchError> {
        let failed = |error: io::Error| BenchError::failed(format!("cannot start {name}: {error}"));
        let (reader, writer) = io::pipe().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        end_with_parent(&mut command, Signal::KILL);
        tell_time_of_exec(&mut command, writer);
        let mut child = command.spawn().map_err(failed)?;
        // With it goes the last writing end but the child's own, which exec has closed.
        drop(command);
        let stdout = child.stdout.take().expect("it was asked for");
        let output = LineReader::new(stdout).map_err(|error| failed(error.into()));
        let exec_ns = read_time(reader).map_err(failed);
        match (output, exec_ns) {
            (Ok(output), Ok(exec_ns)) => Ok(Self { child, output, name, signals, exec_ns }),
            (Err(error), _) | (_, Err(error)) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Time from exec to the first byte of the guest.
    ///
    /// # Errors
    /// The VMM ends without one, or somebody ends the benchmark.
    pub fn first_byte(&mut self) -> Result<Duration, BenchError> {
        self.wait_readable(Instant::now() + START_BOUND)?;
        let now_ns = monotonic_ns();
        match self.next_line(Instant::now() + START_BOUND)? {
            Some(_) => Ok(Duration::from_nanos(now_ns.saturating_sub(self.exec_ns))),
            None => Err(self.ended_early()),
        }
    }

    /// Waits until the guest has started its work.
    ///
    /// # Errors
    /// The VMM ends before, or somebody ends the benchmark.
    pub fn wait_ready(&mut self) -> Result<(), BenchError> {
        self.watch(START_BOUND, |line| match line {
            Line::Ready => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
    }

    /// Gives each line of the guest to `look` until it has seen enough.
    ///
    /// # Errors
    /// The guest fails, the VMM ends, `bound` passes or somebody ends the benchmark before.
    pub fn watch<T>(
        &mut self,
        bound: Duration,
        mut look: impl FnMut(&Line<'_>) -> ControlFlow<T>,
    ) -> Result<T, BenchError> {
        let deadline = Instant::now() + bound;
        while let Some(line) = self.next_line(deadline)? {
            let line = Line::parse(&line);
            if let Line::Fail(reason) = line {
                return Err(BenchError::failed(format!("the guest of {} failed: {reason}", self.name)));
            }
            if let ControlFlow::Break(value) = look(&line) {
                return Ok(value);
            }
        }
        Err(self.ended_early())
    }

    /// Waits for the end of the VMM, which its guest has come to by itself or was asked for.
    ///
    /// # Errors
    /// It does not end well or within `bound`, or somebody ends the benchmark.
    pub fn wait_end(mut self, bound: Duration) -> Result<(), BenchError> {
        let deadline = Instant::now() + bound;
        while self.next_line(deadline)?.is_some() {}
        match self.child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(BenchError::failed(format!("{} ended with {status}", self.name))),
            Err(error) => Err(BenchError::failed(format!("cannot wait for {}: {error}", self.name))),
        }
    }

    /// Lets time pass while the VM runs.
    ///
    /// # Errors
    /// Somebody ends the benchmark.
    pub fn settle(&self, time: Duration) -> Result<(), BenchError> {
        let deadline = Instant::now() + time;
        wait(&mut [PollFd::new(self.signals, PollFlags::IN)], deadline)?;
        self.check_signals()
    }

    fn next_line(&mut self, deadline: Instant) -> Result<Option<String>, BenchError> {
        loop {
            if let Some(line) = self.output.next_line() {
                return Ok(Some(line));
            }
            if self.output.pipe().is_none() {
                return Ok(None);
            }
            self.wait_readable(deadline)?;
            self.output.fill();
        }
    }

    fn wait_readable(&self, deadline: Instant) -> Result<(), BenchError> {
        let Some(pipe) = self.output.pipe() else { return Ok(()) };
        let fds = &mut [PollFd::new(pipe, PollFlags::IN), PollFd::new(self.signals, PollFlags::IN)];
        if wait(fds, deadline)? {
            return self.check_signals();
        }
        Err(BenchError::failed(format!("the guest of {} says nothing any more", self.name)))
    }

    fn check_signals(&self) -> Result<(), BenchError> {
        match self.signals.next() {
            Some(_) => Err(BenchError::Interrupted),
            None => Ok(()),
        }
    }

    /// The VMM's own words about why it ended.
    fn ended_early(&mut self) -> BenchError {
        // Nobody else writes to the pipe, so that it ends with the process.
        let _ = self.child.kill();
        let mut words = Vec::new();
        if let Some(pipe) = self.child.stderr.take() {
            let _ = pipe.take(COMPLAINT_BYTES_MAX).read_to_end(&mut words);
        }
        let words = String::from_utf8_lossy(&words);
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
        BenchError::failed(format!("{} ended before its guest had done its work: {words}", self.name))
    }
}

impl Drop for Vm<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `false`: the deadline passed first.
fn wait(fds: &mut [PollFd<'_>], deadline: Instant) -> Result<bool, BenchError> {
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
    match poll(fds, Some(&left)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(true),
        Err(error) => Err(BenchError::failed(format!("cannot wait for a VM: {error}"))),
    }
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Lets the child write the time into `pipe` as the last thing before exec.
fn tell_time_of_exec(command: &mut Command, pipe: io::PipeWriter) {
    let mut pipe = File::from(std::os::fd::OwnedFd::from(pipe));
    let tell = move || pipe.write_all(&monotonic_ns().to_ne_bytes());
    // SAFETY: `tell` reads a clock and makes one system call; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(tell) };
}

fn read_time(mut pipe: io::PipeReader) -> io::Result<u64> {
    let mut bytes = [0; 8];
    pipe.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
