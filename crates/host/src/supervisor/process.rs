//! The process of a VM: made so that it outlives the daemon, and found again by the next one.
//!
//! Its *run lock* says whether it lives: a file that is locked (flock(2)) before the process is made, and whose lock the
//! process inherits. The kernel lets go of it when the process is gone, whatever ended it. The process writes its number
//! into the file before anything else, so that a daemon that ended between making a process and noting its number
//! finds it all the same.

#![allow(unsafe_code)] // Three system calls of the child between fork and exec.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use napa_api::exit::ExitNote;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use super::VmFolder;
use crate::state::ProcessId;

/// How long a process that has the run lock may take until it has written its number.
const NUMBER_BOUND: Duration = Duration::from_secs(2);
/// How often it is looked whether it has.
const NUMBER_POLL: Duration = Duration::from_millis(2);
/// The longest note about an end that is read, in bytes.
const NOTE_BYTES_MAX: u64 = 64 << 10;

/// A VM's process that has not been seen to end.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    pidfd: OwnedFd,
}

/// What became of a process that another daemon started or was about to start.
#[derive(Debug)]
pub enum Found {
    /// It lives.
    Alive(Process),
    /// It was there and has ended.
    Ended,
    /// It was never made.
    NeverMade,
}

/// How a process ended, as far as the kernel says it to who started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// With an exit code.
    Code(u8),
    /// By a signal.
    Signal(i32),
    /// The kernel tells only who started it.
    Unknown,
}

impl Process {
    /// Starts `program run` for the VM whose configuration is in `folder`: in a session of its own, with its log as
    /// standard output and error.
    ///
    /// # Errors
    /// The host has no process or descriptor left, or the disk is full.
    pub fn start(program: &Path, folder: &VmFolder) -> io::Result<Self> {
        let lock = take_run_lock(folder)?;
        let log = open_log(&folder.log())?;
        let mut command = Command::new(program);
        command
            .arg0("napa")
            .args(["run", "--config"])
            .arg(folder.config())
            .arg("--exit-file")
            .arg(folder.exit_note())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let descriptor = lock.as_raw_fd();
        // SAFETY: the closure makes system calls alone and allocates nothing, as a fork of a threaded process must; the
        // descriptor is open in the child because `lock` lives until the fork is over.
        unsafe { command.pre_exec(move || begin(descriptor)) };
        let child = command.spawn()?;
        // The child is waited for through its pidfd; nothing is lost by dropping the handle.
        Self::open(child.id())?.ok_or_else(|| io::Error::other("it was reaped by somebody else"))
    }

    /// Looks for the process that was started, or was about to be, for the VM in `folder`.
    ///
    /// # Errors
    /// The run lock cannot be read.
    pub fn find(folder: &VmFolder) -> io::Result<Found> {
        let mut lock = match OpenOptions::new().read(true).write(true).open(folder.run_lock()) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::NeverMade),
            Err(error) => return Err(error),
        };
        let until = Instant::now() + NUMBER_BOUND;
        loop {
            let is_free = is_free(&lock)?;
            let number = number_in(&mut lock)?;
            match (is_free, number) {
                (true, None) => return Ok(Found::NeverMade),
                (true, Some(_)) => return Ok(Found::Ended),
                (false, Some(pid)) => {
                    // The number is its own as long as the lock is held: it cannot be given away while it lives.
                    if let Some(process) = Self::open(pid)?
                        && !self::is_free(&lock)?
                    {
                        return Ok(Found::Alive(process));
                    }
                }
                (false, None) => {}
            }
            if Instant::now() > until {
                return Err(io::Error::other("its process holds the run lock and does not say which it is"));
            }
            std::thread::sleep(NUMBER_POLL);
        }
    }

    /// `None`: there is no such process.
    fn open(pid: u32) -> io::Result<Option<Self>> {
        let Some(number) = Pid::from_raw(pid as i32) else { return Ok(None) };
        match rustix::process::pidfd_open(number, PidfdFlags::empty()) {
            Ok(pidfd) => {
                let id = ProcessId { pid, start_ticks: start_ticks(pid).unwrap_or(0) };
                Ok(Some(Self { id, pidfd }))
            }
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Which process it is.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// Readable once the process has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Sends a signal. A process that has ended takes none, and that is no error.
    pub fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, signal);
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&now)), Ok(1..))
    }

    /// How it ended; to be called when it has.
    pub fn status(&self) -> Status {
        match rustix::process::waitid(
            WaitId::PidFd(self.pidfd.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        ) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Status::Code(code as u8),
                (None, Some(signal)) => Status::Signal(signal),
                (None, None) => Status::Unknown,
            },
            _ => Status::Unknown,
        }
    }
}

/// What the VM's process said about its end. `None`: nothing, or nothing that can be read.
pub fn exit_note(folder: &VmFolder) -> Option<ExitNote> {
    let mut text = String::new();
    File::open(folder.exit_note()).ok()?.take(NOTE_BYTES_MAX).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Forgets what an earlier process said about its end, and which one it was.
///
/// # Errors
/// The file system refuses.
pub fn forget_last(folder: &VmFolder) -> io::Result<()> {
    for path in [folder.exit_note(), folder.run_lock()] {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// When a process started, in clock ticks since the host's start. `None`: there is no such process.
fn start_ticks(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, is in parentheses and may hold any character.
    text.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

fn take_run_lock(folder: &VmFolder) -> io::Result<File> {
    let lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(folder.run_lock())?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => lock.set_len(0)?,
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(io::Error::other("another process of this VM still holds its run lock"));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(lock)
}

/// What the kernel lets only a process that has the lock, or nobody.
fn is_free(lock: &File) -> io::Result<bool> {
    match flock(lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => flock(lock, FlockOperation::Unlock).map(|()| true).map_err(Into::into),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The number in a run lock. `None`: it is not there, or not all of it.
fn number_in(lock: &mut File) -> io::Result<Option<u32>> {
    let mut text = String::new();
    lock.rewind()?;
    lock.take(32).read_to_string(&mut text)?;
    Ok(text.strip_suffix('\n').and_then(|number| number.parse().ok()))
}

/// Opens a log to be written at its end, also after it was made shorter.
pub fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// In the child, before exec: a session of its own, its number in the run lock, and the lock kept.
fn begin(lock: RawFd) -> io::Result<()> {
    rustix::process::setsid()?;
    let mut digits = [0; 12];
    let number = decimal(rustix::process::getpid().as_raw_nonzero().get().unsigned_abs(), &mut digits);
    // SAFETY: the descriptor is open, see `Process::start`.
    let lock = unsafe { OwnedFd::from_raw_fd(lock) };
    let written = rustix::io::write(&lock, number);
    let kept = rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::empty());
    // It stays open for the program to come.
    std::mem::forget(lock);
    written?;
    kept?;
    Ok(())
}

/// A number and a line break, in the end of `digits`.
fn decimal(mut number: u32, digits: &mut [u8; 12]) -> &[u8] {
    let mut start = digits.len() - 1;
    digits[start] = b'\n';
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[start..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, VmFolder) {
        let state = tempfile::tempdir().unwrap();
        let folder = VmFolder::new(state.path(), 1);
        folder.make().unwrap();
        (state, folder)
    }

    /// A program that ignores its arguments and does this.
    fn program(state: &tempfile::TempDir, script: &str) -> std::path::PathBuf {
        let path = state.path().join("program");
        let file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path).unwrap();
        io::Write::write_all(&mut { file }, format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
        path
    }

    fn wait(process: &Process) -> Status {
        let mut poll = [rustix::event::PollFd::new(&process.pidfd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut poll, None).unwrap();
        process.status()
    }

    #[test]
    fn a_process_is_found_while_it_lives_and_not_after() {
        let (state, folder) = folder();
        assert!(matches!(Process::find(&folder).unwrap(), Found::NeverMade));
        let process = Process::start(&program(&state, "exec sleep 600"), &folder).unwrap();
        let Found::Alive(found) = Process::find(&folder).unwrap() else { panic!("it lives") };
        assert_eq!(found.id(), process.id());
        assert!(found.id().start_ticks > 0);
        assert!(Process::start(Path::new("/bin/true"), &folder).is_err(), "it has one already");
        found.signal(Signal::KILL);
        assert_eq!(wait(&process), Status::Signal(9));
        assert!(matches!(Process::find(&folder).unwrap(), Found::Ended));
        forget_last(&folder).unwrap();
        assert!(matches!(Process::find(&folder).unwrap(), Found::NeverMade));
    }

    #[test]
    fn it_has_a_session_of_its_own_and_a_log() {
        let (state, folder) = folder();
        let script = "echo session $(cut -d' ' -f6 /proc/$$/stat) of $$; echo trouble >&2; exit 7";
        let process = Process::start(&program(&state, script), &folder).unwrap();
        assert_eq!(wait(&process), Status::Code(7));
        let pid = process.id().pid;
        let log = std::fs::read_to_string(folder.log()).unwrap();
        assert_eq!(log, format!("session {pid} of {pid}\ntrouble\n"));
    }

    #[test]
    fn a_daemon_that_ended_before_the_child_began_left_nothing() {
        let (_state, folder) = folder();
        drop(take_run_lock(&folder).unwrap());
        assert!(matches!(Process::find(&folder).unwrap(), Found::NeverMade));
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        for number in [0, 7, 10, 4_194_304, u32::MAX] {
            assert_eq!(decimal(number, &mut [0; 12]), format!("{number}\n").as_bytes());
        }
    }
}
