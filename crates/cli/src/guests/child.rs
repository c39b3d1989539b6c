//! A guest's process: a `napa run` of this binary that does not outlive who started it.

#![allow(unsafe_code)] // The child asks for a signal at its parent's death between fork and exec.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};

use napa_api::config::ShareConfig;
use napa_api::control::{Command as ControlCommand, Request};
use napa_sys::host::{Device, Root};
use napa_units::Bytes;
use rustix::process::{Signal, set_parent_process_death_signal};

use super::reader::LineReader;
use crate::error::Error;

/// This binary, whatever has become of the file that it was started from.
pub const SELF: &str = "/proc/self/exe";
/// How long an orderly stop may take that nobody waits for any more.
const ORPHAN_STOP_S: &str = "5";

/// What a guest is started with.
#[derive(Clone, Copy, Debug)]
pub struct GuestWords<'a> {
    /// The VM's name.
    pub name: &'a str,
    /// Guest memory.
    pub memory: Bytes,
    /// vCPUs.
    pub cpus: u32,
    /// The guest's command line.
    pub cmdline: &'a str,
    /// How far its pages may be merged. `None`: as napa does by itself.
    pub share: Option<&'a ShareConfig>,
}

/// A guest that was started. Dropping it kills the guest, if it still runs, and waits for its end.
pub struct GuestProcess {
    child: Child,
    output: LineReader<ChildStdout>,
    complaints: LineReader<ChildStderr>,
    last_complaint: Option<String>,
    socket: PathBuf,
    gone: Option<Gone>,
}

/// How a guest's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

/// Says at once what would make every guest fail.
///
/// # Errors
/// This user cannot use `/dev/kvm`.
pub fn require_kvm() -> Result<(), Error> {
    match Device::kvm(&Root::system()) {
        Device::Usable => Ok(()),
        Device::Absent => Err(Error::bad_input(
            "there is no /dev/kvm: switch virtualisation on in the firmware, then run: sudo modprobe kvm_intel (or kvm_amd); napa doctor tells more",
        )),
        Device::Denied => Err(Error::bad_input(
            "this user may not open /dev/kvm: run: sudo usermod -aG kvm $USER, then log in again; napa doctor tells more",
        )),
    }
}

impl GuestProcess {
    /// Starts a guest whose control socket is in `folder`.
    ///
    /// # Errors
    /// The host has no process or descriptor left.
    pub fn start(words: GuestWords<'_>, folder: &Path) -> io::Result<Self> {
        let socket = folder.join(format!("{}.sock", words.name));
        let mut command = Command::new(SELF);
        command
            .arg0("napa")
            .args(["run", "--name", words.name, "--memory", &words.memory.to_string()])
            .args(["--cpus", &words.cpus.to_string(), "--cmdline", words.cmdline])
            .args(words.share.into_iter().flat_map(|share| ["--share".to_owned(), share.to_string()]))
            .args(["--stop-timeout", ORPHAN_STOP_S, "--on-reboot", "exit", "--api-socket"])
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C at the terminal is for who started it alone.
            .process_group(0);
        end_with_parent(&mut command, Signal::TERM);
        let mut child = command.spawn()?;
        let output = LineReader::new(child.stdout.take().expect("it was asked for"));
        let complaints = LineReader::new(child.stderr.take().expect("it was asked for"));
        match (output, complaints) {
            (Ok(output), Ok(complaints)) => {
                Ok(Self { child, output, complaints, last_complaint: None, socket, gone: None })
            }
            (Err(error), _) | (_, Err(error)) => {
                kill(&mut child);
                Err(error.into())
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The pipes to wait for.
    pub fn pipes(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let output = self.output.pipe().map(AsFd::as_fd);
        output.into_iter().chain(self.complaints.pipe().map(AsFd::as_fd))
    }

    /// Gives the lines that the guest has written since.
    pub fn read(&mut self, mut on_line: impl FnMut(&str)) {
        self.output.fill();
        while let Some(line) = self.output.next_line() {
            on_line(&line);
        }
        self.complaints.fill();
        while let Some(line) = self.complaints.next_line() {
            self.last_complaint = Some(line).filter(|line| !line.is_empty()).or(self.last_complaint.take());
        }
    }

    /// The last line that napa wrote about this guest.
    pub fn last_complaint(&self) -> Option<&str> {
        self.last_complaint.as_deref()
    }

    /// How it ended. `None` while it runs, or has written something that was not read yet.
    pub fn gone(&mut self) -> Option<Gone> {
        if self.gone.is_none() && self.pipes().next().is_none() {
            // Both pipes are closed: it has ended, or is about to.
            self.gone = self.child.try_wait().ok().flatten().map(Gone::new);
        }
        self.gone
    }

    /// Asks the guest to end in order, and its VM to end it hard after so many seconds. One that cannot be asked is left to
    /// [`GuestProcess::kill`].
    pub fn ask_to_stop(&self, timeout_s: u32) {
        let request = Request { id: None, command: ControlCommand::Stop { timeout_s: Some(timeout_s) } };
        let sent = UnixStream::connect(&self.socket).and_then(|mut stream| {
            stream.set_nonblocking(true)?;
            stream.write_all(&request.encode())
        });
        if sent.is_err() {
            // It is starting or ending: a signal asks for the same.
            let _ =
                rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), Signal::TERM);
        }
    }

    /// Ends the process.
    pub fn kill(&mut self) {
        // It fails only for a process that has been waited for.
        let _ = self.child.kill();
    }
}

impl Drop for GuestProcess {
    fn drop(&mut self) {
        if self.gone.is_none() {
            kill(&mut self.child);
            // A killed process takes its socket's file not with it.
            let _ = std::fs::remove_file(&self.socket);
        }
    }
}

impl Gone {
    fn new(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or(0)),
        }
    }
}

fn kill(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Lets the kernel send `signal` to the child when the thread that starts it dies.
pub fn end_with_parent(command: &mut Command, signal: Signal) {
    let parent = rustix::process::getpid();
    let ask = move || {
        set_parent_process_death_signal(Some(signal))?;
        match rustix::process::getppid() {
            Some(now) if now == parent => Ok(()),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    };
    // SAFETY: `ask` only makes two system calls; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(ask) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ending_is_a_code_or_a_signal() {
        for (raw, expected) in [(0, Gone::Code(0)), (3 << 8, Gone::Code(3)), (9, Gone::Signal(9))] {
            assert_eq!(Gone::new(ExitStatus::from_raw(raw)), expected);
        }
    }
}
