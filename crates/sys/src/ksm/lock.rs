//! Locks on single bytes of a file that end with the process that has them.
#![allow(unsafe_code)] // No safe wrapper knows locks that belong to an open file.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// What a lock keeps out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Those that want the byte alone.
    Shared,
    /// Everybody else.
    Exclusive,
    /// Nobody.
    Free,
}

/// Changes this open file's lock on one byte without waiting. `false`: somebody else is in the way, and nothing has
/// changed.
pub(super) fn set(file: &File, byte: i64, kind: Kind) -> io::Result<bool> {
    let l_type = match kind {
        Kind::Shared => libc::F_RDLCK,
        Kind::Exclusive => libc::F_WRLCK,
        Kind::Free => libc::F_UNLCK,
    };
    let mut lock = libc::flock {
        l_type: l_type as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open, and the kernel reads one `flock` while the call lasts.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        error => Err(error),
    }
}
