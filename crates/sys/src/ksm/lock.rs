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
    let mut lock = request(byte, kind);
    // SAFETY: the descriptor is open, and the kernel reads one `flock` while the call lasts.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        error => Err(error),
    }
}

/// Whether another open file has any lock on the byte. Nothing is locked by asking.
pub(super) fn is_held(file: &File, byte: i64) -> io::Result<bool> {
    let mut lock = request(byte, Kind::Exclusive);
    // SAFETY: the descriptor is open, and the kernel reads and writes one `flock` while the call lasts.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(lock.l_type != libc::F_UNLCK as i16)
}

fn request(byte: i64, kind: Kind) -> libc::flock {
    let l_type = match kind {
        Kind::Shared => libc::F_RDLCK,
        Kind::Exclusive => libc::F_WRLCK,
        Kind::Free => libc::F_UNLCK,
    };
    let (l_type, l_whence) = (l_type as i16, libc::SEEK_SET as i16);
    libc::flock { l_type, l_whence, l_start: byte, l_len: 1, l_pid: 0 }
}
