//! QEMU's process: it never outlives the program that started it.
//!
//! Three things see to that: the handle ends the process group when it is dropped; the kernel kills QEMU
//! when the starting process dies; and its CPU time is bounded.

#![allow(unsafe_code)] // What a child does between fork and exec can only be said with `pre_exec`.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use anyhow::{Context, Result};
use rustix::fd::{AsFd, AsRawFd};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getppid, kill_process_group, set_parent_process_death_signal, setrlimit,
};

/// A running child process and its descendants, which end with this value.
pub(crate) struct ProcessGroup {
    child: Child,
}

type Request = (Command, Sender<std::io::Result<Child>>);

impl ProcessGroup {
    /// Starts `command` with the descriptors `inherited` open under their own numbers. It is killed after
    /// `cpu_seconds_max` seconds of CPU time.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn spawn(
        mut command: Command,
        inherited: Vec<OwnedFd>,
        cpu_seconds_max: u64,
    ) -> Result<ProcessGroup> {
        let name = command.get_program().to_string_lossy().into_owned();
        let parent = Pid::from_raw(std::process::id() as i32);
        let prepare = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the request for its death signal.
            if getppid() != parent {
                return Err(Errno::SRCH.into());
            }
            let bound = Some(cpu_seconds_max);
            setrlimit(Resource::Cpu, Rlimit { current: bound, maximum: bound })?;
            inherited.iter().try_for_each(|fd| keep_open(fd.as_fd()))
        };
        command.process_group(0);
        // SAFETY: between fork and exec the closure makes system calls only: it neither allocates nor locks.
        unsafe { command.pre_exec(prepare) };
        let (answer, child) = channel();
        // Descriptors that the closure owns are closed here when the command is dropped after the start.
        spawner().send((command, answer)).expect("the spawning thread never ends");
        let child = child.recv().expect("the spawning thread answers every request");
        Ok(ProcessGroup { child: child.with_context(|| format!("run {name}"))? })
    }

    /// The number of the process that was started.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How the process ended, if it has.
    pub fn ended(&mut self) -> Option<String> {
        self.child.try_wait().ok().flatten().map(|status| status.to_string())
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // Both fail only if the process is gone already.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

fn keep_open(fd: BorrowedFd<'_>) -> std::io::Result<()> {
    Ok(fcntl_setfd(fd, FdFlags::empty())?)
}

/// The option text for a descriptor that the child inherits.
pub(crate) fn descriptor_number(fd: &OwnedFd) -> String {
    fd.as_raw_fd().to_string()
}

/// A child's death signal comes when the *thread* that started it ends, so one thread that lives as long
/// as the process starts them all.
fn spawner() -> &'static Sender<Request> {
    static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (sender, requests) = channel::<Request>();
        thread::spawn(move || {
            for (mut command, answer) in requests {
                let child = command.spawn();
                drop(command);
                // Whoever asked may have panicked; the child then ends with this process.
                let _ = answer.send(child);
            }
        });
        sender
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::process::Stdio;

    /// The other end of a socket that a shell and its child hold as descriptor `number`.
    fn start(thread_ends: bool) -> (ProcessGroup, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let theirs = OwnedFd::from(theirs);
        let number = descriptor_number(&theirs);
        let script = format!("echo started >&{number}; sleep 1000 & sleep 1000");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).stdin(Stdio::null());
        let spawn = move || ProcessGroup::spawn(command, vec![theirs], 60).unwrap();
        let group = if thread_ends { thread::spawn(spawn).join().unwrap() } else { spawn() };
        (group, ours)
    }

    #[test]
    fn the_whole_group_ends_with_its_handle() {
        let (group, mut socket) = start(false);
        let mut text = [0; 8];
        socket.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"started\n");
        drop(group);
        // The socket ends when the last of the group has closed it.
        assert_eq!(socket.read(&mut text).unwrap(), 0);
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let (mut group, mut socket) = start(true);
        let mut text = [0; 8];
        socket.read_exact(&mut text).unwrap();
        assert_eq!(group.ended(), None);
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let error = ProcessGroup::spawn(Command::new("/nonexistent/qemu"), Vec::new(), 1).err().unwrap();
        assert!(format!("{error:#}").contains("/nonexistent/qemu"));
    }
}
