//! Signals that napa uses between its own threads.
#![allow(unsafe_code)] // Signal handlers are installed through libc.

use std::io::{Error, Result};

/// The signal that takes a vCPU thread out of `KVM_RUN`.
pub fn kick_signal() -> i32 {
    libc::SIGRTMIN()
}

extern "C" fn ignore(_: i32) {}

/// Installs an empty handler for [`kick_signal`], without `SA_RESTART`, so that `KVM_RUN` returns `EINTR`.
///
/// # Errors
/// The kernel refused the handler.
pub fn install_kick_handler() -> Result<()> {
    // SAFETY: all-zero is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = ignore as extern "C" fn(i32) as libc::sighandler_t;
    // SAFETY: `action` is initialised, its handler does nothing and is thus async-signal-safe.
    let result = unsafe { libc::sigaction(kick_signal(), &raw const action, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

/// Sends the kick signal to a thread of this process. A thread that has ended is not an error.
pub fn kick(thread: rustix::process::Pid) {
    let process = rustix::process::getpid().as_raw_nonzero().get();
    let thread = thread.as_raw_nonzero().get();
    let signal = kick_signal();
    // SAFETY: tgkill takes plain numbers; a wrong thread id gives ESRCH.
    let _ = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
}
