//! Taps for guests, in a network namespace that only this process and its children see. It vanishes with them.

#![allow(unsafe_code)] // The tap driver is reached by ioctl, namespaces by unshare.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use rustix::thread::UnshareFlags;

const TUN: &str = "/dev/net/tun";

/// Taps of the guests under measurement.
#[derive(Debug)]
pub struct Taps {
    /// They stay as long as their descriptors would; the namespace keeps them, persistent, until its end.
    names: Vec<String>,
}

impl Taps {
    /// Moves this process into a network namespace of its own and makes `count` taps there. The process must have a
    /// single thread.
    ///
    /// # Errors
    /// The user may not, or the kernel has no taps.
    pub fn make(count: usize) -> io::Result<Self> {
        // SAFETY: a network namespace shares no memory or descriptors with another; none is unshared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
        let names: Vec<String> = (0..count).map(|number| format!("bench{number}")).collect();
        names.iter().try_for_each(|name| make(name))?;
        Ok(Self { names })
    }

    /// The name of tap `index`.
    pub fn name(&self, index: usize) -> &str {
        &self.names[index]
    }
}

/// Makes a tap that both VMMs can open: with virtio headers and one queue.
fn make(name: &str) -> io::Result<()> {
    let tun = OpenOptions::new().read(true).write(true).open(TUN)?;
    // SAFETY: all-zero bytes are a valid request: a name, and plain numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes an ifreq, which lives until the call returns.
    let made = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    check(made)?;
    persist(&tun)
}

fn persist(tun: &File) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes a plain number.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST, 1) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
