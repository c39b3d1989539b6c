//! Network interfaces by name, through the kernel's `struct ifreq`.
#![allow(unsafe_code)] // Interfaces are controlled by ioctls on a union.

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType, socket};

/// Reads the number of channels (`ethtool -l`).
const ETHTOOL_GCHANNELS: u32 = 0x3c;

/// A name that an interface can have: 1 to 15 bytes, no zero among them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InterfaceName([u8; libc::IFNAMSIZ]);

impl InterfaceName {
    /// Parses a name. `None`: no interface can be called so, or the kernel would take it for a pattern.
    pub fn parse(name: &str) -> Option<Self> {
        let possible = |byte: u8| byte.is_ascii_graphic() && !b"/:%".contains(&byte);
        let fits = (1..libc::IFNAMSIZ).contains(&name.len()) && name != "." && name != "..";
        if !fits || !name.bytes().all(possible) {
            return None;
        }
        let mut bytes = [0; libc::IFNAMSIZ];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Some(Self(bytes))
    }
}

/// A `struct ifreq`: what is asked of an interface, and its answer.
pub struct Interface(libc::ifreq);

impl Interface {
    /// A request that names no interface.
    pub fn empty() -> Self {
        // SAFETY: all-zero is a valid `ifreq`: an empty name and plain numbers.
        Self(unsafe { std::mem::zeroed() })
    }

    /// A request about `name`.
    pub fn named(name: InterfaceName) -> Self {
        let mut request = Self::empty();
        for (to, from) in request.0.ifr_name.iter_mut().zip(name.0) {
            *to = from as libc::c_char;
        }
        request
    }

    /// Asks for or sets `IFF_*` flags.
    pub fn set_flags(&mut self, flags: i32) {
        self.0.ifr_ifru.ifru_flags = flags as i16;
    }

    fn flags(&self) -> i32 {
        // SAFETY: every bit pattern is a valid number, and the union was zeroed or filled by the kernel.
        i32::from(unsafe { self.0.ifr_ifru.ifru_flags })
    }

    fn mtu(&self) -> i32 {
        // SAFETY: every bit pattern is a valid number, and the union was zeroed or filled by the kernel.
        unsafe { self.0.ifr_ifru.ifru_mtu }
    }
}

/// Performs an ioctl on a `struct ifreq`.
///
/// # Errors
/// What the kernel says.
pub fn control(file: &impl AsRawFd, code: libc::Ioctl, request: &mut Interface) -> Result<()> {
    // SAFETY: the codes used here (TUNSETIFF, TUNGETIFF, TUNSETQUEUE, SIOC*IF*) read and write one `ifreq`,
    // which `request` is for the length of the call; its data pointer, where used, is set by `channels`.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), code, &raw mut request.0) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Answers questions about the interfaces of the calling thread's network namespace.
pub struct Interfaces(OwnedFd);

impl Interfaces {
    /// # Errors
    /// The kernel has no sockets to spare.
    pub fn new() -> Result<Self> {
        Ok(Self(socket(AddressFamily::INET, SocketType::DGRAM, None)?))
    }

    /// Whether there is an interface of this name.
    pub fn exists(&self, name: InterfaceName) -> bool {
        control(&self.0, libc::SIOCGIFFLAGS as libc::Ioctl, &mut Interface::named(name)).is_ok()
    }

    /// MTU in bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn mtu(&self, name: InterfaceName) -> Result<i32> {
        let mut request = Interface::named(name);
        control(&self.0, libc::SIOCGIFMTU as libc::Ioctl, &mut request)?;
        Ok(request.mtu())
    }

    /// Sets the MTU, in bytes.
    ///
    /// # Errors
    /// `EINVAL`: out of the interface's range. `EPERM`: no `CAP_NET_ADMIN`.
    pub fn set_mtu(&self, name: InterfaceName, mtu: u16) -> Result<()> {
        let mut request = Interface::named(name);
        request.0.ifr_ifru.ifru_mtu = i32::from(mtu);
        control(&self.0, libc::SIOCSIFMTU as libc::Ioctl, &mut request)
    }

    /// Switches the interface on.
    ///
    /// # Errors
    /// `EPERM`: no `CAP_NET_ADMIN`.
    pub fn set_up(&self, name: InterfaceName) -> Result<()> {
        let mut request = Interface::named(name);
        control(&self.0, libc::SIOCGIFFLAGS as libc::Ioctl, &mut request)?;
        request.set_flags(request.flags() | libc::IFF_UP);
        control(&self.0, libc::SIOCSIFFLAGS as libc::Ioctl, &mut request)
    }

    /// Number of queues of a tap that take part, whoever holds them. `None`: this kernel does not tell.
    pub fn channels(&self, name: InterfaceName) -> Option<usize> {
        let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
        let mut request = Interface::named(name);
        request.0.ifr_ifru.ifru_data = (&raw mut channels).cast();
        control(&self.0, libc::SIOCETHTOOL as libc::Ioctl, &mut request).ok()?;
        usize::try_from(channels.combined).ok()
    }
}

/// `struct ethtool_channels`.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    receive_max: u32,
    transmit_max: u32,
    other_max: u32,
    combined_max: u32,
    receive: u32,
    transmit: u32,
    other: u32,
    combined: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_interface_can_be_called_is_a_name() {
        for name in ["tap0", "a", "fifteen-letters"] {
            assert!(InterfaceName::parse(name).is_some(), "{name}");
        }
        for name in ["", "sixteen-letters-", ".", "..", "tap%d", "a/b", "a:1", "a b", "tap\0", "täp"] {
            assert!(InterfaceName::parse(name).is_none(), "{name:?}");
        }
    }
}
