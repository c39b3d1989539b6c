//! Moves bytes between guest RAM and Unix sockets.
#![allow(unsafe_code)] // Vectors of guest RAM are given to the kernel by address.

use std::io::{Error, ErrorKind, Result};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use napa_virtio::Buffers;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Vectors that one call takes at most (`UIO_MAXIOV`).
const VECTORS_MAX: usize = 1024;

/// Connects to the socket at `path`, or fails at once.
///
/// # Errors
/// Nobody listens there, or too many wait already.
pub fn connect_now(path: &Path) -> Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &address)?;
    Ok(UnixStream::from(socket))
}

/// Reads into the writable pieces of `room`. Zero: the other side sends no more.
///
/// # Errors
/// `WouldBlock`: there is nothing now. Any other: the connection is broken.
pub fn read(stream: &UnixStream, room: &Buffers) -> Result<usize> {
    let vectors = &room.writable[..room.writable.len().min(VECTORS_MAX)];
    // SAFETY: `Buffers` holds pieces of guest RAM that its owner keeps mapped; pointer and count are one slice's.
    let count = unsafe { libc::readv(stream.as_raw_fd(), vectors.as_ptr(), vectors.len() as i32) };
    usize::try_from(count).map_err(|_| Error::last_os_error())
}

/// Writes the readable pieces of `data`; perhaps only a part of them.
///
/// # Errors
/// `WouldBlock`: the other side takes nothing now. Any other: it takes nothing any more.
pub fn write(stream: &UnixStream, data: &Buffers) -> Result<usize> {
    // SAFETY: all-zero is a valid `msghdr`: no address, no vectors, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = data.readable.as_ptr().cast_mut();
    message.msg_iovlen = data.readable.len().min(VECTORS_MAX);
    // A client that went away is an error here, not a signal.
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: `Buffers` holds pieces of guest RAM that its owner keeps mapped; sendmsg only reads them, and
    // `message` lives through the call.
    let count = unsafe { libc::sendmsg(stream.as_raw_fd(), &raw const message, flags) };
    usize::try_from(count).map_err(|_| Error::last_os_error())
}

/// Whether the other side has closed the connection altogether, not only stopped sending.
pub fn is_closed(stream: &UnixStream) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::empty())];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok() && polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// The call may succeed later: nothing is wrong with the connection.
pub fn is_transient(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
