//! Signals: the one that takes a vCPU out of `KVM_RUN`, and those that people send.
#![allow(unsafe_code)] // Signal handlers, masks and signalfd are reached through libc.

use std::cell::Cell;
use std::io::{Error, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;

use rustix::process::Pid;

/// The signal that takes a vCPU thread out of `KVM_RUN`.
fn kick_signal() -> i32 {
    libc::SIGRTMIN()
}

thread_local! {
    /// Where the handler leaves word for a thread that is not inside `KVM_RUN` yet.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(null_mut()) };
}

extern "C" fn on_kick(_: i32) {
    let target = IMMEDIATE_EXIT.get();
    if !target.is_null() {
        // SAFETY: the thread that registered the byte runs this handler, and unregisters it before it goes.
        unsafe { target.write_volatile(1) };
    }
}

/// While it lives, a kick sets a byte of this thread's choosing: the `immediate_exit` of its vCPU. A kick
/// that comes before `KVM_RUN` is thus not lost.
pub struct KickTarget(());

impl KickTarget {
    /// Registers `immediate_exit` for the calling thread.
    ///
    /// # Safety
    /// The byte must outlive the value, and the value must be dropped on the thread that made it.
    pub unsafe fn new(immediate_exit: *mut u8) -> Self {
        IMMEDIATE_EXIT.set(immediate_exit);
        Self(())
    }
}

impl Drop for KickTarget {
    fn drop(&mut self) {
        IMMEDIATE_EXIT.set(null_mut());
    }
}

/// Installs the handler of the kick signal, without `SA_RESTART`, so that `KVM_RUN` returns `EINTR`.
///
/// # Errors
/// The kernel refused the handler.
pub fn install_kick_handler() -> Result<()> {
    // SAFETY: all-zero is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_kick as extern "C" fn(i32) as libc::sighandler_t;
    // SAFETY: `action` is initialised; its handler only reads a thread-local word and writes a byte.
    let result = unsafe { libc::sigaction(kick_signal(), &raw const action, null_mut()) };
    if result == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}

/// Sends the kick signal to a thread of this process. A thread that has ended is not an error.
pub fn kick(thread: Pid) {
    let process = rustix::process::getpid().as_raw_nonzero().get();
    let thread = thread.as_raw_nonzero().get();
    let signal = kick_signal();
    // SAFETY: tgkill takes plain numbers; a wrong thread id gives ESRCH.
    let _ = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
}

/// Signals that arrive as readable bytes instead of interrupting threads.
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks `signals` in the calling thread, and so in those it starts from now on, and collects them.
    ///
    /// # Errors
    /// The process is out of file descriptors, or a number is no signal.
    pub fn new(signals: &[i32]) -> Result<Self> {
        // SAFETY: all-zero bytes are a valid, if unspecified, signal set; it is emptied next.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is a valid place for a signal set.
        unsafe { libc::sigemptyset(&raw mut set) };
        for signal in signals {
            // SAFETY: `set` is initialised; a number that is no signal gives EINVAL.
            if unsafe { libc::sigaddset(&raw mut set, *signal) } != 0 {
                return Err(Error::last_os_error());
            }
        }
        // SAFETY: `set` is initialised; the old mask is not asked for.
        let blocked = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, null_mut()) };
        if blocked != 0 {
            return Err(Error::from_raw_os_error(blocked));
        }
        // SAFETY: `set` is initialised; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: the kernel just made this descriptor for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that has arrived, if any.
    pub fn next(&self) -> Option<i32> {
        // SAFETY: all-zero is a valid signalfd_siginfo: it is plain numbers.
        let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
        let size = size_of_val(&info);
        // SAFETY: `info` has room for `size` bytes.
        let count = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut info).cast(), size) };
        (count == size as isize).then_some(info.ssi_signo as i32)
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Stops this process as Ctrl-Z does at a shell, until somebody lets it go on; also where SIGTSTP is blocked. Where no
/// shell could do that (POSIX.1-2024 §3.238, orphaned process group), it is not stopped.
///
/// # Errors
/// The kernel refused the signal's mask.
pub fn stop_until_continued() -> Result<()> {
    // SAFETY: all-zero bytes are a valid, if unspecified, signal set; it is emptied next.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid place for a signal set.
    unsafe { libc::sigemptyset(&raw mut set) };
    // SAFETY: `set` is initialised, and SIGTSTP is a signal.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGTSTP) };
    let mut before = set;
    // SAFETY: both sets are initialised.
    let unblocked = unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, &raw mut before) };
    if unblocked != 0 {
        return Err(Error::from_raw_os_error(unblocked));
    }
    // SAFETY: sends a signal to this thread alone, which no other thread can take away.
    unsafe { libc::raise(libc::SIGTSTP) };
    // SAFETY: `before` is the mask that the kernel gave; the old mask is not asked for.
    let put_back = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, null_mut()) };
    if put_back == 0 { Ok(()) } else { Err(Error::from_raw_os_error(put_back)) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_kick_sets_the_byte_of_its_thread_only() {
        install_kick_handler().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut byte = 0_u8;
            // SAFETY: `byte` outlives the target, which is dropped on this thread.
            let target = unsafe { KickTarget::new(&raw mut byte) };
            tell.send(rustix::thread::gettid()).unwrap();
            let start = std::time::Instant::now();
            // SAFETY: the byte is written by this thread's own signal handler.
            while unsafe { (&raw const byte).read_volatile() } == 0
                && start.elapsed() < Duration::from_secs(10)
            {
                std::thread::yield_now();
            }
            drop(target);
            byte
        });
        kick(told.recv().unwrap());
        assert_eq!(thread.join().unwrap(), 1);
    }

    #[test]
    fn a_signal_waits_in_its_descriptor() {
        let thread = std::thread::spawn(|| {
            let signals = SignalFd::new(&[libc::SIGUSR2]).unwrap();
            assert_eq!(signals.next(), None);
            let thread = rustix::thread::gettid().as_raw_nonzero().get();
            // SAFETY: sends a signal that this thread has blocked to this thread.
            unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread, libc::SIGUSR2) };
            assert_eq!(signals.next(), Some(libc::SIGUSR2));
            assert_eq!(signals.next(), None);
        });
        thread.join().unwrap();
    }
}
